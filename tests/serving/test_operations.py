"""A server with tenants, under faults and changes: real HTTP, a real engine, a store on disk."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch

from adapters import AdapterStore, base_fingerprint
from serving.security.editing import add_key
from tests.serving import tiny
from tests.serving.live_server import COMMAND, LiveServer, free_port

pytestmark = pytest.mark.slow

PROMPT = tiny.PROMPTS[0]
LONG_PROMPT = "every request of this test begins with the same words, more than a block of them: "
TOKENS = tiny.MAX_TOKENS


@pytest.fixture(scope="module")
def store(tmp_path_factory, base: Path, adapter_folders) -> AdapterStore:
    store = AdapterStore(tmp_path_factory.mktemp("operations") / "store")
    for name, folder in adapter_folders.items():
        store.publish(folder, name, base_fingerprint=base_fingerprint(base))
    for name in ("rolling", "split"):
        for folder in ("value-2", "up-15"):
            store.publish(
                adapter_folders[folder],
                name,
                base_fingerprint=base_fingerprint(base),
                aliases=["prod"] if folder == "value-2" else [],
            )
    store.publish(adapter_folders["key-3"], "secret-plan", base_fingerprint=base_fingerprint(base))
    return store


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> dict[str, str]:
    """Keys by id; `file` is where they lie."""
    path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    made = {
        "admin": add_key(path, id="admin", tenant="ops", role="admin", adapters=["*"]),
        "a": add_key(path, id="a", tenant="a", role="inference", adapters=["all-*", "attn-*"]),
        "b": add_key(path, id="b", tenant="b", role="inference", adapters=["secret-*"], base=False),
    }
    return {"file": str(path), **made}


@pytest.fixture(scope="module")
def server(base: Path, store: AdapterStore, keys, tmp_path_factory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("server")
    server = LiveServer(
        base,
        store.path,
        folder / "log",
        *("--max-adapters", "6", "--keys-file", keys["file"]),
        *("--resolution-ttl-seconds", "0", "--audit-log", str(folder / "audit")),
        *("--preload", "attn-1"),
    )
    server.client.headers["Authorization"] = f"Bearer {keys['admin']}"
    yield server
    server.stop()


def ids(response: httpx.Response) -> list[int]:
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["token_ids"]


def admin(server: LiveServer, method: str, path: str, body: dict | None = None) -> dict:
    response = server.client.request(method, f"/admin/v1{path}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


@contextlib.contextmanager
def traffic(work: Callable[[], None], threads: int = 3) -> Iterator[None]:
    """Do `work` again and again beside the block; its failures are the block's."""
    over = threading.Event()

    def repeat() -> None:
        while not over.is_set():
            work()

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(repeat) for _ in range(threads)]
        try:
            yield
        finally:
            over.set()
        for future in running:
            future.result()


@pytest.fixture(scope="module")
def versions(base: Path, adapter_folders) -> dict[str, list[int]]:
    """What the two versions of `rolling` answer to LONG_PROMPT."""
    return {
        f"rolling@v{number}": tiny.reference_tokens(
            base, adapter_folders[name], [LONG_PROMPT], TOKENS
        )[0]
        for number, name in ((1, "value-2"), (2, "up-15"))
    }


def test_an_alias_moves_under_load_and_every_answer_is_its_versions(server, versions):
    answered: Counter[str] = Counter()

    def ask() -> None:
        response = server.complete("rolling@prod", LONG_PROMPT, TOKENS)
        version = response.headers["X-Adapter-Version"]
        assert ids(response) == versions[version]
        answered[version] += 1

    with traffic(ask):
        for number in (2, 1, 2, 1):
            enough = answered.total() + 5
            wait_for(lambda enough=enough: answered.total() > enough)
            admin(server, "PUT", "/adapters/rolling/aliases/prod", {"version": f"v{number}"})
            response = server.complete("rolling@prod", LONG_PROMPT, TOKENS)
            assert response.headers["X-Adapter-Version"] == f"rolling@v{number}"
    assert set(answered) == set(versions)


def test_an_alias_does_not_move_to_a_version_that_cannot_be_loaded(server, store, base, tmp_path):
    assert server.complete("rolling@prod", PROMPT, 1).status_code == 200
    folder = tiny.make_adapter(
        tmp_path / "narrow", base, degree=1, target_modules=["q_proj"], seed=0
    )
    tiny.overwrite_weights(folder, {"model.layers.0.self_attn.q_proj": torch.zeros(1, 7)})
    bad = store.publish(folder, "rolling", aliases=[])
    response = server.client.put(
        "/admin/v1/adapters/rolling/aliases/prod", json={"version": bad.version}
    )
    assert response.status_code == 422
    assert store.aliases("rolling")["prod"] == "v1"


