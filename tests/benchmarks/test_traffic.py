"""The traffic benchmark counts what it sees, and reports whatever happens to it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.traffic.clients import HostMirror, Traffic, send_request, zipf_draws
from benchmarks.traffic.summary import memory_summary

SMALL = ("--adapters", "50", "--slots", "8", "--host-adapters", "24", "--clients", "4")
STARTUP_SECONDS = 240
ANSWERS = {
    "good": (200, "data: {}\n\ndata: [DONE]\n\n"),
    "refused": (503, "try again"),
    "failing": (200, 'data: {}\n\ndata: {"error": "gone"}\n\ndata: [DONE]\n\n'),
    "cut": (200, "data: {}\n\n"),
    "empty": (200, ""),
}


def start(path: Path, *options: str, **settings: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.traffic", "--json", str(path), *SMALL, *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        **settings,
    )


@pytest.mark.slow
def test_reports_traffic_over_more_adapters_than_fit(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    benchmark = start(path, "--seconds", "5", **pipes)
    output, errors = benchmark.communicate(timeout=400)
    assert benchmark.returncode == 0, errors
    assert "first token, miss, p99" in output
    result = json.loads(path.read_text())
    assert result["errors"] == {}
    assert not result["interrupted"]
    assert result["server_exit_code"] == 0
    assert result["requests"] > 50
    assert result["requests_per_second"] > 0
    assert 0 < result["host_hit_rate"] < 1
    assert 0 < result["slot_hit_rate"] < 1
    assert result["evictions"]["host"] > 0
    assert result["evictions"]["slot"] > 0
    counters = result["counters"]
    assert counters["host_cache_misses_total"] >= counters["adapter_loads_total"] > 24
    assert abs(result["predicted_misses"] - counters["host_cache_misses_total"]) <= 10
    for times in (*result["first_token_seconds"].values(), *result["request_seconds"].values()):
        assert 0 < times["p50"] <= times["p90"] <= times["p99"] <= times["most"]
    for who in ("server", "engine"):
        memory = result["memory"][who]
        assert memory["mib_at_20_percent"] > 0
        assert memory["mib_at_end"] > 0
        assert memory["slope_standard_error"] >= 0
    assert result["status"]["host"]["capacity"] == 24
    assert result["versions"].keys() == {"vllm", "torch"}
    assert result["machine"]["cpus"] >= 1


@pytest.mark.slow
def test_ctrl_c_stops_the_server_and_still_reports(tmp_path: Path) -> None:
    path, log = tmp_path / "result.json", tmp_path / "log"
    benchmark = start(path, "--seconds", "600", "--log", str(log))
    try:
        deadline = time.monotonic() + STARTUP_SECONDS
        while not (log.exists() and "/v1/completions 200" in log.read_text()):
            assert benchmark.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        benchmark.send_signal(signal.SIGINT)
        assert benchmark.wait(timeout=120) == 0
    finally:
        benchmark.terminate()
        benchmark.wait(timeout=120)
    result = json.loads(path.read_text())
    assert result["interrupted"]
    assert result["requests"] > 0
    assert result["errors"] == {}
    assert result["server_exit_code"] == 0


class _Canned(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, text = ANSWERS[body["model"]]
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def canned_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Canned) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_every_way_a_request_can_fail_is_counted(canned_url: str) -> None:
    seen, mirror = Traffic(), HostMirror(2)

    async def send() -> None:
        async with httpx.AsyncClient(base_url=canned_url) as client:
            for name in ("good", "good", "refused", "failing", "cut", "empty"):
                await send_request(client, name, [1], mirror, seen)
        async with httpx.AsyncClient(base_url="http://127.0.0.1:1") as client:
            await send_request(client, "good", [1], mirror, seen)

    asyncio.run(send())
    assert seen.requests == 7
    assert seen.errors == {
        "503": 1,
        "error_in_stream": 1,
        "stream_cut_short": 2,
        "ConnectError": 1,
    }
    assert seen.first_errors["503"] == "try again"
    assert [len(times) for times in (seen.first_token[False], seen.first_token[True])] == [1, 1]


def test_adapters_are_drawn_by_zipfs_law_and_the_same_each_time() -> None:
    draws = zipf_draws(100, 1.0)
    drawn = [next(draws) for _ in range(20_000)]
    again = zipf_draws(100, 1.0)
    assert [next(again) for _ in range(100)] == drawn[:100]
    counts = sorted((drawn.count(index) for index in range(100)), reverse=True)
    harmonic = sum(1 / rank for rank in range(1, 101))
    assert counts[0] / len(drawn) == pytest.approx(1 / harmonic, rel=0.1)
    assert counts[9] / len(drawn) == pytest.approx(1 / (10 * harmonic), rel=0.25)


def test_the_mirror_forgets_what_was_used_least_recently() -> None:
    mirror = HostMirror(2)
    assert not mirror.sent("a")
    # Not there before its first answer.
    assert not mirror.sent("a")
    mirror.answered("a")
    mirror.answered("b")
    assert mirror.sent("a")
    mirror.answered("c")
    assert not mirror.sent("b")
    assert mirror.sent("a")
    assert mirror.sent("c")


def test_the_slope_of_memory_leaves_the_warm_up_out() -> None:
    samples = [(float(t), {"all": 100.0 + 10 * t if t < 20 else 300.0 + t}) for t in range(61)]
    found = memory_summary(samples)["all"]
    assert found["slope_mib_per_minute"] == pytest.approx(60)
    assert found["slope_standard_error"] == pytest.approx(0, abs=1e-6)
    assert found["mib_at_20_percent"] == 220
    assert found["mib_at_end"] == 360
