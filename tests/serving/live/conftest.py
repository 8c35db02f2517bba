"""One server for all tests in this folder, with keys of two tenants; none of them may end it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from adapters import AdapterStore, base_fingerprint
from serving.security.editing import add_key
from tests.serving.live_server import LiveServer

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
OF_A = ("all-15", "attn-1")
OF_B = "secret-plan"


@dataclass(frozen=True)
class Live:
    """The server, its store, and a client for each key: `admin`, `a`, `b`, and `none`."""

    server: LiveServer
    store: AdapterStore
    base_fingerprint: str
    keys: dict[str, str]
    clients: dict[str, httpx.Client]

    def publish(self, folder: Path, name: str, **options: object) -> Path:
        """Publish for the base served; the new version's folder."""
        return self.store.publish(
            folder, name, **{"base_fingerprint": self.base_fingerprint, **options}
        ).path


@pytest.fixture(scope="package")
def live(base: Path, adapter_folders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    store = AdapterStore(folder / "store")
    fingerprint = base_fingerprint(base)
    for name, adapter in adapter_folders.items():
        store.publish(adapter, name, base_fingerprint=fingerprint)
    store.publish(adapter_folders["key-3"], OF_B, base_fingerprint=fingerprint)
    file = folder / "keys.yaml"
    keys = {
        "admin": add_key(file, id="admin", tenant="ops", role="admin", adapters=["*"]),
        "a": add_key(file, id="a", tenant="a", role="inference", adapters=list(OF_A)),
        "b": add_key(file, id="b", tenant="b", role="inference", adapters=[OF_B], base=False),
    }
    template = folder / "template.jinja"
    template.write_text(TEMPLATE)
    server = LiveServer(
        *(base, store.path, folder / "log"),
        *("--max-adapters", "8", "--keys-file", str(file), "--audit-log", str(folder / "audit")),
        # The tests change the store behind the server.
        *("--resolution-ttl-seconds", "0", "--", "--chat-template", str(template)),
    )
    server.client.headers["Authorization"] = f"Bearer {keys['admin']}"
    clients = {"admin": server.client, "none": httpx.Client(base_url=server.url, timeout=60)}
    for name in ("a", "b"):
        headers = {"Authorization": f"Bearer {keys[name]}"}
        clients[name] = httpx.Client(base_url=server.url, headers=headers, timeout=60)
    try:
        yield Live(server, store, fingerprint, keys, clients)
    finally:
        for client in clients.values():
            client.close()
        exit_code = server.stop()
    assert exit_code == 0
