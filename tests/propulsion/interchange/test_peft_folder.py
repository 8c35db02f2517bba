import json
from pathlib import Path

import pytest
import torch
from peft import PeftConfig
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from propulsion import PropulsionConfig
from propulsion.errors import AdapterCorruptError, ConfigError, PropulsionError
from propulsion.interchange.peft_folder import read_config, read_tensors, write_folder

KEY = "base_model.model.layer.propulsion_delta"


def write(destination: Path, value: float = 0.5, **config: object) -> Path:
    return write_folder(
        destination,
        PropulsionConfig(target_modules=["layer", "other"], **config),
        {KEY: torch.full((1, 4), value)},
        source="a test",
    )


def test_folder_is_what_peft_reads(tmp_path: Path) -> None:
    folder = write(tmp_path / "deep" / "adapter", degree=3)
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    config = PeftConfig.from_pretrained(str(folder))
    assert isinstance(config, PropulsionConfig)
    assert (config.degree, config.target_modules) == (3, {"layer", "other"})
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert torch.equal(file.get_tensor(KEY), torch.full((1, 4), 0.5))


def test_same_adapter_gives_same_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "first"), write(tmp_path / "second")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
    config = json.loads((first / "adapter_config.json").read_text())
    assert config["target_modules"] == ["layer", "other"]


def test_tensors_may_share_memory(tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": shared, "b": shared, "c": shared.T}
    write_folder(tmp_path / "out", PropulsionConfig(), tensors, source="a test")
    loaded = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_empty_folder_is_taken_and_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    with pytest.raises(ConfigError, match="empty: exists and is not an empty folder"):
        write(tmp_path / "empty", value=2.0)
    assert load_file(tmp_path / "empty" / "adapter_model.safetensors")[KEY][0, 0] == 0.5
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file: exists"):
        write(tmp_path / "file")


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterCorruptError, match=f"a test: gives NaN or infinity in '{KEY}'"):
        write(tmp_path / "out", value=float("nan"))
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_write_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(PropulsionError, match=r"out: cannot be written.*No space left"):
        write(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PropulsionError, match="file/out: cannot be written"):
        write(tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "has no peft_type"),
        ('{"peft_type": "LORA"}', "found 'LORA'"),
        ('{"peft_type": "PROPULSION", "degree": 0}', "degree must be a positive integer"),
        ('{"peft_type": "PROPULSION", "task_type": "X"}', "Invalid task type"),
    ],
)
def test_wrong_configuration_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(AdapterCorruptError, match=message) as caught:
        read_config(tmp_path, PropulsionConfig, "PROPULSION")
    assert str(tmp_path / "adapter_config.json") in str(caught.value)


def test_tensors_are_told_apart(tmp_path: Path) -> None:
    head = "base_model.model.block.score.weight"
    save_file(
        {KEY: torch.zeros(1, 4), head: torch.ones(2, 4)}, tmp_path / "adapter_model.safetensors"
    )
    own, whole = read_tensors(tmp_path, ".propulsion_delta", ["score"])
    assert (own.keys(), whole.keys()) == ({"layer"}, {head})
    with pytest.raises(AdapterCorruptError, match=f"'{head}' is neither"):
        read_tensors(tmp_path, ".propulsion_delta", None)
    with pytest.raises(AdapterCorruptError, match=r"holds no tensor whose name ends in '\.ia3_l'"):
        read_tensors(tmp_path, ".ia3_l", ["score", "layer"])


def test_missing_and_damaged_tensors_are_named(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    with pytest.raises(AdapterCorruptError, match=r"no such file$"):
        read_tensors(tmp_path, ".ia3_l", None)
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(AdapterCorruptError, match=r"no such file; \*\.bin files can run code"):
        read_tensors(tmp_path, ".ia3_l", None)
    path.write_bytes(b"short")
    with pytest.raises(AdapterCorruptError, match=f"{path}: not valid safetensors"):
        read_tensors(tmp_path, ".ia3_l", None)
    save_file({"layer.ia3_l": torch.ones(4, 1)}, path)
    with pytest.raises(AdapterCorruptError, match=r"'layer\.ia3_l' is neither"):
        read_tensors(tmp_path, ".ia3_l", None)
