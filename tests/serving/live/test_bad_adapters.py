"""Whatever lies in the store, the request for it fails alone, and says nothing of the store."""

import hashlib
import json
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters import base_fingerprint
from tests.serving import tiny

pytestmark = pytest.mark.slow

WEIGHTS = "adapter_model.safetensors"
PROMPT = tiny.PROMPTS[0]


def truncated(folder: Path) -> None:
    write(folder, WEIGHTS, (folder / WEIGHTS).read_bytes()[:-64])


def truncated_before_it_was_published(folder: Path) -> None:
    replace(folder, WEIGHTS, (folder / WEIGHTS).read_bytes()[:-64])


def empty(folder: Path) -> None:
    replace(folder, WEIGHTS, b"")


def longer_than_it_says(folder: Path) -> None:
    replace(folder, WEIGHTS, (folder / WEIGHTS).read_bytes() + b"\0" * (4 << 20))


def with_a_header_of_exabytes(folder: Path) -> None:
    replace(folder, WEIGHTS, struct.pack("<Q", 1 << 60) + b"{}")


def with_a_tensor_of_terabytes(folder: Path) -> None:
    size = 1 << 42
    name = "base_model.model.model.layers.0.self_attn.q_proj.propulsion_delta"
    tensor = {"dtype": "F32", "shape": [1, size // 4], "data_offsets": [0, size]}
    header = json.dumps({name: tensor}).encode()
    replace(folder, WEIGHTS, struct.pack("<Q", len(header)) + header)


def with_nan(folder: Path) -> None:
    change_tensors(folder, lambda tensor: torch.full_like(tensor, float("nan")))


def with_infinity(folder: Path) -> None:
    change_tensors(folder, lambda tensor: torch.full_like(tensor, float("-inf")))


def with_more_vectors_than_it_says(folder: Path) -> None:
    change_tensors(folder, lambda tensor: tensor.repeat(3, 1))


def in_half_precision(folder: Path) -> None:
    change_tensors(folder, lambda tensor: tensor.half())


def without_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def without_configuration(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def without_a_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def with_a_manifest_of_noise(folder: Path) -> None:
    write(folder, "manifest.json", b"\xff{]")


def with_a_link_for_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("/etc/passwd")


def with_a_pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({}, folder / "adapter_model.bin")


def of_wrong_width(folder: Path) -> None:
    change_tensors(folder, lambda tensor: tensor[:, :7])


def of_unknown_layers(folder: Path) -> None:
    change_tensors(folder, lambda tensor: tensor, rename=("layers.0", "layers.77"))


DAMAGED = (
    *(truncated, truncated_before_it_was_published, empty, longer_than_it_says),
    *(with_a_header_of_exabytes, with_a_tensor_of_terabytes, with_nan, with_infinity),
    *(with_more_vectors_than_it_says, in_half_precision, without_weights, without_configuration),
    *(without_a_manifest, with_a_manifest_of_noise, with_a_link_for_weights, with_a_pickle),
)
UNFIT = (of_wrong_width, of_unknown_layers)


def write(folder: Path, file: str, content: bytes) -> None:
    (folder / file).chmod(0o644)
    (folder / file).write_bytes(content)


def replace(folder: Path, file: str, content: bytes) -> None:
    """Change a file and what the manifest says of it, as if it had been published like that."""
    write(folder, file, content)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"][file] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    write(folder, "manifest.json", json.dumps(manifest).encode())


def change_tensors(
    folder: Path,
    change: Callable[[torch.Tensor], torch.Tensor],
    rename: tuple[str, str] = ("", ""),
) -> None:
    tensors = {
        name.replace(*rename): change(tensor).contiguous()
        for name, tensor in load_file(folder / WEIGHTS).items()
    }
    scratch = folder.parent / "scratch"
    save_file(tensors, scratch)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["num_parameters"] = sum(tensor.numel() for tensor in tensors.values())
    write(folder, "manifest.json", json.dumps(manifest).encode())
    replace(folder, WEIGHTS, scratch.read_bytes())
    scratch.unlink()


@pytest.fixture(scope="module")
def bad(live, adapter_folders) -> dict[str, int]:
    """Names of adapters that cannot be served, with the status that asking for each is to get."""
    statuses = {}
    for spoil in (*DAMAGED, *UNFIT):
        name = spoil.__name__.replace("_", "-")
        spoil(live.publish(adapter_folders["all-15"], name))
        statuses[name] = 400 if spoil in UNFIT else 500
    return statuses


def ask(live, model: str):
    return live.server.complete(model, PROMPT, tiny.MAX_TOKENS)


def assert_refused(live, name: str, status: int) -> None:
    response = ask(live, name)
    assert response.status_code == status, (name, response.text)
    error = response.json()["error"]
    assert name in error["message"]
    assert error["code"] == status
    assert str(live.store.path) not in response.text
    assert "safetensors" not in response.text


def assert_others_answer(live, expected: dict) -> None:
    for name in ("all-15", "mlp-3"):
        response = ask(live, name)
        assert response.json()["choices"][0]["token_ids"] == expected[name][0]


@pytest.mark.parametrize("spoil", [*DAMAGED, *UNFIT], ids=lambda spoil: spoil.__name__)
def test_an_adapter_is_refused_and_the_others_answer(live, bad, expected, spoil):
    name = spoil.__name__.replace("_", "-")
    assert_refused(live, name, bad[name])
    assert_refused(live, f"{name}@v1", bad[name])
    assert_others_answer(live, expected)


def test_all_of_them_at_once_beside_good_requests(live, bad, expected):
    def good() -> None:
        assert_others_answer(live, expected)

    def one(name: str) -> None:
        assert_refused(live, name, bad[name])

    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(one, name) for name in bad for _ in range(2)]
        asked += [pool.submit(good) for _ in range(6)]
        for future in asked:
            future.result()


def test_an_adapter_of_another_base_is_refused(live, adapter_folders, expected, tmp_path):
    other = base_fingerprint(tiny.make_base(tmp_path / "other", seed=1))
    live.publish(adapter_folders["all-15"], "foreign", base_fingerprint=other)
    response = ask(live, "foreign")
    assert response.status_code == 400
    assert "base model" in response.json()["error"]["message"]
    assert str(tmp_path) not in response.text
    assert_others_answer(live, expected)


@pytest.mark.parametrize("spoil", DAMAGED, ids=lambda spoil: spoil.__name__)
def test_an_operator_is_told_which_file_is_damaged(live, bad, spoil):
    name = spoil.__name__.replace("_", "-")
    response = live.clients["admin"].post(f"/admin/v1/adapters/{name}@v1/verify")
    if spoil in (without_a_manifest, with_a_manifest_of_noise):
        assert response.status_code == 422
        error = response.json()["error"]["message"]
    else:
        assert response.json()["ok"] is False
        error = response.json()["error"]
    assert any(file in error for file in ("manifest.json", WEIGHTS, "adapter_config.json"))


def test_bad_adapters_spoil_no_listing(live, bad):
    page = live.clients["admin"].get("/admin/v1/adapters?limit=1000").json()
    listed = {entry["name"]: entry for entry in page["data"]}
    assert bad.keys() <= listed.keys()
    assert listed["with-nan"]["state"] == "failed"
    assert "NaN" in listed["with-nan"]["error"]
    assert listed["all-15"]["state"] in ("host", "slot")
    models = {model["id"] for model in live.clients["admin"].get("/v1/models").json()["data"]}
    assert {f"{name}@v1" for name in bad} <= models


def test_a_mended_adapter_is_served_once_it_is_loaded_again(live, bad, adapter_folders, expected):
    folder = live.publish(adapter_folders["up-15"], "mended")
    whole = (folder / WEIGHTS).read_bytes()
    truncated(folder)
    assert_refused(live, "mended", 500)
    write(folder, WEIGHTS, whole)
    loaded = live.clients["admin"].post("/admin/v1/adapters/mended/load")
    assert loaded.status_code == 200, loaded.text
    assert ask(live, "mended").json()["choices"][0]["token_ids"] == expected["up-15"][0]
