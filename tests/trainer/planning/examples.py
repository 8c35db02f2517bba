"""The run files for large bases, each with the configuration that ships for its base."""

from pathlib import Path

ROOT = Path(__file__).parents[3] / "examples"

EXAMPLES = {
    "llama-7b": "llama-7b",
    "llama-13b": "llama-13b",
    "bloomz-7b1": "bloomz-7b1",
    "gptj-6b": "gpt-j-6b",
}
"""Folder of the run file → folder of the configuration."""

PARAMETERS = {
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "bloomz-7b1": 7_069_016_064,
    "gptj-6b": 6_050_882_784,
}
"""As published."""

EMBEDDINGS = {
    "llama-7b": 32_000 * 4096,
    "llama-13b": 32_000 * 5120,
    "bloomz-7b1": 250_880 * 4096,
    "gptj-6b": 50_400 * (4096 + 1),
}
"""Parameters of the largest layer; that of GPT-J is its output layer, which has a bias."""


def run_file(name: str) -> Path:
    """The run file of an example."""
    return ROOT / name / "reasoning.yaml"


def base_folder(name: str) -> Path:
    """The folder of its base's configuration."""
    return ROOT / "configs" / EXAMPLES[name]
