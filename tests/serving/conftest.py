import os
from pathlib import Path

import pytest

from tests.serving import tiny

# Engines here share two cores with whatever else runs; vLLM must not pin its threads to them.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ATTENTION = ["q_proj", "k_proj", "v_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]

ADAPTERS = {
    "attn-1": {"degree": 1, "target_modules": ATTENTION},
    "mlp-3": {"degree": 3, "target_modules": MLP},
    "all-15": {"degree": 15, "target_modules": [*ATTENTION, "o_proj", *MLP]},
    "value-2": {"degree": 2, "target_modules": ["v_proj"]},
    "up-15": {"degree": 15, "target_modules": ["up_proj", "o_proj"]},
    "key-3": {"degree": 3, "target_modules": ["k_proj", "down_proj"]},
}


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_base(tmp_path_factory.mktemp("model") / "tiny-base")


@pytest.fixture(scope="session")
def adapter_folders(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return {
        name: tiny.make_adapter(root / name, base, seed=seed, **options)
        for seed, (name, options) in enumerate(ADAPTERS.items())
    }


@pytest.fixture(scope="session")
def expected(base: Path, adapter_folders: dict[str, Path]) -> dict[str | None, list[list[int]]]:
    """Tokens of transformers + PEFT for tiny.PROMPTS by adapter, None being the base."""
    folders: dict[str | None, Path | None] = {None: None, **adapter_folders}
    answers = {
        name: tiny.reference_tokens(base, folder, tiny.PROMPTS, tiny.MAX_TOKENS)
        for name, folder in folders.items()
    }
    distinct = {tuple(map(tuple, tokens)) for tokens in answers.values()}
    assert len(distinct) == len(answers), "adapters that answer alike would test nothing"
    return answers
