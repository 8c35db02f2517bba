import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cluster.capacity.planning.cli import app
from cluster.capacity.planning.demand import ServingDemand, serving_demand
from cluster.capacity.planning.plan import ServingPlan, plan_serving
from cluster.capacity.times import read_times, with_places
from propulsion.errors import ConfigError
from tests.cluster.capacity.fleets import made_up_times
from trainer.planning.cli import plan as plan_training

RUN_FILE = Path(__file__).parents[3] / "examples" / "demo" / "sst2.yaml"
DEMAND = {
    "adapters": 2000,
    "requests_per_second": 100.0,
    "prompt_tokens": 64.0,
    "output_tokens": 16.0,
    "ttft_p99_seconds": 0.3,
    "inter_token_p99_seconds": 0.1,
}


def plan(**changes: float) -> ServingPlan:
    return plan_serving(ServingDemand(**(DEMAND | changes)), made_up_times())


@pytest.fixture(scope="module")
def usual() -> ServingPlan:
    return plan()


@pytest.fixture
def times_file(tmp_path: Path) -> Path:
    path = tmp_path / "times.json"
    path.write_text(made_up_times().model_dump_json())
    return path


def options(times: Path, **changes: object) -> list[str]:
    told = {"times": times, **DEMAND, **changes}
    return [f"--{name.replace('_', '-')}={value}" for name, value in told.items()]


def test_plan_keeps_what_is_promised(usual: ServingPlan):
    assert usual.forecast.ttft_p99 <= 0.3
    assert usual.forecast.inter_token_p99 <= 0.1
    assert usual.forecast.utilisation <= 0.8
    assert usual.gpus == 2 * usual.forecast.replicas
    assert usual.slot_bytes_per_replica == 40 * 4096
    assert usual.host_bytes_per_replica == 100 * 4096
    assert usual.warnings == ()


def test_one_replica_less_breaks_the_promise():
    tried = []
    demand = ServingDemand(**(DEMAND | {"inter_token_p99_seconds": 0.045}))
    tight = plan_serving(demand, made_up_times(), tell=tried.append)
    less = next(f for f in tried if f.replicas == tight.forecast.replicas - 1)
    assert less.inter_token_p99 > 0.045
    assert tight.limited_by == "time between tokens"


def test_more_traffic_and_tighter_promises_need_more_replicas(usual: ServingPlan):
    assert plan(requests_per_second=200.0).forecast.replicas > usual.forecast.replicas
    assert plan(ttft_p99_seconds=0.08).forecast.replicas > usual.forecast.replicas
    assert plan(headroom=0.6).forecast.replicas > usual.forecast.replicas


def test_price_makes_a_cost(usual: ServingPlan):
    assert usual.cost_per_million_tokens is None
    priced = plan(price_per_replica_hour=2.0)
    an_hour = 3600 * 100 * 16
    expected = 2.0 * priced.forecast.replicas / an_hour * 1e6
    assert priced.cost_per_million_tokens == pytest.approx(expected)


def test_what_was_not_measured_is_said():
    (warning,) = plan(prompt_tokens=300.0).warnings
    assert "300" in warning
    assert "measure" in warning


@pytest.mark.parametrize("name", ["ttft_p99_seconds", "inter_token_p99_seconds"])
def test_promise_that_no_idle_replica_keeps_is_refused(name: str):
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}.*no number of replicas"):
        plan(**{name: 0.001})


@pytest.mark.parametrize(
    ("name", "value"),
    [("adapters", 0), ("requests_per_second", -1), ("headroom", 1.0), ("zipf_exponent", -0.1)],
)
def test_wrong_demand_names_its_option(name: str, value: float):
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}"):
        serving_demand(**(DEMAND | {name: value}))


def test_host_memory_below_the_slots_is_refused():
    with pytest.raises(ConfigError, match="--host-adapters"):
        with_places(made_up_times(), slots=64, host_adapters=32)


@pytest.mark.parametrize("text", ["", "{}", '{"step": 1}', "not json"])
def test_file_that_holds_no_times_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "times.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="propulsion cluster measure"):
        read_times(path)


def test_unmeasured_device_is_not_guessed(tmp_path: Path):
    outcome = CliRunner().invoke(app, ["serving", *options(tmp_path / "h100.json")])
    assert isinstance(outcome.exception, ConfigError)
    assert "propulsion cluster measure" in str(outcome.exception)


def test_command_writes_the_plan(times_file: Path, tmp_path: Path):
    target = tmp_path / "plan.json"
    outcome = CliRunner().invoke(app, ["serving", *options(times_file, json=target)])
    assert outcome.exit_code == 0, outcome.exception
    told = json.loads(target.read_text())
    shown = re.search(r"replicas\s*│\s*(\d+)", outcome.output)
    assert shown is not None
    assert told["forecast"]["replicas"] == int(shown.group(1))


def test_missing_option_is_asked_for(times_file: Path):
    arguments = [o for o in options(times_file) if not o.startswith("--adapters")]
    outcome = CliRunner().invoke(app, ["serving", *arguments])
    assert outcome.exit_code == 2
    assert "--adapters" in outcome.output


@pytest.mark.parametrize("arguments", [["--nodes", "2"], []])
def test_run_file_alone_is_planned_as_training(arguments: list[str]):
    alone = typer.Typer()
    alone.command()(plan_training)
    expected = CliRunner().invoke(alone, [*arguments, str(RUN_FILE)])
    outcome = CliRunner().invoke(app, [*arguments, str(RUN_FILE)])
    assert expected.exit_code == 0
    assert outcome.output == expected.output
