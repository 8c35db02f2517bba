"""Do the tokens of one mixed batch equal those that each adapter gives alone?"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from adapters import AdapterVersion

MAX_NEW_TOKENS = 16


@dataclass(frozen=True)
class MixedBatch:
    """Which of the requests of a mixed batch answered as they would have alone."""

    num_requests: int
    num_equal: int

    @property
    def matches(self) -> bool:
        return self.num_requests > 0 and self.num_equal == self.num_requests


def compare_mixed_batch(
    base: str,
    versions: Sequence[AdapterVersion],
    prompts: Mapping[str, Sequence[str]],
) -> MixedBatch:
    """Greedy tokens of vLLM on one batch, against transformers with PEFT one adapter at a time.

    Args:
        base: folder of the base model; both sides compute in fp32.
        versions: the adapters.
        prompts: prompts of each adapter by its name, and of the base model under "".
    """
    requests: list[tuple[AdapterVersion | None, str]] = [(None, p) for p in prompts[""]]
    for version in versions:
        requests += [(version, prompt) for prompt in prompts[version.name]]
    expected = _alone(base, requests)
    actual = _mixed(base, requests)
    equal = sum(a == b for a, b in zip(actual, expected, strict=True))
    return MixedBatch(len(requests), equal)


@contextmanager
def _engine_in_this_process() -> Iterator[None]:
    """Every request waits in it before its first step, which then takes them all, as one batch."""
    before = os.environ.copy()
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@_engine_in_this_process()
def _mixed(base: str, requests: Sequence[tuple[AdapterVersion | None, str]]) -> list[list[int]]:
    with warnings.catch_warnings():
        # vLLM's stand-in for Triton looks at names that torch is about to drop.
        warnings.simplefilter("ignore", FutureWarning)
        from vllm import LLM, SamplingParams

    from serving.engine import adapter_request, engine_options

    llm = LLM(
        **engine_options(
            base,
            dtype="float32",
            enforce_eager=True,
            max_num_seqs=len(requests),
            disable_log_stats=True,
            use_tqdm_on_load=False,
        )
    )
    outputs = llm.generate(
        [prompt for _, prompt in requests],
        SamplingParams(temperature=0.0, max_tokens=MAX_NEW_TOKENS),
        lora_request=[version and adapter_request(version) for version, _ in requests],
        use_tqdm=False,
    )
    eos = llm.get_tokenizer().eos_token_id
    return [_until(list(output.outputs[0].token_ids), eos) for output in outputs]


def _alone(base: str, requests: Sequence[tuple[AdapterVersion | None, str]]) -> list[list[int]]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(base)
    results: list[list[int]] = [[] for _ in requests]
    references = {version.reference if version else None: version for version, _ in requests}
    for reference, version in references.items():
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        if version is not None:
            model = PeftModel.from_pretrained(model, version.path)
        for i, (wanted, prompt) in enumerate(requests):
            if (wanted.reference if wanted else None) != reference:
                continue
            inputs = tokenizer(prompt, return_tensors="pt")
            with torch.inference_mode():
                tokens = model.generate(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    do_sample=False,
                    max_new_tokens=MAX_NEW_TOKENS,
                    pad_token_id=tokenizer.pad_token_id,
                )
            new = tokens[0, inputs["input_ids"].shape[1] :].tolist()
            results[i] = _until(new, tokenizer.eos_token_id)
    return results


def _until(tokens: list[int], eos: int) -> list[int]:
    return tokens[: tokens.index(eos)] if eos in tokens else tokens
