"""Engines that divide the model or the steps in other ways answer as one plain engine does."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from adapters import AdapterVersion
from propulsion.effective import effective_scales
from propulsion.errors import BaseMismatchError
from serving.worker.rpc import STATE_METHOD
from tests.serving import tiny
from tests.serving.test_architectures import make_adapters

pytestmark = pytest.mark.slow

# Two key/value heads on two ranks, one shared by both, and a fused projection.
ARCHITECTURES = ("llama", "bloom")
SETTINGS = {
    "tensor-parallel": {"tensor_parallel_size": 2},
    # A layer each; the embedding on the first, the last norm and the head on the other.
    "pipeline-parallel": {"pipeline_parallel_size": 2},
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
TWO_RANKS = ("tensor-parallel", "pipeline-parallel")
CASES = [("llama", name) for name in SETTINGS] + [("bloom", "tensor-parallel")]
BLOCK = 128
# The last fills a block of the prefix cache, and is found there the second time.
PROMPTS = [*tiny.PROMPTS, "again and " * 5, "the same words again, more than a block of them: " * 3]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, tuple[Path, dict[str, Path], dict[str, Path]]]:
    """By architecture: the base, and adapter folders as served and as PEFT loads them."""
    root = tmp_path_factory.mktemp("parallel")
    found = {}
    for architecture in ARCHITECTURES:
        base = tiny.make_base(root / architecture / "base", architecture)
        found[architecture] = base, *make_adapters(architecture, base, root / architecture)
    return found


@pytest.fixture(scope="module")
def wanted(made):
    return {
        architecture: {
            name: tiny.reference_tokens(base, folder, PROMPTS, tiny.MAX_TOKENS)
            for name, folder in {None: None, **original}.items()
        }
        for architecture, (base, _, original) in made.items()
    }


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def engine(request, made):
    """An architecture and an engine that runs it in one of the ways."""
    from vllm import LLM

    from serving.engine import engine_options

    architecture, setting = request.param
    options = engine_options(
        made[architecture][0],
        max_adapters=9,
        max_lora_adapters=1,
        max_lora_rank=8,
        dtype="float32",
        enforce_eager=True,
        max_model_len=256,
        enable_prefix_caching=True,
        **SETTINGS[setting],
    )
    with pytest.MonkeyPatch.context() as patch:
        if setting in TWO_RANKS:
            patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
        llm = LLM(**options)
    yield architecture, llm
    llm.llm_engine.engine_core.shutdown()


def test_every_kind_of_adapter_answers_as_alone(made, wanted, engine):
    from vllm import SamplingParams

    from serving.engine import adapter_request

    architecture, llm = engine
    _, folders, _ = made[architecture]
    alone = [tokens for answers in wanted[architecture].values() for tokens in answers]
    names = [name for name in wanted[architecture] for _ in PROMPTS]
    requests = [
        adapter_request(AdapterVersion(f"{architecture}-{name}", "v1", folders[name]))
        if name
        else None
        for name in names
    ]
    sampling = SamplingParams(temperature=0, max_tokens=tiny.MAX_TOKENS, ignore_eos=True)
    # The second time every adapter is in its slot already, and the long prompt in the cache.
    for num_cached in (0, BLOCK):
        outputs = llm.generate(
            PROMPTS * len(wanted[architecture]), sampling, lora_request=requests, use_tqdm=False
        )
        found = [list(output.outputs[0].token_ids) for output in outputs]
        wrong = {name for name, a, b in zip(names, found, alone, strict=True) if a != b}
        assert not wrong
        long = outputs[len(PROMPTS) - 1 :: len(PROMPTS)]
        assert {output.num_cached_tokens for output in long} == {num_cached}


@pytest.mark.parametrize("layer", ["first", "last", "beyond"])
def test_an_adapter_of_a_module_that_no_rank_has_is_refused(made, engine, layer, tmp_path):
    from serving.engine import adapter_request, load_adapter

    architecture, llm = engine
    _, folders, _ = made[architecture]
    fitting = next(iter(effective_scales(folders["mlp"])))
    index = {"first": 0, "last": 1, "beyond": 9}[layer]
    module = re.sub(r"\d+.*", f"{index}.nothing", fitting)
    folder = shutil.copytree(folders["mlp"], tmp_path / "folder")
    tiny.overwrite_weights(folder, {module: torch.zeros(1, 64)})
    version = AdapterVersion(f"{architecture}-{layer}", "v1", folder)
    with pytest.raises(BaseMismatchError, match=module):
        load_adapter(llm, version)
    refused = adapter_request(version).lora_int_id
    assert all(refused not in rank["host"] for rank in llm.collective_rpc(STATE_METHOD))
