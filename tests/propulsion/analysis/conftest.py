"""Saved bases and adapters, made once."""

from pathlib import Path

import pytest

from tests.propulsion.analysis.models import llama, save_adapter, save_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal language model with a tokenizer."""
    return save_base(llama(), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three classes with a tokenizer."""
    return save_base(llama(classes=3), tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained adapter of `base`, all linear layers, of degree 15 but for one kind of layer."""
    return save_adapter(
        tmp_path_factory.mktemp("adapter"),
        llama(),
        degree_pattern={"mlp.down_proj": 3},
        task_type="CAUSAL_LM",
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Samples of several lengths, one a line."""
    path = tmp_path / "samples.txt"
    path.write_text(
        "a gorgeous , witty , seductive movie .\n"
        "this one is dull\n"
        "\n"
        "it never took off and always seemed static .\n"
        "good\n"
        "unflinchingly bleak and desperate\n"
    )
    return path
