"""One Ray cluster of several nodes for all live tests here, with two replicas of a tiny base."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from adapters import AdapterStore, base_fingerprint
from serving.security.editing import add_key
from tests.serving import conftest as serving
from tests.serving.conftest import adapter_folders, base, expected  # noqa: F401

# Workers import the code and these settings from the nodes' environment.
os.environ["PYTHONPATH"] = str(Path(__file__).parents[3])
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

ADAPTERS = serving.ADAPTERS


@dataclass
class Live:
    """The cluster, the store it serves, and an admin's client of its gateway."""

    nodes: object
    store: AdapterStore
    base: Path
    options: dict
    keys: dict[str, str]
    client: httpx.Client

    def deploy(self, *, wait: bool = True, **changes: object) -> None:
        """Roll the application out with other options."""
        from cluster.serving.config import cluster_serve_config

        self.nodes.deploy(cluster_serve_config(**{**self.options, **changes}), wait=wait)

    def complete(self, model: str, prompt: object, key: str = "admin", **options: object):
        """POST /v1/completions, greedy, with token ids in the answer."""
        body = {"model": model, "prompt": prompt, "temperature": 0, "ignore_eos": True}
        body |= {"max_tokens": 12, "return_token_ids": True, **options}
        headers = {"Authorization": f"Bearer {self.keys[key]}"}
        return self.client.post("/v1/completions", json=body, headers=headers)

    def value(self, name: str, **labels: str) -> float:
        """A number of the gateway's metrics."""
        from benchmarks.cluster.nodes import samples

        found = samples(self.client.get("/metrics").text)
        return sum(
            value for n, given, value in found if n == name and labels.items() <= given.items()
        )


@pytest.fixture(scope="package")
def live(base: Path, adapter_folders, tmp_path_factory) -> Iterator[Live]:  # noqa: F811
    from benchmarks.cluster.nodes import Nodes

    folder = tmp_path_factory.mktemp("cluster")
    store = AdapterStore(folder / "store")
    fingerprint = base_fingerprint(base)
    for name, adapter in adapter_folders.items():
        store.publish(adapter, name, base_fingerprint=fingerprint)
    keys_file = folder / "keys.yaml"
    keys = {
        "admin": add_key(keys_file, id="admin", tenant="ops", role="admin", adapters=["*"]),
        "tenant": add_key(
            keys_file, id="tenant", tenant="t", role="inference", adapters=["attn-1"], base=False
        ),
    }
    options = {
        "base": base,
        "store": str(store.path),
        "keys_file": keys_file,
        "open_metrics": True,
        "dtype": "float32",
        "max_model_len": 256,
        "max_adapters": 3,
        "min_replicas": 2,
    }
    # Ray's sockets lie below it, and their paths are limited to 107 bytes.
    with TemporaryDirectory(prefix="ray", dir="/tmp") as temp_dir:
        nodes = Nodes(3, Path(temp_dir))
        headers = {"Authorization": f"Bearer {keys['admin']}"}
        client = httpx.Client(base_url=nodes.url, headers=headers, timeout=120)
        live = Live(nodes, store, base, options, keys, client)
        try:
            live.deploy()
            nodes.wait_for_replicas(2)
            yield live
        finally:
            client.close()
            nodes.close()
