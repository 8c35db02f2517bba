"""The event loop: arrivals, loads, steps, boots, deaths, and the autoscaler's looks."""

from __future__ import annotations

import heapq
import itertools
import math

import numpy as np

from cluster.capacity.simulation.fleet import Fleet
from cluster.capacity.simulation.gaps import GapHistogram
from cluster.capacity.simulation.outcome import Moment, Outcome
from cluster.capacity.simulation.replica import Requests, SimulatedReplica
from cluster.capacity.simulation.routing import make_policy
from cluster.capacity.simulation.scenario import Scenario
from cluster.capacity.simulation.traffic import Traffic, draw_traffic, zipf_weights
from cluster.capacity.simulation.warm import warm_caches

_STEP, _LOADED, _BOOTED, _DEATHS, _CONTROL, _REPORT = range(6)
_MOMENT_SECONDS = 1.0


def simulate(scenario: Scenario, traffic: Traffic | None = None) -> Outcome:
    """Run a scenario until every request has ended.

    Args:
        scenario: what to simulate.
        traffic: its requests, if they are not to be drawn: those of a real run, for example.
    """
    if traffic is None:
        traffic = draw_traffic(
            scenario.num_requests,
            scenario.rate,
            zipf_weights(scenario.num_adapters, scenario.zipf_exponent),
            scenario.prompt,
            scenario.output,
            scenario.seed,
        )
    return _Simulation(scenario, traffic).run()


