import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from propulsion.errors import ConfigError
from trainer.batch_plan import Row
from trainer.packing import check_packs, collate_packed
from trainer.tasks.losses import next_token_losses
from trainer.tasks.task import IGNORED, EncodedRecord

MODELS = {
    "llama": lambda attention: LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            attn_implementation=attention,
        )
    ),
    "gptj": lambda attention: GPTJForCausalLM(
        GPTJConfig(
            vocab_size=50,
            n_embd=32,
            n_layer=2,
            n_head=2,
            rotary_dim=8,
            attn_implementation=attention,
        )
    ),
}


def records() -> list[EncodedRecord]:
    made = []
    for length in (7, 5, 3):
        ids = tuple(torch.randint(1, 50, (length,)).tolist())
        labels = (IGNORED, *ids[1:])
        made.append(EncodedRecord(ids, labels, length - 1))
    return made


# transformers has eager attention alone for GPT-J.
@pytest.mark.parametrize(
    ("name", "attention"), [("llama", "eager"), ("llama", "sdpa"), ("gptj", "eager")]
)
def test_packed_records_do_not_see_each_other(name: str, attention: str) -> None:
    torch.manual_seed(0)
    model: PreTrainedModel = MODELS[name](attention).eval()
    parts = records()
    rows = [Row(0, tuple(parts)), Row(0, (parts[2], parts[0]))]
    tensors = collate_packed(rows, 0, torch.float32)
    labels = tensors.pop("labels")
    packed = next_token_losses(model(**tensors).logits, labels)
    alone = {}
    for part in parts:
        logits = model(input_ids=torch.tensor([part.ids])).logits
        alone[id(part)] = next_token_losses(logits, torch.tensor([part.labels]))
    for row, loss in zip(rows, packed, strict=True):
        expected = sum(alone[id(part)] for part in row.parts)
        torch.testing.assert_close(loss[None], expected)


def test_first_token_of_a_record_is_not_predicted_from_the_one_before() -> None:
    part = EncodedRecord((4, 5), labels=(4, 5), num_terms=2)
    tensors = collate_packed([Row(0, (part, part))], 0, torch.float32)
    assert tensors["labels"].tolist() == [[IGNORED, 5, IGNORED, 5]]
    assert tensors["position_ids"].tolist() == [[0, 1, 0, 1]]


def test_model_that_cannot_be_packed_is_refused() -> None:
    bloom = BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=32, n_layer=1, n_head=2))
    with pytest.raises(ConfigError, match="takes no position ids"):
        check_packs(bloom, "CAUSAL_LM")
    with pytest.raises(ConfigError, match="causal language models"):
        check_packs(MODELS["llama"]("sdpa"), "SEQ_CLS")
