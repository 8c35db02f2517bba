"""A replica: an adapter cache before an engine that batches continuously."""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from cluster.capacity.simulation.gaps import GapHistogram
from cluster.capacity.times import ReplicaTimes


@dataclass(frozen=True)
class Requests:
    """The requests' own sizes as plain lists, by request index."""

    adapter: Sequence[int]
    prompt: Sequence[int]
    output: Sequence[int]


@dataclass
class StepEnd:
    """Who got a first token and who its last one, in the step that ended."""

    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)


class LeastRecentlyUsed:
    """A cache of adapters; one in use is not evicted."""

    __slots__ = ("capacity", "held", "users")

    def __init__(self, capacity: int, held: Sequence[int] = ()):
        self.capacity = capacity
        self.held: OrderedDict[int, None] = OrderedDict.fromkeys(held)
        self.users: dict[int, int] = {}

    def touch(self, adapter: int) -> bool:
        """Mark it the most recently used; whether it is held."""
        if adapter not in self.held:
            return False
        self.held.move_to_end(adapter)
        return True

    def hold(self, adapter: int) -> int | None:
        """Take it in, and put out what was used least recently; what was put out."""
        self.held[adapter] = None
        self.held.move_to_end(adapter)
        if len(self.held) > self.capacity:
            idle = next((a for a in self.held if a not in self.users), None)
            if idle is not None:
                del self.held[idle]
                return idle
        return None

    def drop(self, adapter: int) -> None:
        """Put it out, if it is held."""
        self.held.pop(adapter, None)

    def use(self, adapter: int) -> None:
        """Count one more user."""
        self.users[adapter] = self.users.get(adapter, 0) + 1

    def leave(self, adapter: int) -> None:
        """Count one user less."""
        left = self.users[adapter] - 1
        if left:
            self.users[adapter] = left
        else:
            del self.users[adapter]


