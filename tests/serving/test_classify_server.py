"""A server whose base cannot classify, and whose adapters bring the heads."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch

from adapters import AdapterStore, base_fingerprint
from tests.serving import tiny, tiny_heads
from tests.serving.live_server import LiveServer

pytestmark = pytest.mark.slow

HEADS = {
    "sentiment": {"num_labels": 2, "id2label": {0: "negative", 1: "positive"}},
    "topic": {"num_labels": 3, "id2label": {0: "world", 1: "sport", 2: "business"}},
    "rating": {"num_labels": 1, "problem_type": "regression"},
}
MAX_LABELS = 4


@pytest.fixture(scope="module")
def folders(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("heads")
    return {
        name: tiny_heads.make_adapter(root / name, base, seed=seed, **head)
        for seed, (name, head) in enumerate(HEADS.items())
    }


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory, base: Path, adapter_folders, folders
) -> AdapterStore:
    store = AdapterStore(tmp_path_factory.mktemp("store"))
    published = {**folders, "plain": adapter_folders["attn-1"]}
    for shape in ((2, 65), (MAX_LABELS + 1, 64)):
        name = f"head-{shape[0]}-{shape[1]}"
        wrong = tmp_path_factory.mktemp("wrong") / name
        published[name] = tiny_heads.with_head(wrong, folders["sentiment"], torch.ones(shape))
    for name, folder in published.items():
        store.publish(folder, name, base_fingerprint=base_fingerprint(base))
    return store


@pytest.fixture(scope="module")
def server(base: Path, store: AdapterStore, tmp_path_factory) -> Iterator[LiveServer]:
    log = tmp_path_factory.mktemp("server") / "log"
    options = ["--max-head-labels", str(MAX_LABELS), "--resolution-ttl-seconds", "0"]
    vllm_options = ["--", "--runner", "pooling", "--convert", "classify"]
    server = LiveServer(base, store.path, log, *options, *vllm_options)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def answers(base: Path, folders: dict[str, Path]) -> dict[str, list[torch.Tensor]]:
    """What /classify should answer for each prompt, by adapter."""
    logits = {
        name: tiny_heads.reference_logits(base, folder, **HEADS[name])
        for name, folder in folders.items()
    }
    return {
        name: found if name == "rating" else [values.softmax(-1) for values in found]
        for name, found in logits.items()
    }


def classify(server: LiveServer, model: str, inputs: list[str]) -> httpx.Response:
    return server.client.post("/classify", json={"model": model, "input": inputs})


def assert_answers(response: httpx.Response, name: str, wanted: list[torch.Tensor]) -> None:
    assert response.status_code == 200, response.text
    labels = HEADS[name].get("id2label", {0: "LABEL_0"})
    data = response.json()["data"]
    for found, values in zip(data, wanted, strict=True):
        torch.testing.assert_close(torch.tensor(found["probs"]), values, rtol=1e-3, atol=1e-4)
        assert found["num_classes"] == len(values)
        assert found["label"] == labels[int(values.argmax())]


def refused(server: LiveServer, model: str, status: int = 400) -> str:
    response = classify(server, model, tiny.PROMPTS[:1])
    assert response.status_code == status, response.text
    return response.json()["error"]["message"]


def test_concurrent_requests_are_answered_by_their_own_heads_and_labels(server, answers):
    work = [name for name in HEADS for _ in range(4)]
    with ThreadPoolExecutor(len(work)) as pool:
        responses = list(pool.map(lambda name: classify(server, name, tiny.PROMPTS), work))
    for name, response in zip(work, responses, strict=True):
        assert_answers(response, name, answers[name])
        assert response.headers["X-Adapter-Version"] == f"{name}@v1"


def test_an_alias_that_moves_changes_head_and_labels(server, store, base, folders, answers):
    for name in ("topic", "sentiment", "rating"):
        store.publish(folders[name], "moving", base_fingerprint=base_fingerprint(base))
        assert_answers(classify(server, "moving", tiny.PROMPTS), name, answers[name])


def test_what_has_no_head_is_refused(server):
    assert "has no classification head" in refused(server, "tiny-base")
    assert "neither it nor the base model has a classification head" in refused(server, "plain")


def test_a_head_that_does_not_fit_is_refused_and_the_server_lives_on(server, answers):
    assert "was not made for the base model" in refused(server, "head-2-65")
    assert "--max-head-labels 5" in refused(server, "head-5-64")
    assert "cannot be blended" in refused(server, "sentiment:0.5+topic:0.5")
    assert_answers(classify(server, "topic", tiny.PROMPTS), "topic", answers["topic"])
