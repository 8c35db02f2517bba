"""Embeddings by adapter. vLLM's pooling routes find and refuse models in a way of their own."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from adapters import AdapterStore, base_fingerprint
from serving.security.editing import add_key
from tests.serving import tiny
from tests.serving.live_server import LiveServer

pytestmark = pytest.mark.slow

NAMES = ("attn-1", "all-15", "secret-plan")
BODIES = {
    "/v1/embeddings": {"input": tiny.PROMPTS[0]},
    "/pooling": {"input": tiny.PROMPTS[0]},
    "/tokenize": {"prompt": tiny.PROMPTS[0]},
    "/invocations": {"input": tiny.PROMPTS[0]},
}


@pytest.fixture(scope="module")
def client(base: Path, adapter_folders, tmp_path_factory) -> Iterator[httpx.Client]:
    """With the key of a tenant that may use all but `secret-plan`."""
    folder = tmp_path_factory.mktemp("pooling")
    store = AdapterStore(folder / "store")
    for name in NAMES:
        source = adapter_folders.get(name, adapter_folders["key-3"])
        store.publish(source, name, base_fingerprint=base_fingerprint(base))
    keys = folder / "keys.yaml"
    key = add_key(keys, id="a", tenant="a", role="inference", adapters=["attn-*", "all-*"])
    options = ("--keys-file", str(keys), "--max-adapters", "4", "--", "--runner", "pooling")
    server = LiveServer(base, store.path, folder / "log", *options)
    server.client.headers["Authorization"] = f"Bearer {key}"
    yield server.client
    assert server.stop() == 0


def reference(base: Path, adapter: Path | None) -> torch.Tensor:
    """The normalised last hidden state of transformers with PEFT, shape (hidden_size,), fp32."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    inputs = AutoTokenizer.from_pretrained(base)(tiny.PROMPTS[0], return_tensors="pt")
    with torch.no_grad():
        states = model.eval()(input_ids=inputs["input_ids"], output_hidden_states=True)
    return torch.nn.functional.normalize(states.hidden_states[-1][0, -1], dim=0)


@pytest.mark.parametrize("name", [None, "attn-1", "all-15"])
@pytest.mark.parametrize("path", ["/v1/embeddings", "/invocations"])
def test_an_embedding_is_that_of_transformers_with_peft(client, base, adapter_folders, name, path):
    response = client.post(path, json={"model": name or "tiny-base", **BODIES[path]})
    assert response.status_code == 200, response.text
    found = torch.tensor(response.json()["data"][0]["embedding"])
    wanted = reference(base, adapter_folders[name] if name else None)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    assert response.headers.get("X-Adapter-Version") == (f"{name}@v1" if name else None)


@pytest.mark.parametrize("path", BODIES)
def test_what_is_not_there_and_what_is_anothers_are_refused_alike(client, path):
    def ask(model: str) -> httpx.Response:
        return client.post(path, json={"model": model, **BODIES[path]})

    assert ask("attn-1").status_code == 200
    hidden, unknown = ask("secret-plan"), ask("nowhere-abc")
    assert hidden.status_code == unknown.status_code == 404, hidden.text
    assert hidden.text.replace("secret-plan", "?") == unknown.text.replace("nowhere-abc", "?")
    assert hidden.json()["error"]["type"] == "NotFoundError"
