import re
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import load_file, save_file

from propulsion.analysis.cli import inspect
from propulsion.errors import AdapterCorruptError, ConfigError
from tests.propulsion.analysis.commands import load, run
from tests.propulsion.analysis.models import llama, save_adapter


def test_inspect_shows_kinds_of_layers_and_a_total(adapter: Path) -> None:
    printed = run(inspect, adapter)
    rows = re.findall(r"^(\S+) × (\d+) +([\d,]+) ", printed, flags=re.MULTILINE)
    assert rows == [
        ("mlp.down_proj", "2", "32"),
        ("mlp.gate_proj", "2", "48"),
        ("mlp.up_proj", "2", "48"),
        ("self_attn.k_proj", "2", "16"),
        ("self_attn.o_proj", "2", "32"),
        ("self_attn.q_proj", "2", "32"),
        ("self_attn.v_proj", "2", "16"),
        ("total", "14", "224"),
    ]
    assert max(map(len, printed.splitlines())) <= 80


def test_inspect_all_shows_each_layer(adapter: Path) -> None:
    lines = run(inspect, adapter, "--all").splitlines()
    assert sum(line.startswith("model.layers.") for line in lines) == 14
    assert sum(line.startswith("total") for line in lines) == 1


def test_inspect_writes_numbers_and_a_plot(adapter: Path, tmp_path: Path) -> None:
    plot, numbers = tmp_path / "plots" / "z.png", tmp_path / "z.json"
    printed = run(inspect, adapter, "--plot", plot, "--json", numbers)
    report = load(numbers)
    assert (len(report["kinds"]), len(report["modules"])) == (7, 14)
    assert report["total"]["values"] == sum(row["values"] for row in report["modules"]) == 224
    assert f"{report['total']['share_near_one']:.1%}" in printed
    assert imread(plot).shape[2] == 4
    assert [path.name for path in plot.parent.iterdir()] == ["z.png"]


def test_inspect_shows_what_steers_a_terminal_as_text(tmp_path: Path) -> None:
    save_adapter(tmp_path, llama(layers=1), preset="attn")
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors["base_model.model.[red]\x1b[2J.propulsion_delta"] = torch.zeros(1, 4)
    save_file(tensors, path)
    printed = run(inspect, tmp_path, "--all")
    assert "\x1b" not in printed
    assert "[red]�[2J" in printed


def test_inspect_refuses_what_it_cannot_read_or_write(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterCorruptError, match="no such file"):
        run(inspect, tmp_path)
    for option in ("--plot", "--json"):
        with pytest.raises(ConfigError, match="is a folder"):
            run(inspect, adapter, option, tmp_path)
        with pytest.raises(ConfigError, match="cannot be written to"):
            run(inspect, adapter, option, adapter / "adapter_config.json" / "file")
