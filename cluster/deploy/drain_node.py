"""Empties a Ray node that has to go: `python -m cluster.deploy.drain_node --seconds 120`.

Kubernetes runs it in a pod before it ends the pod. Ray Serve then starts the node's replicas
elsewhere, and those that are here finish what they have begun.
"""

from __future__ import annotations

import argparse
import time

_REPLICA = "ServeReplica:"
_POLL_SECONDS = 0.5


def drain_node(node_id: str, seconds: float) -> bool:
    """Tell Ray that a node goes, and wait until no serving replica is left on it.

    Args:
        node_id: hexadecimal id of the node; this process must be connected to Ray.
        seconds: how long to wait at most.

    Returns:
        Whether the node was empty in time.
    """
    import ray
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

    deadline = time.time() + seconds
    gcs = GcsClient(address=ray.get_runtime_context().gcs_address)
    gcs.drain_node(node_id, DRAIN_NODE_REASON_PREEMPTION, "the pod is ended", int(deadline * 1000))
    while time.time() < deadline:
        if not _has_replicas(node_id):
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _has_replicas(node_id: str) -> bool:
    from ray.util.state import list_actors
    from ray.util.state.exception import RayStateApiException

    try:
        here = list_actors(filters=[("node_id", "=", node_id), ("state", "=", "ALIVE")], limit=1000)
    except RayStateApiException:
        # A head that does not answer now says nothing about the replicas here.
        return True
    return any(actor.class_name.startswith(_REPLICA) for actor in here)


def main() -> None:
    """Drain the node that this process is on."""
    import ray

    parser = argparse.ArgumentParser(description="Empty the Ray node that this process is on.")
    parser.add_argument("--seconds", type=float, required=True, help="how long it may take")
    args = parser.parse_args()
    ray.init(address="auto", logging_level="WARNING")
    node_id = ray.get_runtime_context().get_node_id()
    in_time = drain_node(node_id, args.seconds)
    print(f"node {node_id} {'is empty' if in_time else 'still has replicas'}")


if __name__ == "__main__":
    main()
