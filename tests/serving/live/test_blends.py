"""Several adapters for one request, as the product of their scales."""

import pytest

from tests.serving import tiny
from tests.serving.live_server import token_ids

pytestmark = pytest.mark.slow

PROMPT = tiny.PROMPTS[0]
TOKENS = tiny.MAX_TOKENS


def test_a_blend_answers_as_the_product_of_its_scales(live, base, adapter_folders):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), adapter_folders["all-15"], adapter_name="a"
    )
    model.load_adapter(adapter_folders["mlp-3"], adapter_name="b")
    model.base_model.add_weighted_adapter(["a", "b"], [0.7, 0.3], "ab", "geometric")
    model.set_adapter("ab")
    inputs = AutoTokenizer.from_pretrained(base)(PROMPT, return_tensors="pt")
    wanted = model.eval().generate(
        input_ids=inputs["input_ids"],
        max_new_tokens=TOKENS,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=257,
    )[0, inputs["input_ids"].shape[1] :]
    response = live.server.complete("all-15:0.7+mlp-3:0.3", PROMPT, TOKENS)
    assert token_ids(response) == wanted.tolist()
    assert response.json()["model"] == "all-15@v1:0.7+mlp-3@v1:0.3"
