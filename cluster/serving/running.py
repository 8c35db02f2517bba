"""Runs the application in the foreground, on the cluster there is or on a Ray of its own."""

import math
import os
import signal
import socket
import threading
import time
from contextlib import ExitStack
from types import FrameType
from typing import Any

import ray
from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation
from rich.console import Console

from cluster.serving.app import application
from cluster.serving.config import ClusterServeConfig
from propulsion.errors import ConfigError
from serving.config import is_loopback

APP_NAME = "propulsion"
_POLL_SECONDS = 0.5
_FAILED = frozenset({"DEPLOY_FAILED", "UNHEALTHY"})


def run(config: ClusterServeConfig) -> int:
    """Serve until SIGTERM or SIGINT; exit code 0 after a drain, 1 if replicas do not start.

    Raises:
        ConfigError: the port is taken.
    """
    console = Console(stderr=True)
    stopped = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopped.set()

    with ExitStack() as closing:
        for name in (signal.SIGTERM, signal.SIGINT):
            closing.callback(signal.signal, name, signal.signal(name, stop))
        _connect(config)
        closing.callback(ray.shutdown)
        was_serving = bool(serve.status().proxies)
        if was_serving:
            console.print("Ray Serve runs already: its own address holds, not --host and --port")
        _start_serve(config)
        closing.callback(_stop, was_serving)
        targets = [serve.RunTarget(target=application(config), name=APP_NAME, route_prefix="/")]
        serve.run_many(targets, wait_for_applications_running=False)
        if not _wait_until_running(config, console, stopped):
            return 1
        while not stopped.wait(_POLL_SECONDS):
            pass
        console.print("Stopping: requests under way get their answers")
    return 0


def _connect(config: ClusterServeConfig) -> None:
    if "RAY_ADDRESS" in os.environ:
        ray.init(logging_level="WARNING")
        return
    _require_free(config.host, config.port)
    wanted = config.most_replicas * config.replica_cpus + config.gateway_cpus
    # Requests and answers are small, so a small object store is enough.
    ray.init(
        # Not one that somebody else runs on this machine.
        address="local",
        num_cpus=max(math.ceil(wanted), os.cpu_count() or 1),
        object_store_memory=128 * 1024**2,
        include_dashboard=False,
        logging_level="WARNING",
    )


def _start_serve(config: ClusterServeConfig) -> None:
    # One machine's loopback is reached on that machine alone.
    location = ProxyLocation.HeadOnly if is_loopback(config.host) else ProxyLocation.EveryNode
    serve.start(
        proxy_location=location, http_options=HTTPOptions(host=config.host, port=config.port)
    )


def _stop(was_serving: bool) -> None:
    serve.delete(APP_NAME)
    if not was_serving:
        serve.shutdown()


def _wait_until_running(
    config: ClusterServeConfig, console: Console, stopped: threading.Event
) -> bool:
    """Show how far the application is; false if it failed or was stopped before it ran."""
    started = time.monotonic()
    with console.status("Starting") as shown:
        while not stopped.wait(_POLL_SECONDS):
            application = serve.status().applications.get(APP_NAME)
            if application is None:
                continue
            status = str(application.status.value)
            if status == "RUNNING":
                seconds = time.monotonic() - started
                console.print(f"Ready on http://{config.host}:{config.port} after {seconds:.0f} s")
                return True
            if status in _FAILED:
                console.print(f"[red]The application does not start:[/red] {application.message}")
                for name, deployment in application.deployments.items():
                    if deployment.message:
                        console.print(f"{name}: {deployment.message}", markup=False)
                return False
            shown.update(f"Starting: {_progress(application)}")
    return True


def _progress(application: Any) -> str:
    parts = []
    for name, deployment in application.deployments.items():
        states = ", ".join(
            f"{count} {getattr(state, 'value', state).lower()}"
            for state, count in deployment.replica_states.items()
        )
        parts.append(f"{name} {states or 'waits'}")
    return "; ".join(parts)


def _require_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --host or --port"
        ) from error