class _Simulation:
    def __init__(self, scenario: Scenario, traffic: Traffic):
        self._scenario, self._traffic = scenario, traffic
        self._times = scenario.times
        self._requests = Requests(
            traffic.adapter.tolist(), traffic.prompt.tolist(), traffic.output.tolist()
        )
        count = len(traffic)
        self._arrival = traffic.arrival.tolist()
        self._first = [math.nan] * count
        self._finish = [math.nan] * count
        self._hit = [False] * count
        self._sent_to = [-1] * count
        self._ends = [0] * count
        self._left = count
        self._retries = 0
        self._held: list[int] = []
        self._gaps = GapHistogram()
        self._moments: list[Moment] = []
        self._events: list[tuple[float, int, int, int, int]] = []
        self._sequence = itertools.count()
        self._policy = make_policy(
            scenario.policy, scenario.num_adapters, scenario.seed, scenario.affinity
        )
        self._fleet = Fleet(scenario.autoscaler, self._policy)
        self._start_fleet()

    def run(self) -> Outcome:
        """Handle events in order of time until every request has ended."""
        arrivals, next_one, count = self._arrival, 0, len(self._arrival)
        handlers = {
            _STEP: self._step_ended,
            _LOADED: self._loaded,
            _BOOTED: self._booted,
            _DEATHS: self._die,
            _CONTROL: self._control,
            _REPORT: self._report,
        }
        now = 0.0
        while self._left:
            if next_one < count and (not self._events or arrivals[next_one] <= self._events[0][0]):
                now = arrivals[next_one]
                self._send(next_one, now)
                next_one += 1
                continue
            now, _, kind, subject, detail = heapq.heappop(self._events)
            handlers[kind](now, subject, detail)
        return self._outcome(now)

    def _start_fleet(self) -> None:
        scenario = self._scenario
        names = list(range(scenario.replicas))
        self._policy.set_replicas(names)
        held: dict[int, list[int]] = {}
        if scenario.warm:
            held = warm_caches(
                self._policy,
                zipf_weights(scenario.num_adapters, scenario.zipf_exponent),
                names,
                self._times.limits.host_adapters,
                np.random.default_rng((scenario.seed, 1)),
            )
        for name in names:
            self._fleet.add(
                name,
                SimulatedReplica(self._times, self._requests, self._gaps, held.get(name, [])),
                0.0,
            )
        self._fleet.tell_policy()
        self._at(0.0, _REPORT)
        self._at(0.0, _CONTROL)
        for seconds, number in scenario.failures:
            self._at(seconds, _DEATHS, number)

    def _at(self, seconds: float, kind: int, subject: int = 0, detail: int = 0) -> None:
        heapq.heappush(self._events, (seconds, next(self._sequence), kind, subject, detail))

    def _send(self, request: int, now: float) -> None:
        if not self._fleet.serving:
            # The gateway holds requests until somebody serves.
            self._held.append(request)
            return
        adapter = self._requests.adapter[request]
        name = self._policy.choose(adapter)
        replica = self._fleet.serving[name]
        self._sent_to[request] = name
        replica.ongoing.add(request)
        self._policy.set_ongoing(name, len(replica.ongoing))
        replica.host.use(adapter)
        hit = self._hit[request] = replica.host.touch(adapter)
        if hit:
            self._enqueue(name, replica, request, now)
        elif adapter in replica.loading:
            replica.loading[adapter].append(request)
        else:
            replica.loading[adapter] = [request]
            times = self._times.adapter
            delay = max(0.0, times.load_seconds - times.load_blocking_seconds)
            self._at(now + delay, _LOADED, name, adapter)

    def _enqueue(self, name: int, replica: SimulatedReplica, request: int, now: float) -> None:
        if replica.enqueue(request, now):
            self._expect(name, replica)

    def _expect(self, name: int, replica: SimulatedReplica) -> None:
        if replica.busy_until is not None:
            self._at(replica.busy_until, _STEP, name, replica.version)

    def _loaded(self, now: float, name: int, adapter: int) -> None:
        replica = self._fleet.get(name)
        if replica is None:
            return
        replica.load(adapter)
        for request in replica.loading.pop(adapter):
            self._enqueue(name, replica, request, now)

    def _step_ended(self, now: float, name: int, version: int) -> None:
        replica = self._fleet.get(name)
        if replica is None or replica.version != version:
            return
        end = replica.complete(now)
        way = self._times.request_seconds
        for request in end.first:
            self._first[request] = now + way - self._arrival[request]
        for request in end.last:
            self._finish[request] = now + way - self._arrival[request]
            self._end(request)
            replica.ongoing.discard(request)
            replica.host.leave(self._requests.adapter[request])
        if end.last:
            self._policy.set_ongoing(name, len(replica.ongoing))
            self._fleet.retire_if_drained(name, now)
        self._expect(name, replica)

    def _end(self, request: int) -> None:
        self._ends[request] += 1
        self._left -= 1

    def _booted(self, now: float, name: int, _: int) -> None:
        if self._fleet.is_starting(name):
            self._fleet.serve(name)
            self._fleet.tell_policy()
            held, self._held = self._held, []
            for request in held:
                self._send(request, now)

    def _die(self, now: float, number: int, _: int) -> None:
        for name in list(self._fleet.serving)[:number]:
            replica = self._fleet.remove(name, now)
            self._start(now)
            self._fleet.tell_policy()
            for request in sorted(replica.ongoing):
                if math.isnan(self._first[request]):
                    self._retries += 1
                    self._send(request, now)
                else:
                    # It had begun to stream: only its client may ask again.
                    self._end(request)

    def _start(self, now: float) -> None:
        name = self._fleet.new_name()
        replica = SimulatedReplica(self._times, self._requests, self._gaps)
        self._fleet.add(name, replica, now, starting=True)
        self._at(now + self._times.boot_seconds, _BOOTED, name)

    def _control(self, now: float, _: int, __: int) -> None:
        fleet = self._fleet
        self._moments.append(Moment(now, len(fleet.serving), len(fleet.starting), fleet.ongoing))
        for _ in range(fleet.control(now)):
            self._start(now)
        self._at(now + _MOMENT_SECONDS, _CONTROL)

    def _report(self, now: float, _: int, __: int) -> None:
        for name, replica in self._fleet.serving.items():
            self._policy.tell_adapters(name, replica.slots.held, replica.host.held)
        self._at(now + self._scenario.report_seconds, _REPORT)

    def _outcome(self, now: float) -> Outcome:
        everyone = self._fleet.all_ever
        return Outcome(
            traffic=self._traffic,
            first_token=np.asarray(self._first),
            finished=np.asarray(self._finish),
            host_hit=np.asarray(self._hit),
            replica=np.asarray(self._sent_to),
            times_ended=np.asarray(self._ends),
            retries=self._retries,
            gaps=self._gaps,
            slot_hits=sum(replica.slot_hits for replica in everyone),
            slot_misses=sum(replica.slot_misses for replica in everyone),
            moments=self._moments,
            replica_seconds=self._fleet.replica_seconds(now),
        )
