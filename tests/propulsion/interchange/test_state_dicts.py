import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from propulsion.errors import AdapterCorruptError
from propulsion.interchange.state_dicts import open_state_dict
from tests.propulsion.tiny_models import TINY

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2), "n": torch.tensor(3)}


Z = torch.zeros(1)


def save_shards(folder: Path, stem: str, suffix: str, save: Callable[..., None]) -> Path:
    folder.mkdir()
    weight_map = {}
    for number, (name, tensor) in enumerate(STATE.items(), start=1):
        weight_map[name] = f"{stem}-{number:05}-of-00003{suffix}"
        save({name: tensor}, folder / weight_map[name])
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def save_old(state: object, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


def folder_with(name: str, save: Callable[..., None]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        folder.mkdir()
        save(STATE, folder / name)
        return folder

    return make


def file_with(name: str, save: Callable[..., None]) -> Callable[[Path], Path]:
    return lambda folder: folder_with(name, save)(folder) / name


SOURCES: dict[str, Callable[[Path], Path]] = {
    ".safetensors": file_with("x.safetensors", save_file),
    ".pt": file_with("x.pt", torch.save),
    ".pth": file_with("x.pth", torch.save),
    ".bin": file_with("x.bin", torch.save),
    "before PyTorch 1.6": file_with("x.pt", save_old),
    "folder of safetensors": folder_with("model.safetensors", save_file),
    "folder of bin": folder_with("pytorch_model.bin", torch.save),
    "index": lambda folder: save_shards(folder, "model", ".safetensors", save_file),
    "folder of shards": (
        lambda folder: save_shards(folder, "model", ".safetensors", save_file).parent
    ),
    "folder of bin shards": (
        lambda folder: save_shards(folder, "pytorch_model", ".bin", torch.save).parent
    ),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES.keys())
def test_every_way_of_saving_gives_the_same_tensors(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    tensors = open_state_dict(make(tmp_path / "model"))
    assert tensors.keys() == STATE.keys()
    assert len(tensors) == len(STATE)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in STATE.items())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_stripped(prefix: str, tmp_path: Path) -> None:
    wrapped = {f"{prefix}{name}": tensor for name, tensor in STATE.items()}
    assert open_state_dict(wrapped).keys() == STATE.keys()
    torch.save(wrapped, tmp_path / "x.pt")
    assert torch.equal(open_state_dict(tmp_path / "x.pt")["a.bias"], STATE["a.bias"])
    assert "module.part" in open_state_dict({"module.part": Z, "other": Z})


def test_model_saved_by_transformers_is_read(tmp_path: Path) -> None:
    model = TINY["llama-2"].build()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    tensors = open_state_dict(tmp_path)
    state = model.state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in state.items())


class Touch:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, save_old])
def test_code_in_a_pickle_is_not_run(save: Callable[..., None], tmp_path: Path) -> None:
    save({"a": Touch(tmp_path / "touched")}, tmp_path / "x.pt")
    with pytest.raises(AdapterCorruptError, match=r"x\.pt: holds more than tensors"):
        open_state_dict(tmp_path / "x.pt")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("value", [[Z], {"step": 3}, {1: Z}, {"model": {"a": Z}}])
def test_what_is_no_state_dict_is_refused(value: object, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "x.pt")
    with pytest.raises(AdapterCorruptError, match="does not map names to tensors"):
        open_state_dict(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize("damage", ["empty", "noise", "truncated"])
def test_damaged_files_are_named(name: str, damage: str, tmp_path: Path) -> None:
    path = tmp_path / name
    save = torch.save if name == "x.pt" else save_file
    save(STATE, path)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "noise": bytes(range(256)), "truncated": whole[:-20]}[damage])
    with pytest.raises(AdapterCorruptError, match=name):
        open_state_dict(path)


def test_missing_and_unknown_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(AdapterCorruptError, match=r"missing\.pt: no such file"):
        open_state_dict(tmp_path / "missing.pt")
    with pytest.raises(AdapterCorruptError, match=r"holds none of model\.safetensors, "):
        open_state_dict(tmp_path)
    (tmp_path / "x.npz").write_text("")
    with pytest.raises(AdapterCorruptError, match=r"x\.npz: unknown kind of file"):
        open_state_dict(tmp_path / "x.npz")
    with pytest.raises(AdapterCorruptError, match=r"index\.json: cannot be read"):
        open_state_dict(tmp_path / "model.safetensors.index.json")


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"weight_map": {"a": "../x.safetensors"}}', '{"weight_map": []}']
)
def test_wrong_index_is_refused(content: str, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(content)
    with pytest.raises(AdapterCorruptError, match="not the index of a sharded model"):
        open_state_dict(index)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    index = save_shards(tmp_path / "model", "model", ".safetensors", save_file)
    (index.parent / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(AdapterCorruptError, match=r"model-00002-of-00003\.safetensors: no such"):
        open_state_dict(index)
