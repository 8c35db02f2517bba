"""Train, gate, promote: the live server answers with the new version, never with a stale one."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters import AdapterStore
from tests.cluster.training.ray_cluster import RayCluster, propulsion
from tests.serving import tiny
from tests.serving.live_server import LiveServer, token_ids, traffic
from tests.trainer.runs import train_all, write_run
from trainer.result import read_result

pytestmark = [pytest.mark.slow, pytest.mark.nightly]

PROMPT = "the film is"
MODEL = "tiny@prod"
MAX_TOKENS = 12
HEAD = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


@pytest.fixture
def server(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    for name, value in HEAD.items():
        monkeypatch.setitem(os.environ, name, value)
    (tmp_path / "store").mkdir()
    # Every request looks where the alias leads now.
    server = LiveServer(
        base, tmp_path / "store", tmp_path / "server.log", "--resolution-ttl-seconds", "0"
    )
    yield server
    server.stop()


def test_a_promoted_adapter_answers_and_one_held_back_does_not(
    base: Path, cluster: RayCluster, tmp_path: Path, server: LiveServer
) -> None:
    def run(name: str, at_least: float, words: tuple[str, str]) -> Path:
        gate = {"at_least": at_least}
        publish = {"store": str(tmp_path / "store"), "aliases": ["prod"], "gate": gate}
        records = {"format": "tsv", "text": "sentence", "label": "label"}
        return write_run(
            tmp_path / name,
            base,
            publish=publish,
            task={"type": "causal_lm"},
            training={"steps": 30, "batch_size": 8, "lr": 0.1},
            data__records={**records, "labels": dict(zip("01", words, strict=True))},
        )

    def ask() -> tuple[str, list[int]]:
        response = server.complete(MODEL, PROMPT, MAX_TOKENS)
        return response.json().get("model", ""), token_ids(response)

    first = run("first", -1e9, ("bad", "good"))
    held_back = run("held-back", 1e9, ("dull", "fine"))
    promoted = run("promoted", -1e9, ("story", "film"))
    train_all(first, held_back)
    assert "is below" in read_result(tmp_path / "held-back" / "out").only.held_back
    store = AdapterStore(tmp_path / "store")
    assert store.aliases("tiny") == {"prod": "v1"}
    seen: list[tuple[str, list[int]]] = []

    def ask_again() -> None:
        seen.append(ask())
        # Ray's processes are nice ones, and would get no share of a small machine.
        time.sleep(0.5)

    with traffic(ask_again, threads=1):
        told = propulsion(
            "cluster", "submit", "--follow", str(promoted), "--address", cluster.address
        )
        assert "published as tiny@v3" in told
        # The job is over, so from here on an answer of the version before would be stale.
        after = [ask() for _ in range(5)]
    wanted = {
        version.reference: tiny.reference_tokens(base, version.path, [PROMPT], MAX_TOKENS)[0]
        for version in store.versions("tiny")
    }
    assert len({tuple(tokens) for tokens in wanted.values()}) == 3, "they answer alike"
    assert after == [("tiny@v3", wanted["tiny@v3"])] * 5
    assert all(tokens == wanted[model] for model, tokens in seen)
    versions = [model for model, _ in seen]
    assert versions == sorted(versions), "an answer of the old version after one of the new"
    assert {versions[0], versions[-1]} == {"tiny@v1", "tiny@v3"}
    assert server.process.poll() is None