class SimulatedReplica:
    """One replica. It takes requests and says when its next step, or run of equal steps, ends.

    While nobody waits, the steps until the next answer ends are all alike and are one event; a
    request that comes meanwhile cuts that run at the end of the step it comes in.

    Attributes:
        busy_until: when the steps under way end; None while idle.
        version: changes with `busy_until`, so that an outdated event can be told.
        ongoing: requests routed here that have not ended.
        loading: requests that wait for an adapter's load, by adapter.
    """

    def __init__(
        self, times: ReplicaTimes, requests: Requests, gaps: GapHistogram, held: Sequence[int] = ()
    ):
        limits = times.limits
        self.host = LeastRecentlyUsed(limits.host_adapters, held)
        self.slots = LeastRecentlyUsed(limits.slots, held[-limits.slots :])
        self.busy_until: float | None = None
        self.version = 0
        self.ongoing: set[int] = set()
        self.loading: dict[int, list[int]] = {}
        self.slot_hits = self.slot_misses = 0
        self._times, self._limits, self._requests, self._gaps = times, limits, requests, gaps
        self._waiting: deque[int] = deque()
        self._running: list[tuple[int, int]] = []
        self._prefilled: list[int] = []
        self._copied: set[int] = set()
        self._chunked: int | None = None
        self._chunk_left = 0
        self._kv_tokens = 0
        self._blocking = 0.0
        self._steps_done = 0
        self._began = 0.0
        self._step_seconds = 0.0
        self._num_steps = 0

    def load(self, adapter: int) -> None:
        """Take an adapter into host memory, and ahead of its request into a slot."""
        evicted = self.host.hold(adapter)
        if evicted is not None:
            self.slots.drop(evicted)
        self.slots.hold(adapter)
        self._copied.add(adapter)
        self._blocking += self._times.adapter.load_blocking_seconds

    def enqueue(self, request: int, now: float) -> bool:
        """Give the engine a request whose adapter is there; whether `busy_until` changed."""
        self._waiting.append(request)
        if self.busy_until is None:
            return self._begin(now)
        if self._num_steps > 1 and self._has_place(request) and self._has_slot(request):
            passed = max(1, math.ceil((now - self._began) / self._step_seconds))
            if passed < self._num_steps:
                self._num_steps = passed
                self.busy_until = self._began + passed * self._step_seconds
                self.version += 1
                return True
        return False

    def complete(self, now: float) -> StepEnd:
        """End the steps under way and begin the next."""
        end = StepEnd()
        self._steps_done += self._num_steps
        self._gaps.add(self._step_seconds, len(self._running) * self._num_steps)
        while self._running and self._running[0][0] <= self._steps_done:
            self._end(heapq.heappop(self._running)[1], end)
        for request in self._prefilled:
            end.first.append(request)
            left = self._requests.output[request] - 1
            if left:
                heapq.heappush(self._running, (self._steps_done + left, request))
            else:
                self._end(request, end)
        self._prefilled.clear()
        self._begin(now)
        return end

    def _end(self, request: int, end: StepEnd) -> None:
        end.last.append(request)
        self._kv_tokens -= self._requests.prompt[request] + self._requests.output[request]
        self.slots.leave(self._requests.adapter[request])

    def _has_place(self, request: int) -> bool:
        in_batch = len(self._running) + len(self._prefilled) + (self._chunked is not None)
        tokens = self._requests.prompt[request] + self._requests.output[request]
        # A request larger than the whole cache could never run; alone, it is let through.
        return in_batch < self._limits.max_num_seqs and (
            not in_batch or self._kv_tokens + tokens <= self._limits.kv_cache_tokens
        )

    def _has_slot(self, request: int) -> bool:
        users = self.slots.users
        return self._requests.adapter[request] in users or len(users) < self._limits.batch_adapters

    def _begin(self, now: float) -> bool:
        self.version += 1
        budget = self._limits.max_num_batched_tokens - len(self._running)
        prefill = admissions = misses = 0
        if self._chunked is not None:
            prefill = min(budget, self._chunk_left)
            self._take_chunk(prefill)
        passed_over = []
        while self._waiting and prefill < budget and self._has_place(self._waiting[0]):
            request = self._waiting.popleft()
            if not self._has_slot(request):
                passed_over.append(request)
                continue
            misses += self._join(request)
            admissions += 1
            self._chunked, self._chunk_left = request, self._requests.prompt[request]
            taken = min(budget - prefill, self._chunk_left)
            prefill += taken
            self._take_chunk(taken)
        self._waiting.extendleft(reversed(passed_over))
        if not (self._running or prefill):
            self.busy_until = None
            return True
        self._step_seconds = (
            self._times.step.seconds(len(self._running), prefill, admissions)
            + self._times.adapter.slot_write_seconds * misses
            + self._blocking
        )
        alike = not (prefill or self._blocking)
        self._blocking = 0.0
        self._num_steps = self._running[0][0] - self._steps_done if alike else 1
        self._began = now
        self.busy_until = now + self._num_steps * self._step_seconds
        return True

    def _join(self, request: int) -> bool:
        """Put a request into the batch; whether its adapter is yet to be written to a slot."""
        adapter = self._requests.adapter[request]
        self._kv_tokens += self._requests.prompt[request] + self._requests.output[request]
        joins_batch = adapter not in self.slots.users
        self.slots.use(adapter)
        if self.slots.touch(adapter):
            # The first to run from a slot that was written to ahead counts as a miss.
            missed = adapter in self._copied
            self._copied.discard(adapter)
            self.slot_misses += missed
            self.slot_hits += joins_batch and not missed
            return False
        self.slots.hold(adapter)
        self.slot_misses += 1
        return True

    def _take_chunk(self, tokens: int) -> None:
        self._chunk_left -= tokens
        if self._chunk_left == 0:
            assert self._chunked is not None
            self._prefilled.append(self._chunked)
            self._chunked = None