def test_a_split_draws_both_versions_and_keeps_a_user_to_one(server):
    admin(server, "PUT", "/adapters/split/splits/prod", {"weights": {"v1": 0.5, "v2": 0.5}})

    def version(**options: str) -> str:
        response = server.complete("split@prod", PROMPT, 1, **options)
        assert response.status_code == 200
        return response.headers["X-Adapter-Version"]

    drawn = Counter(version() for _ in range(40))
    assert set(drawn) == {"split@v1", "split@v2"}
    assert len({version(user="ann") for _ in range(8)}) == 1
    assert len({version(user=f"user-{i}") for i in range(40)}) == 2
    admin(server, "DELETE", "/adapters/split/splits/prod")
    assert {version() for _ in range(8)} == {"split@v1"}


def test_a_blend_answers_as_the_product_of_its_scales(server, base, adapter_folders):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), adapter_folders["all-15"], adapter_name="a"
    )
    model.load_adapter(adapter_folders["mlp-3"], adapter_name="b")
    model.base_model.add_weighted_adapter(["a", "b"], [0.7, 0.3], "ab", "geometric")
    model.set_adapter("ab")
    inputs = AutoTokenizer.from_pretrained(base)(PROMPT, return_tensors="pt")
    wanted = model.eval().generate(
        input_ids=inputs["input_ids"],
        max_new_tokens=TOKENS,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=257,
    )[0, inputs["input_ids"].shape[1] :]
    response = server.complete("all-15:0.7+mlp-3:0.3", PROMPT, TOKENS)
    assert ids(response) == wanted.tolist()
    assert response.json()["model"] == "all-15@v1:0.7+mlp-3@v1:0.3"


def test_adapters_come_and_go_during_generation(server, expected):
    def ask() -> None:
        for name in ("all-15", "mlp-3"):
            assert ids(server.complete(name, PROMPT, TOKENS)) == expected[name][0]

    with traffic(ask, threads=2):
        for _ in range(4):
            for name in ("key-3", "up-15", "value-2"):
                admin(server, "POST", f"/adapters/{name}/load", {"pin": True})
                assert ids(server.complete(name, PROMPT, TOKENS)) == expected[name][0]
                admin(server, "POST", f"/adapters/{name}/unpin")
                admin(server, "POST", f"/adapters/{name}/unload", {"force": True})
            admin(server, "POST", "/adapters/all-15/unload", {"force": True})


def test_a_client_that_leaves_lets_go_of_its_adapter(server):
    ids(server.complete("up-15", PROMPT, TOKENS))
    body = {"model": "up-15", "prompt": PROMPT, "max_tokens": 200, "stream": True, "n": 16}
    with server.client.stream(
        "POST", "/v1/completions", json={**body, "ignore_eos": True}
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert admin(server, "GET", "/adapters/up-15@v1")["active_requests"] == 1
    wait_for(lambda: admin(server, "GET", "/adapters/up-15@v1")["active_requests"] == 0)
    admin(server, "POST", "/adapters/up-15@v1/unload")


def test_a_store_that_is_away_stops_only_what_is_not_loaded(server, store, expected):
    assert ids(server.complete("all-15", PROMPT, TOKENS)) == expected["all-15"][0]
    away = store.path.with_name("away")
    store.path.rename(away)
    try:
        assert ids(server.complete("all-15", PROMPT, TOKENS)) == expected["all-15"][0]
        response = server.complete("value-2", PROMPT, 1)
        assert response.status_code == 503, response.text
        assert int(response.headers["Retry-After"]) > 0
        assert str(store.path) not in response.text
        assert server.client.get("/health").status_code == 200
    finally:
        away.rename(store.path)

    def is_back() -> bool:
        return server.complete("value-2", PROMPT, 1).status_code == 200

    wait_for(is_back, 15)


def test_a_body_of_64_mib_is_refused_and_not_kept(server):
    before = resident_mib(server)
    response = server.client.post("/v1/completions", content=b"x" * (64 << 20))
    assert response.status_code == 413
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * (1 << 20)

    with contextlib.suppress(httpx.WriteError, httpx.ReadError):
        assert server.client.post("/v1/completions", content=chunks()).status_code == 413
    assert resident_mib(server) < before + 32
    assert server.complete("all-15", PROMPT, 1).status_code == 200


def resident_mib(server: LiveServer) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


# Security


def with_key(server: LiveServer, key: str | None) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=server.url, headers=headers, timeout=60)


def test_every_admin_route_is_closed_to_everyone_but_admins(server, keys):
    paths = server.client.get("/openapi.json").json()["paths"]
    routes = [
        (method, path.replace("{reference}", "all-15").replace("{name}", "all-15"))
        for path, methods in paths.items()
        if path.startswith("/admin/")
        for method in methods
    ]
    assert len(routes) >= 12
    for key, status in ((None, 401), ("pk-wrong", 401), (keys["a"], 403)):
        with with_key(server, key) as client:
            for method, path in routes:
                filled = path.replace("{alias}", "prod")
                assert client.request(method, filled).status_code == status, (method, filled)


