"""For every alert, series under which it must fire, and some under which it must not."""

from dataclasses import dataclass

Series = dict[str, str]
"""Series → a value for each minute, in promtool's notation."""

SERVER = 'role="server", instance="s"'
GATEWAY = 'role="gateway", instance="g"'
TRAINER = 'role="trainer", instance="t"'
RUN = f'{TRAINER}, run="r"'


@dataclass(frozen=True)
class Case:
    """Attributes:
    fires: the fault.
    at: minutes after which the alert fires.
    not_yet: minutes after which it does not fire yet, if it waits.
    silent: what else may happen, without an alert at `at`.
    """

    fires: Series
    at: int
    silent: tuple[Series, ...]
    not_yet: int | None = None


def ttft(within_1_s: int, within_5_s: int) -> Series:
    """A histogram of so many first tokens a minute."""
    name = "propulsion_serve_ttft_seconds_bucket"
    by_bound = {"1.0": within_1_s, "2.5": within_1_s, "5.0": within_5_s, "+Inf": within_5_s}
    return {
        f'{name}{{{SERVER}, adapter="a", le="{le}"}}': f"0+{n}x60" for le, n in by_bound.items()
    }


def served(ok: int, errors: int, code: str) -> Series:
    """So many requests a minute that ended well, and errors with a status."""
    return {
        f'propulsion_serve_requests_total{{{SERVER}, adapter="a", outcome="ok"}}': f"0+{ok}x60",
        f'propulsion_serve_errors_total{{{SERVER}, adapter="a", code="{code}"}}': f"0+{errors}x60",
    }


def evictions(level: str, evicted: int) -> Series:
    """So many evictions for a hundred uses a minute."""
    kind = "slot" if level == "slot" else "host_cache"
    return {
        f'propulsion_serve_evictions_total{{{SERVER}, level="{level}"}}': f"0+{evicted}x60",
        f"propulsion_serve_{kind}_hits_total{{{SERVER}}}": "0+50x60",
        f"propulsion_serve_{kind}_misses_total{{{SERVER}}}": "0+50x60",
    }


def steps(count: str, seconds: str, last: str, up: str) -> Series:
    """A trainer: steps, their summed seconds, time of the last one, and whether it answers."""
    return {
        f"propulsion_train_step_seconds_count{{{RUN}}}": count,
        f"propulsion_train_step_seconds_sum{{{RUN}}}": seconds,
        f"propulsion_train_last_step_timestamp_seconds{{{RUN}}}": last,
        f"up{{{TRAINER}}}": up,
    }


def loss(values: str) -> Series:
    """The loss of an adapter."""
    return {f'propulsion_train_loss{{{RUN}, adapter="a"}}': values}


def routed(**others: int) -> Series:
    """A hundred routed requests a minute, and so many of other counters of the gateway."""
    named = {
        f"propulsion_cluster_{name}_total{{{GATEWAY}}}": f"0+{rate}x60"
        for name, rate in others.items()
    }
    return {f'propulsion_cluster_routed_requests_total{{{GATEWAY}, route="home"}}': "0+100x60"} | (
        named
    )


def replicas(state: str, values: str) -> Series:
    """How many replicas are in a state."""
    return {f'propulsion_cluster_replicas{{{GATEWAY}, state="{state}"}}': values}


def runs(queued: str, running: str) -> Series:
    """What the training queue says."""
    place = 'instance="q", team="red"'
    return {
        f"propulsion_cluster_queued_runs{{{place}}}": queued,
        f"propulsion_cluster_running_runs{{{place}}}": running,
    }


def ended(outcome: str, values: str) -> Series:
    """Runs that have come to an end."""
    return {
        f'propulsion_cluster_finished_runs_total{{team="red", outcome="{outcome}"}}': values,
    }


ENGINE_UP = f"propulsion_serve_engine_up{{{SERVER}}}"
RESTARTS = f"propulsion_serve_engine_restarts_total{{{SERVER}}}"
WAITING = f"vllm:num_requests_waiting{{{SERVER}}}"
LOAD_FAILURES = "propulsion_serve_load_failures_total"

