"""Ray Serve's request router, with the choice of replicas by adapter affinity."""

import time
from typing import Any

from ray.serve.request_router import (
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

from cluster.serving.affinity import AffinityConfig, AffinityRouter
from cluster.serving.messages import ForwardedRequest
from cluster.serving.metrics import cluster_metrics

# By then Ray Serve has taken a lost replica out, or it was not lost after all.
_AVOIDED_SECONDS = 30.0


class AffinityRequestRouter(RequestRouter):
    """Asks an AffinityRouter, and tells it what Ray Serve learns of the replicas.

    Runs in the gateway's process. A replica that one request was lost on is avoided for all.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._affinity = AffinityRouter()
        self._metrics = cluster_metrics()
        self._avoided_until: dict[str, float] = {}

    def initialize_state(self, **kwargs: Any) -> None:
        """Called by Ray Serve with the fields of an AffinityConfig."""
        self._affinity = AffinityRouter(AffinityConfig(**kwargs))

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Called by Ray Serve when replicas come, go, or tell which adapters they hold."""
        super().update_replicas(replicas)
        self._follow()
        for replica in replicas:
            stats = replica.routing_stats
            if stats:
                self._affinity.set_adapters(
                    replica.replica_id.unique_id, stats["in_slots"], stats["in_host"]
                )

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """Called by Ray Serve when a call shows that a replica is gone."""
        super().on_replica_actor_died(replica_id)
        self._follow()

    def on_new_queue_len_info(self, replica_id: ReplicaID, num_ongoing_requests: int) -> None:
        """Called by Ray Serve when a replica has said how long its queue is."""
        super().on_new_queue_len_info(replica_id, num_ongoing_requests)
        self._set_queue_length(replica_id, num_ongoing_requests)

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Called by Ray Serve when a request leaves for a replica."""
        super().on_send_request(replica_id)
        self._add_to_queue(replica_id, 1)

    def decrement_queue_len_cache(self, replica_id: ReplicaID) -> None:
        """Called by Ray Serve when a request at a replica has ended."""
        super().decrement_queue_len_cache(replica_id)
        self._add_to_queue(replica_id, -1)

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        """Called by Ray Serve when a replica has taken a request."""
        request = _forwarded(pending_request)
        if request is None:
            return
        name = replica_id.unique_id
        route = "retry" if request.avoid else self._affinity.route_of(request.adapter, name)
        self._metrics.count_routed(route)
        if request.adapter is not None:
            self._affinity.count(request.adapter)
            self._affinity.add_adapter(name, request.adapter)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Called by Ray Serve for a request, again and again until a replica takes it."""
        request = _forwarded(pending_request)
        if pending_request is None or request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True
        now = time.monotonic()
        self._avoided_until |= dict.fromkeys(request.avoid, now + _AVOIDED_SECONDS)
        self._avoided_until = {n: until for n, until in self._avoided_until.items() if now < until}
        by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        ranked = self._affinity.rank(request.adapter, self._avoided_until.keys())
        return [[by_name[choice.replica]] for choice in ranked if choice.replica in by_name]

    def _follow(self) -> None:
        names = {replica_id.unique_id for replica_id in self.curr_replicas}
        for gone in set(self._affinity.replicas) - names:
            self._metrics.drop_replica(gone)
            self._avoided_until.pop(gone, None)
        self._affinity.set_replicas(names)
        for name in names:
            self._metrics.set_queue_length(name, self._affinity.queue_length(name))

    def _add_to_queue(self, replica_id: ReplicaID, change: int) -> None:
        known = self._affinity.queue_length(replica_id.unique_id)
        self._set_queue_length(replica_id, max(0, known + change))

    def _set_queue_length(self, replica_id: ReplicaID, queue_length: int) -> None:
        name = replica_id.unique_id
        if name in self._affinity.replicas:
            self._affinity.set_queue_length(name, queue_length)
            self._metrics.set_queue_length(name, queue_length)


def _forwarded(pending_request: PendingRequest | None) -> ForwardedRequest | None:
    """The gateway's request; None for any other call of a replica's methods."""
    args = pending_request.args if pending_request is not None else ()
    return args[0] if args and isinstance(args[0], ForwardedRequest) else None
