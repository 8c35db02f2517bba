import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from propulsion.analysis.parameters import compare_methods, count_parameters
from propulsion.cli import build_app
from propulsion.errors import ConfigError

CONFIGS = Path(__file__).parents[3] / "examples" / "configs"
ROBERTA, LLAMA = str(CONFIGS / "roberta-large"), str(CONFIGS / "llama-7b")


@pytest.mark.parametrize(
    ("model", "preset", "wanted"),
    [
        (ROBERTA, "attn", 24 * 3 * 1024),
        (ROBERTA, "all", 24 * (5 * 1024 + 4096)),
        (LLAMA, "attn", 32 * 3 * 4096),
        (LLAMA, "all", 32 * (5 * 4096 + 2 * 11008)),
        (LLAMA, "embedding", 4096),
    ],
)
def test_counts_of_published_models_are_the_closed_form(
    model: str, preset: str, wanted: int
) -> None:
    count = count_parameters(model, preset)
    assert count.trainable == wanted == sum(count.by_layer.values())


def test_the_base_is_counted_whole() -> None:
    assert count_parameters(LLAMA).base == 6_738_415_616


def test_other_methods_are_counted_on_the_same_layers() -> None:
    counts = {count.method: count.trainable for count in compare_methods(LLAMA, "attn")}
    assert counts["LoRA (r = 8)"] == 32 * 3 * 8 * 2 * 4096
    # Rank 12, its singular values and one number for the rank that is left.
    assert counts["AdaLoRA (r = 12 to 8)"] == 32 * 3 * (12 * 2 * 4096 + 12)
    assert counts["(IA)³"] == 32 * (2 * 4096 + 11008)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(build_app(), ["params", *arguments], env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_prints_each_layer_and_the_total() -> None:
    output = run(ROBERTA, "--preset", "all", "--compare")
    assert "attention.output.dense" in output
    assert "221,184" in output
    assert "0.0622 % of the base model's 355,412,057 parameters" in output
    assert "LoRA (r = 8)" in output


def test_the_command_prints_json() -> None:
    (count,) = json.loads(
        run(LLAMA, "--target-modules", "all-linear", "--num-vectors", "2", "--json")
    )
    assert count["trainable"] == 2 * 32 * (5 * 4096 + 2 * 11008)


def test_what_cannot_be_counted_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model configuration can be read there"):
        count_parameters(str(tmp_path))
    with pytest.raises(ConfigError, match="unknown preset 'everything'"):
        count_parameters(LLAMA, "everything")
    with pytest.raises(ConfigError, match="Propulsion cannot be put on"):
        count_parameters(LLAMA, target_modules=["no_such_layer"])