def test_a_tenant_can_neither_use_nor_see_the_adapters_of_another(server, keys, expected):
    routes = {
        "/v1/completions": {"prompt": PROMPT, "max_tokens": 1},
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
        "/tokenize": {"prompt": PROMPT},
    }
    with with_key(server, keys["a"]) as a, with_key(server, keys["b"]) as b:
        assert b.post("/v1/completions", json={"model": "secret-plan", "prompt": "x"}).is_success
        for path, body in routes.items():
            for name in ("secret-plan", "secret-plan@v1", "all-15+secret-plan"):
                hidden = a.post(path, json={"model": name, **body})
                nowhere = name.replace("secret-plan", "nowhere-abc")
                unknown = a.post(path, json={"model": nowhere, **body})
                assert hidden.status_code == unknown.status_code != 200
                assert hidden.text.replace(name, "?") == unknown.text.replace(nowhere, "?")
        listed = {model["id"] for model in a.get("/v1/models").json()["data"]}
        assert listed == {"base", "tiny-base", "all-15@v1", "attn-1@v1"} & listed
        assert "all-15@v1" in listed
        (only,) = b.get("/v1/models").json()["data"]
        assert only["id"] == "secret-plan@v1"
        for model in ("tiny-base", ""):
            assert not b.post("/v1/completions", json={"model": model, "prompt": "x"}).is_success
        answer = a.post(
            "/v1/completions",
            json={
                "model": "all-15",
                "prompt": PROMPT,
                "max_tokens": TOKENS,
                "temperature": 0,
                "ignore_eos": True,
                "return_token_ids": True,
            },
        )
        assert ids(answer) == expected["all-15"][0]


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "file:///etc/passwd",
        "http://127.0.0.1:9/x",
        "all-15@../v1",
        "all-15\x00",
        "propulsion-blend:[]",
        "a" * 100_000,
    ],
)
def test_no_name_reaches_a_file_or_an_address(server, name):
    response = server.complete(name, PROMPT, 1)
    assert response.status_code in (400, 404)
    assert "root:" not in response.text
    quoted = name[:200].replace("/", "%2F").replace("\x00", "%00")
    for path in (f"/admin/v1/adapters/{quoted}", f"/admin/v1/adapters/{quoted}/load"):
        method = "POST" if path.endswith("load") else "GET"
        response = server.client.request(method, path)
        assert 400 <= response.status_code < 500, response.text


def test_keys_are_in_no_log_and_no_metric(server, keys):
    audit = server.log.with_name("audit").read_text()
    entries = [json.loads(line) for line in audit.splitlines()]
    assert any(entry["path"].endswith("/aliases/prod") for entry in entries)
    assert any(entry["status"] == 403 and entry["key_id"] == "a" for entry in entries)
    told = audit + server.log.read_text() + server.client.get("/metrics").text
    assert not [name for name, key in keys.items() if name != "file" and key in told]


def test_the_console_is_served(server):
    page = httpx.get(f"{server.url}/console/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]


# The engine's end, and the server's. These come last: they end what the tests above share.


def engine_processes(server: LiveServer) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            if (
                int(parent) == server.process.pid
                and "EngineCore" in (entry / "cmdline").read_text()
            ):
                found.append(int(entry.name))
    return found


def test_an_engine_that_is_killed_is_started_again_with_the_pinned_adapters(server, expected):
    (engine,) = engine_processes(server)
    os.kill(engine, signal.SIGKILL)
    wait_for(lambda: server.client.get("/health").status_code == 503, 10)
    refused = server.complete("all-15", PROMPT, 1)
    assert refused.status_code in (500, 503)
    assert admin(server, "GET", "/status")["engine"]["healthy"] is False
    wait_for(lambda: server.client.get("/health").status_code == 200, 240)
    for name in ("all-15", "attn-1"):
        assert ids(server.complete(name, PROMPT, TOKENS)) == expected[name][0]
    assert admin(server, "GET", "/status")["engine"] == {"healthy": True, "restarts": 1}
    assert admin(server, "GET", "/adapters/attn-1@v1")["pinned"]


def test_sigterm_under_load_loses_no_accepted_request(server, expected):
    with ThreadPoolExecutor(12) as pool:
        asked = [
            pool.submit(server.complete, name, PROMPT, TOKENS)
            for name in ("all-15", "mlp-3", "attn-1")
            for _ in range(4)
        ]
        wait_for(lambda: any(future.done() for future in asked))
        server.process.send_signal(signal.SIGTERM)
        answers = []
        for future in asked:
            # Refused before it was accepted is no loss; anything else must be whole.
            with contextlib.suppress(httpx.ConnectError):
                answers.append(future.result())
    assert answers
    for response in answers:
        name = response.json()["model"].partition("@")[0]
        assert ids(response) == expected[name][0]
    assert server.process.wait(timeout=120) == 0


def test_sigterm_ends_a_server_that_is_still_starting(base, store, tmp_path):
    port = free_port()
    arguments = ["--base", str(base), "--store", str(store.path), "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments],
            cwd=Path(__file__).parents[2],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:

        def listens() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 503
            return False

        wait_for(listens, 120)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()


def test_a_port_that_is_taken_is_told_in_a_line(base, store):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        arguments = ["--base", str(base), "--store", str(store.path), "--port", str(port)]
        done = subprocess.run(
            [sys.executable, "-m", "propulsion", "serve", *arguments],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert str(port) in done.stderr
