"""Versions under one name: aliases, splits, and blocks cached for a prompt, never for another's."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import monotonic, sleep

import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from tests.serving import tiny

pytestmark = pytest.mark.slow

# Longer than a block, of 128 tokens on CPU: shorter prompts are never cached.
PROMPT = "every request of this test begins with the same words, and with more than a block: " * 2
FOLDERS = {"v1": "value-2", "v2": "up-15"}
ANSWERS_BETWEEN_MOVES = 6


@pytest.fixture(scope="module")
def versions(live, base, adapter_folders) -> dict[str, list[int]]:
    """What each version of `rolling` is to answer; published with `prod` at v1."""
    for version, folder in FOLDERS.items():
        aliases = ["prod"] if version == "v1" else []
        live.publish(adapter_folders[folder], "rolling", aliases=aliases)
    return {
        f"rolling@{version}": tiny.reference_tokens(
            base, adapter_folders[folder], [PROMPT], tiny.MAX_TOKENS
        )[0]
        for version, folder in FOLDERS.items()
    }


def cached_tokens(live) -> float:
    families = text_string_to_metric_families(live.clients["admin"].get("/metrics").text)
    samples = (sample for family in families for sample in family.samples)
    return sum(s.value for s in samples if s.name == "vllm:prefix_cache_hits_total")


def move(live, version: str) -> None:
    path = "/admin/v1/adapters/rolling/aliases/prod"
    response = live.clients["admin"].put(path, json={"version": version})
    assert response.status_code == 200, response.text


def test_an_alias_moves_and_back_under_load_without_a_stale_answer(live, versions):
    answered: Counter[str] = Counter()
    over = Event()

    def ask() -> str:
        response = live.server.complete("rolling@prod", PROMPT, tiny.MAX_TOKENS)
        assert response.status_code == 200, response.text
        version = response.headers["X-Adapter-Version"]
        assert response.json()["choices"][0]["token_ids"] == versions[version]
        answered[version] += 1
        return version

    def keep_asking() -> None:
        while not over.is_set():
            ask()

    before = cached_tokens(live)
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(keep_asking) for _ in range(4)]
        try:
            for version in ("v2", "v1", "v2", "v1"):
                enough, deadline = answered.total() + ANSWERS_BETWEEN_MOVES, monotonic() + 60
                while answered.total() < enough and not any(f.done() for f in asking):
                    assert monotonic() < deadline, "requests are not answered"
                    sleep(0.02)
                move(live, version)
                assert ask() == f"rolling@{version}"
        finally:
            over.set()
        for future in asking:
            future.result()
    assert set(answered) == set(versions)
    assert cached_tokens(live) - before > answered.total() * 64, "hardly a prompt was cached"


def test_an_alias_does_not_move_to_a_version_that_cannot_be_loaded(live, versions, base, tmp_path):
    move(live, "v1")
    folder = tiny.make_adapter(
        tmp_path / "narrow", base, degree=1, target_modules=["q_proj"], seed=0
    )
    tiny.overwrite_weights(folder, {"model.layers.0.self_attn.q_proj": torch.zeros(1, 7)})
    bad = live.publish(folder, "rolling", aliases=[]).name
    path = "/admin/v1/adapters/rolling/aliases/prod"
    assert live.clients["admin"].put(path, json={"version": bad}).status_code == 422
    assert live.store.aliases("rolling")["prod"] == "v1"


def test_base_and_adapters_with_one_prompt_do_not_share_blocks(
    live, base, adapter_folders, versions
):
    names = [None, "all-15", "mlp-3", "attn-1"]
    wanted = {
        name: tiny.reference_tokens(
            base, adapter_folders[name] if name else None, [PROMPT], tiny.MAX_TOKENS
        )[0]
        for name in names
    }
    work = names * 4
    before = cached_tokens(live)
    with ThreadPoolExecutor(len(work)) as pool:
        answers = pool.map(
            lambda name: live.server.complete(name or "tiny-base", PROMPT, tiny.MAX_TOKENS), work
        )
        for name, answer in zip(work, answers, strict=True):
            assert answer.json()["choices"][0]["token_ids"] == wanted[name]
    for name in names:
        again = live.server.complete(name or "tiny-base", PROMPT, tiny.MAX_TOKENS)
        assert again.json()["choices"][0]["token_ids"] == wanted[name]
    assert cached_tokens(live) > before


def test_a_blend_is_not_answered_from_the_blocks_of_its_parts(live):
    parts = [live.server.complete(name, PROMPT, 8) for name in ("all-15", "mlp-3")]
    blend = live.server.complete("all-15:0.5+mlp-3:0.5", PROMPT, 8)
    other = live.server.complete("all-15:0.9+mlp-3:0.1", PROMPT, 8)
    again = live.server.complete("mlp-3:0.5+all-15:0.5", PROMPT, 8)
    tokens = [r.json()["choices"][0]["token_ids"] for r in (*parts, blend, other)]
    assert len(set(map(tuple, tokens))) == 4
    assert again.json()["choices"][0]["token_ids"] == tokens[2]


def test_a_split_gives_each_version_about_its_share(live, versions):
    path = "/admin/v1/adapters/rolling/splits/ab"
    weights = {"weights": {"v1": 0.5, "v2": 0.5}}
    assert live.clients["admin"].put(path, json=weights).status_code == 200

    def version(user: str | None = None) -> str:
        options = {"user": user} if user else {}
        response = live.server.complete("rolling@ab", PROMPT, tiny.MAX_TOKENS, **options)
        answered = response.headers["X-Adapter-Version"]
        assert response.json()["choices"][0]["token_ids"] == versions[answered]
        return answered

    with ThreadPoolExecutor(8) as pool:
        drawn = Counter(pool.map(lambda _: version(), range(80)))
        users = [f"user-{i}" for i in range(40)]
        first, second = list(pool.map(version, users)), list(pool.map(version, users))
    # Less than one run in a million draws fewer than 18 of 80.
    assert min(drawn[name] for name in versions) >= 18
    assert first == second
    assert min(Counter(first)[name] for name in versions) >= 8
