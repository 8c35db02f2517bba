"""Prompt and target as a row of tokens."""

from itertools import pairwise

import pytest

from propulsion.errors import ConfigError, DataError
from tests.trainer.tasks.bases import bert_tokenizer, byte_tokenizer, llama_tokenizer
from trainer.config.task import AnswerTask, CausalLMTask
from trainer.data.records import Example
from trainer.tasks.build import make_task
from trainer.tasks.causal import encode_prompt
from trainer.tasks.task import IGNORED, Task

BOS, EOS = 1, 2


def answer_task(max_length: int = 32) -> Task:
    return make_task(AnswerTask(), llama_tokenizer(), max_length)


def ids(text: str) -> list[int]:
    return llama_tokenizer()(text, add_special_tokens=False)["input_ids"]


def test_prompt_and_padding_bear_no_loss() -> None:
    task = answer_task()
    examples = [Example("is it? ", "yes", "yes"), Example("is it not so? ", "no", "no")]
    rows = [row for example in examples for row in task.encode(example)]
    batch = task.collate(rows)
    for row, example in enumerate(examples):
        kept = batch["labels"][row] != IGNORED
        assert batch["labels"][row][kept].tolist() == [*ids(example.target), EOS]
        assert batch["input_ids"][row][kept].tolist() == [*ids(example.target), EOS]
        assert batch["attention_mask"][row][kept].all()
        assert rows[row].num_terms == len(example.target) + 1
    padding = batch["attention_mask"][0] == 0
    assert padding.sum() == 6
    assert (batch["labels"][0][padding] == IGNORED).all()


def test_a_long_prompt_loses_its_start_and_keeps_bos() -> None:
    assert encode_prompt(llama_tokenizer(), "a long prompt", 4) == [BOS, *ids("mpt")]
    (row,) = answer_task(max_length=8).encode(Example("a long prompt", "yes", "yes"))
    assert row.ids == (BOS, *ids("mpt"), *ids("yes"), EOS)
    assert row.num_terms == 4


def test_a_prompt_without_bos_keeps_its_end() -> None:
    assert encode_prompt(byte_tokenizer("$A"), "a long prompt", 4) == ids("ompt")


def test_bos_that_a_chat_template_wrote_is_not_doubled() -> None:
    assert encode_prompt(llama_tokenizer(), "<s>hi", 9) == [BOS, *ids("hi")]


def test_an_empty_prompt_has_a_token_that_predicts_the_first_of_the_target() -> None:
    assert encode_prompt(byte_tokenizer("$A"), "", 9) == [BOS]


def test_a_target_without_room_is_an_error() -> None:
    with pytest.raises(DataError, match=r"'good good.* 50 tokens.* 8: raise it"):
        answer_task(max_length=8).encode(Example("the", "good " * 9 + "good", "good"))


def test_a_tokenizer_without_an_end_cannot_make_texts() -> None:
    with pytest.raises(ConfigError, match=r"task.type answer needs .* end-of-sequence"):
        make_task(AnswerTask(), bert_tokenizer(), 32)


def test_a_long_text_of_causal_lm_is_cut_so_that_each_token_is_predicted_once() -> None:
    task = make_task(CausalLMTask(type="causal_lm"), llama_tokenizer(), 16)
    target = "a text that is much longer than a single row"
    rows = task.encode(Example("", target, target))
    assert len(rows) > 2
    assert all(len(row) <= 16 for row in rows)
    assert all(row.labels[0] == IGNORED for row in rows)
    learned = [label for row in rows for label in row.labels if label != IGNORED]
    assert learned == [*ids(target), EOS]
    assert sum(row.num_terms for row in rows) == len(learned)
    assert all(after.ids[0] == before.ids[-1] for before, after in pairwise(rows))


def test_a_prompt_of_causal_lm_keeps_half_a_row() -> None:
    task = make_task(CausalLMTask(type="causal_lm"), llama_tokenizer(), 16)
    first, *_ = task.encode(Example("a very long prompt", "and a very long target", ""))
    assert first.ids[:8] == (BOS, *ids(" prompt"))
    assert first.labels[:8] == (IGNORED,) * 8