CASES = {
    "PropulsionServerDown": Case(
        {f"up{{{SERVER}}}": "0x20"},
        at=6,
        not_yet=4,
        silent=({f"up{{{SERVER}}}": "1x20"}, {f"up{{{TRAINER}}}": "0x20"}),
    ),
    "PropulsionEngineDown": Case(
        {ENGINE_UP: "1 0x20"},
        at=4,
        not_yet=2,
        silent=(
            {ENGINE_UP: "1 0 1x20"},
            # A gateway has no engine of its own.
            {f"propulsion_serve_engine_up{{{GATEWAY}}}": "0x20"},
        ),
    ),
    "PropulsionEngineRestarted": Case(
        {RESTARTS: "0 0 1x60"}, at=5, silent=({RESTARTS: "0x60"}, {RESTARTS: "1x60"})
    ),
    "PropulsionTimeToFirstTokenHigh": Case(
        ttft(95, 100), at=10, not_yet=5, silent=(ttft(100, 100), ttft(995, 1000))
    ),
    "PropulsionRequestQueueGrowing": Case(
        {WAITING: "0+5x60"}, at=15, not_yet=8, silent=({WAITING: "0 200 100 50 0x20"},)
    ),
    "PropulsionServerErrors": Case(
        served(98, 2, "503"),
        at=5,
        not_yet=1,
        silent=(served(995, 5, "503"), served(50, 50, "404")),
    ),
    "PropulsionAdapterLoadFailures": Case(
        {f'{LOAD_FAILURES}{{{SERVER}, reason="corrupt"}}': "0 0 1x60"},
        at=4,
        silent=(
            {f'{LOAD_FAILURES}{{{SERVER}, reason="not_found"}}': "0+5x60"},
            {f'{LOAD_FAILURES}{{{SERVER}, reason="corrupt"}}': "0x60"},
        ),
    ),
    "PropulsionSlotThrash": Case(
        evictions("slot", 40), at=12, not_yet=9, silent=(evictions("slot", 20),)
    ),
    "PropulsionHostCacheThrash": Case(
        evictions("host", 15), at=12, not_yet=9, silent=(evictions("host", 5),)
    ),
    "PropulsionTrainerDown": Case(
        {f"up{{{TRAINER}}}": "1 0x20"},
        at=4,
        not_yet=2,
        silent=({f"up{{{TRAINER}}}": "1x20"}, {f"up{{{TRAINER}}}": "1 1 stale"}),
    ),
    "PropulsionTrainingStalled": Case(
        # A hundred steps, and then none.
        steps("0+10x10 100x90", "0+60x10 600x90", "0+60x10 600x90", "1x100"),
        at=45,
        not_yet=35,
        silent=(
            steps("0+10x100", "0+60x100", "0+60x100", "1x100"),
            # One that takes 40 minutes a step.
            steps("1x39 2x60", "2400x39 4800x60", "0x39 2400x60", "1x100"),
            # One that has come to its end.
            steps("0+10x10 stale", "0+60x10 stale", "0+60x10 stale", "1x10 stale"),
        ),
    ),
    "PropulsionLossNotFinite": Case(
        loss("3 2.9 NaN NaN NaN NaN"), at=4, silent=(loss("3 2.9 300 2.8x10"),)
    ),
    "PropulsionLossDiverging": Case(
        loss("3x60 6x30"),
        at=70,
        not_yet=62,
        silent=(
            loss("6-0.05x90"),
            # The first steps are no measure.
            loss("0.5 5 2 4 3 2 5x3 3x80"),
            loss("0.01x60 0.05x30"),
        ),
    ),
    "PropulsionGatewayDown": Case(
        {f"up{{{GATEWAY}}}": "1 0x20"}, at=3, not_yet=1, silent=({f"up{{{GATEWAY}}}": "1x20"},)
    ),
    "PropulsionNoReplicas": Case(
        replicas("running", "2 0x20"),
        at=3,
        not_yet=1,
        silent=(replicas("running", "1x20"), replicas("starting", "0x20")),
    ),
    "PropulsionReplicasMissing": Case(
        replicas("starting", "0 1x30"),
        at=20,
        not_yet=13,
        silent=(replicas("starting", "1 1 1 0 1 1 0 1 1 1 1 0 1 1 1 1 1 1 1 1 1 0 1"),),
    ),
    "PropulsionReplicaUnreachable": Case(
        {'up{role="replica", instance="r", replica="1"}': "1 0x20"},
        at=4,
        not_yet=2,
        silent=({'up{role="replica", instance="r", replica="1"}': "1 1 stale"},),
    ),
    "PropulsionGatewayFailures": Case(
        routed(failed_requests=2), at=5, not_yet=1, silent=(routed(failed_requests=0),)
    ),
    "PropulsionGatewayRetries": Case(
        routed(retries=8), at=10, not_yet=4, silent=(routed(retries=2),)
    ),
    "PropulsionAffinityLow": Case(
        {**routed(affinity_hits=70, affinity_misses=30), **replicas("running", "2x60")},
        at=20,
        not_yet=14,
        silent=(
            {**routed(affinity_hits=96, affinity_misses=4), **replicas("running", "2x60")},
            {**routed(affinity_hits=70, affinity_misses=30), **replicas("running", "1x60")},
        ),
    ),
    "PropulsionRunQueueStuck": Case(
        runs("3x60", "0x60"), at=16, not_yet=14, silent=(runs("3x60", "1x60"), runs("0x60", "0x60"))
    ),
    "PropulsionRunsFailing": Case(
        # The series of a team begins with its first failure.
        ended("failed", "_x70 1x60"),
        at=75,
        silent=(ended("succeeded", "_x70 1+1x60"), ended("failed", "1x90")),
    ),
}
