"""A real Ray cluster of several nodes on this machine, whose nodes and head can be lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ray.cluster_utils import Cluster

from tests.trainer.runs import free_port

ROOT = Path(__file__).parents[3]
SECONDS = 500
_NODE = {"object_store_memory": 80 * 1024**2}


class RayCluster:
    """A head without CPUs, and worker nodes.

    Args:
        workers: CPUs of each worker node.
    """

    def __init__(self, *workers: int) -> None:
        # Jobs import this tree, and torch's threads would fight over the machine's cores.
        os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._dashboard_port = free_port()
        self.address = f"http://127.0.0.1:{self._dashboard_port}"
        self._workers = workers
        self.start()

    def start(self) -> None:
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": True,
                "dashboard_host": "127.0.0.1",
                "dashboard_port": self._dashboard_port,
                # The head's default is taken where another Ray runs, and then it takes no job.
                "dashboard_agent_listen_port": free_port(),
                **_NODE,
            },
        )
        self.nodes = [self._cluster.add_node(num_cpus=cpus, **_NODE) for cpus in self._workers]

    @property
    def gcs_address(self) -> str:
        return str(self._cluster.address)

    def is_free(self) -> bool:
        """Whether the runs and trials before have given back what they had."""
        from ray.util.state import list_placement_groups

        groups = list_placement_groups(address=self.address, filters=[("state", "=", "CREATED")])
        return not groups

    def num_train_workers(self) -> list[int]:
        """How many training ranks each worker node has."""
        from ray.util.state import list_actors

        actors = list_actors(
            address=self.address,
            filters=[("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")],
        )
        return [sum(one.node_id == node.node_id for one in actors) for node in self.nodes]

    def lose_node(self, index: int) -> None:
        """Kill a node's raylet and all that runs on it, without a farewell."""
        self._cluster.remove_node(self.nodes.pop(index), allow_graceful=False)

    def add_node(self, cpus: int) -> None:
        self.nodes.append(self._cluster.add_node(num_cpus=cpus, **_NODE))

    def lose_all(self) -> None:
        """Kill the head, with all it knows, and then the nodes that were its own."""
        head = self._cluster.head_node
        self._cluster.remove_node(head, allow_graceful=False)
        for node in self.nodes:
            self._cluster.remove_node(node, allow_graceful=False)
        self.nodes.clear()

    def stop(self) -> None:
        self._cluster.shutdown()


def rank_pids() -> list[int]:
    """Processes of Ray's training workers on this machine."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"ray::RayTrainWorker" in path.read_bytes():
                pids.append(int(path.parent.name))
        except OSError:
            continue
    return pids


def propulsion(*args: str, code: int = 0) -> str:
    """Run the command line as a user would; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "propulsion", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == code, done.stdout
    # Those of a lost rank, in a run's log, begin with the rank's name.
    assert "\nTraceback" not in f"\n{done.stdout}"
    return done.stdout


def start_propulsion(*args: str, output: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
    """The same, still running, and open to Ctrl-C also where the tests run in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "propulsion", *args],
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_until(condition: Callable[[], bool], told: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)
