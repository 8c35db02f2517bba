"""Engines that divide the model or the steps in other ways answer as one plain engine does."""

from pathlib import Path

import pytest

from adapters import AdapterVersion
from tests.serving import tiny
from tests.serving.test_architectures import specifications

pytestmark = pytest.mark.slow

# Two key/value heads on two ranks, one shared by both, and a fused projection.
ARCHITECTURES = ("llama", "bloom")
SETTINGS = {
    "tensor-parallel": {"tensor_parallel_size": 2},
    "chunked-prefill": {
        "max_num_batched_tokens": 32,
        "max_num_seqs": 16,
        "enable_chunked_prefill": True,
    },
    "speculative": {
        "speculative_config": {
            "method": "ngram",
            "num_speculative_tokens": 3,
            "prompt_lookup_max": 3,
            "prompt_lookup_min": 1,
        }
    },
}
CASES = [("llama", name) for name in SETTINGS] + [("bloom", "tensor-parallel")]
PROMPTS = [*tiny.PROMPTS, "again and again and again and again and again and again and"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, tuple[Path, dict[str | None, Path | None]]]:
    """The base and the adapter folders of each architecture."""
    root = tmp_path_factory.mktemp("parallel")
    found = {}
    for architecture in ARCHITECTURES:
        base = tiny.make_base(root / architecture / "base", architecture)
        folders: dict[str | None, Path | None] = {None: None}
        for seed, (name, settings) in enumerate(specifications(architecture).items()):
            folder = root / architecture / name
            folders[name] = tiny.make_adapter(folder, base, seed=seed, **settings)
        found[architecture] = base, folders
    return found


@pytest.fixture(scope="module")
def wanted(made):
    return {
        architecture: {
            name: tiny.reference_tokens(base, folder, PROMPTS, tiny.MAX_TOKENS)
            for name, folder in folders.items()
        }
        for architecture, (base, folders) in made.items()
    }


@pytest.mark.parametrize(("architecture", "setting"), CASES)
def test_every_kind_of_adapter_answers_as_alone(made, wanted, architecture, setting, monkeypatch):
    from vllm import LLM, SamplingParams

    from serving.engine import adapter_request, engine_options

    if setting == "tensor-parallel":
        monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    base, folders = made[architecture]
    options = engine_options(
        base,
        max_adapters=8,
        dtype="float32",
        enforce_eager=True,
        max_model_len=128,
        enable_prefix_caching=True,
        **SETTINGS[setting],
    )
    llm = LLM(**options)
    try:
        names = [name for name in folders for _ in PROMPTS]
        requests = [
            adapter_request(AdapterVersion(f"{architecture}-{name}", "v1", folders[name]))
            if name
            else None
            for name in names
        ]
        sampling = SamplingParams(temperature=0, max_tokens=tiny.MAX_TOKENS, ignore_eos=True)
        # Twice: the second time every adapter is in its slot already.
        for _ in range(2):
            outputs = llm.generate(
                PROMPTS * len(folders), sampling, lora_request=requests, use_tqdm=False
            )
            found = [list(output.outputs[0].token_ids) for output in outputs]
            alone = [tokens for name in folders for tokens in wanted[architecture][name]]
            wrong = {name for name, a, b in zip(names, found, alone, strict=True) if a != b}
            assert not wrong
    finally:
        llm.llm_engine.engine_core.shutdown()
