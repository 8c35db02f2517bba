"""Whole engines with adapters beside one without, at sizes that say nothing of speed."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from benchmarks import engines
from benchmarks.adapter_files import WEIGHTS, write_adapters
from benchmarks.engines import Engine, EngineSpec
from benchmarks.gpu import engine
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.engine import BASE, LARGE, TINY, Contender, rows_of
from benchmarks.gpu.shapes import LLAMA_7B

PLUGIN = "our plug-in, 4 adapters"


@pytest.mark.slow
def test_engines_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine.make_contenders
    # One beside the base is enough here.
    monkeypatch.setattr(engine, "make_contenders", lambda *args: made(*args)[:1])
    seen: dict[str, list[float]] = {}

    def seeing(contender: Contender, rates: Any, *args: Any) -> list[dict[str, Any]]:
        seen.update(rates or {})
        return rows_of(contender, rates, *args)

    monkeypatch.setattr(engine, "rows_of", seeing)
    budget = Budget(500)
    rows = engine.measure(LLAMA_7B.tiny(), "cpu", TINY, budget)
    assert budget.left_out == {}
    names = [BASE, "our plug-in, no adapter used", PLUGIN]
    assert [row["variant"] for row in rows] == names
    assert [row["is_judged"] for row in rows] == [False, False, True]
    assert {row["tokens_per_second"] for row in rows} == {"not measured"}
    assert list(seen) == names
    for rates in seen.values():
        assert len(rates) == TINY.rounds
        assert min(rates) > 0


def test_an_engine_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(spec: EngineSpec) -> None:
        raise ValueError(f"no model in {spec.base}")

    monkeypatch.setattr(engines, "_RunningEngine", fail)
    ours, theirs = multiprocessing.Pipe()
    with pytest.raises(ValueError, match="no model"):
        engines._serve(theirs, EngineSpec("base", Path("none"), 4))
    assert str(ours.recv()) == "ValueError: no model in none"


def test_an_engine_whose_process_ends_is_not_waited_for(tmp_path: Path) -> None:
    with Engine(EngineSpec("base", tmp_path / "none", 4)) as starting:
        starting._process.kill()
        for order in (starting.wait_until_ready, lambda: starting.rate([None], 1)):
            with pytest.raises(RuntimeError, match="ended with exit code -9"):
                order()


def test_an_engine_is_not_waited_for_longer_than_said(tmp_path: Path) -> None:
    with (
        Engine(EngineSpec("base", tmp_path / "none", 4)) as starting,
        pytest.raises(TimeoutError, match="within 0 s"),
    ):
        starting.wait_until_ready(0.01)


def test_ratios_are_those_of_the_same_round() -> None:
    contender = Contender("propulsion", {}, {PLUGIN: [Path("a")]})
    rates = {BASE: [100.0, 10.0, 50.0], PLUGIN: [99.0, 9.9, 49.5]}
    (row,) = rows_of(contender, rates, "cuda", "")
    assert row["ratio_to_base"]["median"] == pytest.approx(0.99)
    assert row["tokens_per_second"]["median"] == 49.5
    (row,) = rows_of(contender, None, "cuda", "skipped")
    assert (row["ratio_to_base"], row["note"]) == ("not measured", "skipped")


@pytest.mark.slow
def test_without_time_no_engine_starts() -> None:
    budget = Budget(0)
    (row,) = engine.measure(LLAMA_7B, "cpu", LARGE, budget)
    assert row["is_judged"]
    assert row["note"] == budget.left_out["engines"]
    assert row["note"].startswith("skipped: 0 s")


@pytest.mark.parametrize("kind", ["propulsion", "lora"])
def test_adapters_fit_the_shape_without_its_weights(tmp_path: Path, kind: str) -> None:
    shape = LLAMA_7B.tiny()
    base = engine.write_config(tmp_path / "base", shape, TINY.vocabulary)
    assert [path.name for path in base.iterdir()] == ["config.json"]
    folders = write_adapters(tmp_path, base, 3, kind, num_files=2)
    files = [(folder / WEIGHTS).stat().st_ino for folder in folders]
    assert files[0] == files[2] != files[1]
    shapes = [value.shape for value in load_file(folders[2] / WEIGHTS).values()]
    per_module = {"propulsion": 1, "lora": 2}[kind]
    assert len(shapes) == shape.layers * 7 * per_module
    assert max(max(size) for size in shapes) == shape.intermediate


def test_the_cache_holds_all_requests() -> None:
    # Keys and values, 2 bytes, 32 layers of 4096, of 256 requests of 64 tokens.
    assert LARGE.cache_bytes(LLAMA_7B) >= 2 * 2 * 32 * 4096 * 256 * 64
    assert LARGE.cache_bytes(LLAMA_7B) < 16 * 2**30
