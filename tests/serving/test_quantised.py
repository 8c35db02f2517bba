"""Adapters on a quantised base, against the same integers with the adapter in their scales."""

from pathlib import Path

import pytest
import torch

from adapters import AdapterVersion
from tests.serving import quantised, tiny
from tests.serving.conftest import ATTENTION, MLP

pytestmark = pytest.mark.slow

MODULES = [*ATTENTION, "o_proj", *MLP]


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """An adapter's folder and scales: powers of two, which change no digit of a float."""
    from propulsion.effective import effective_scales

    folder = tiny.make_adapter(tmp_path / "adapter", base, degree=1, target_modules=MODULES, seed=0)
    generator = torch.Generator().manual_seed(0)
    tiny.overwrite_weights(
        folder,
        {
            module: 2.0 ** torch.randint(-1, 2, scale.shape, generator=generator) - 1
            for module, scale in effective_scales(folder).items()
        },
    )
    return folder, {module: scale[0] for module, scale in effective_scales(folder).items()}


def answers(model: Path, requests: list) -> list[list[list[int]]]:
    """For each list of adapters (None: the base), one an equal part of the batch, its tokens."""
    from vllm import LLM, SamplingParams

    from serving.engine import engine_options

    llm = LLM(**engine_options(model, enforce_eager=True, max_model_len=128))
    try:
        sampling = SamplingParams(temperature=0, max_tokens=tiny.MAX_TOKENS, ignore_eos=True)
        found = []
        for parts in requests:
            outputs = llm.generate(
                tiny.PROMPTS * len(parts),
                sampling,
                lora_request=[request for request in parts for _ in tiny.PROMPTS],
                use_tqdm=False,
            )
            found.append([list(output.outputs[0].token_ids) for output in outputs])
        return found
    finally:
        llm.llm_engine.engine_core.shutdown()


def test_an_adapter_answers_as_if_merged_into_the_quantised_weights(base, adapter, tmp_path):
    from serving.engine import adapter_request

    folder, scales = adapter
    plain = quantised.quantise(base, tmp_path / "plain")
    merged = quantised.quantise(base, tmp_path / "merged", scales)
    request = adapter_request(AdapterVersion("adapter", "v1", folder))
    alone, mixed = answers(plain, [[None, None], [None, request]])
    (as_merged,) = answers(merged, [[None, None]])
    half = len(tiny.PROMPTS)
    assert mixed == alone[:half] + as_merged[half:]
    assert all(a != b for a, b in zip(alone, as_merged, strict=True))
