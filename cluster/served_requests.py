"""Starts the real server, asks it for many adapters at once, and reads its metrics."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

from propulsion.errors import PropulsionError


@dataclass(frozen=True)
class Served:
    """Answers in the order of the requests, and the server's count of those that ended well."""

    answers: list[str]
    requests_counted: dict[str, int]


def ask_server(
    base: Path,
    store: Path,
    requests: Sequence[tuple[str, str]],
    *,
    max_tokens: int,
    served_name: str,
    log: Path,
    boot_seconds: float = 240.0,
) -> Served:
    """Serve a store, send (model, prompt) requests concurrently, and stop the server.

    Raises:
        PropulsionError: the server does not come up, or a request fails; `log` says why.
    """
    port = _free_port()
    command = [sys.executable, "-m", "propulsion", "serve"]
    command += ["--base", str(base), "--store", str(store), "--port", str(port)]
    command += ["--served-name", served_name, "--dtype", "float32"]
    with log.open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            _wait_until_healthy(client, server, log, boot_seconds)

            def ask(request: tuple[str, str]) -> str:
                model, prompt = request
                response = client.post(
                    "/v1/completions",
                    json={
                        "model": model,
                        "prompt": prompt,
                        "max_tokens": max_tokens,
                        "temperature": 0,
                    },
                )
                if response.status_code != 200:
                    raise PropulsionError(f"the server answered {response.text} (see {log})")
                text: str = response.json()["choices"][0]["text"]
                return text

            with ThreadPoolExecutor(max_workers=32) as pool:
                answers = list(pool.map(ask, requests))
            return Served(answers, _count_requests(client.get("/metrics").text))
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_until_healthy(
    client: httpx.Client, server: subprocess.Popen[bytes], log: Path, seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise PropulsionError(f"the server stopped with code {server.returncode} (see {log})")
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise PropulsionError(f"the server was not healthy within {seconds:.0f} s (see {log})")


def _count_requests(metrics: str) -> dict[str, int]:
    from prometheus_client.parser import text_string_to_metric_families

    return {
        sample.labels["adapter"]: int(sample.value)
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "propulsion_serve_requests_total" and sample.labels["outcome"] == "ok"
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
