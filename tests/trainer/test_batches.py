import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from propulsion.errors import DataError
from tests.trainer.runs import save_tiny_base
from trainer.batches import (
    IGNORED,
    collate,
    encode_prompt,
    rank_share,
    step_indices,
    tokenize,
)
from trainer.records import Example


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return AutoTokenizer.from_pretrained(save_tiny_base(tmp_path_factory.mktemp("base")))


def test_prompt_and_padding_bear_no_loss(tokenizer) -> None:
    examples = [
        Example("the film is", "good", "good"),
        Example("the very dull story was not", "bad", "bad"),
    ]
    batch = collate(tokenize(tokenizer, examples, 16), tokenizer.pad_token_id)
    for row, example in enumerate(examples):
        kept = batch["labels"][row] != IGNORED
        target = tokenizer(example.target, add_special_tokens=False)["input_ids"]
        assert batch["labels"][row][kept].tolist() == [*target, tokenizer.eos_token_id]
        assert batch["input_ids"][row][kept].tolist() == [*target, tokenizer.eos_token_id]
        assert batch["attention_mask"][row][kept].all()
    padding = batch["attention_mask"][0] == 0
    assert padding.sum() == 3
    assert (batch["labels"][0][padding] == IGNORED).all()


def test_long_prompt_loses_its_start_and_keeps_bos(tokenizer) -> None:
    whole = tokenizer("the film is a good story")["input_ids"]
    assert encode_prompt(tokenizer, "the film is a good story", 4) == [whole[0], *whole[-3:]]
    example = Example("the film is a good story", "fine", "fine")
    (tokenized,) = tokenize(tokenizer, [example], 8)
    assert len(tokenized.ids) == 8
    assert tokenized.num_target_tokens == 2


def test_target_without_room_is_an_error(tokenizer) -> None:
    with pytest.raises(DataError, match="raise it"):
        tokenize(tokenizer, [Example("the", "good " * 10, "good")], 8)


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 5))
def test_steps_visit_every_record_once_an_epoch(records: int, batch: int, seed: int) -> None:
    steps = -(-3 * records // batch)
    stream = [i for step in range(steps) for i in step_indices(records, batch, step, seed)]
    for epoch in range(3):
        assert sorted(stream[epoch * records : (epoch + 1) * records]) == list(range(records))


def test_order_is_a_function_of_seed_and_step() -> None:
    assert step_indices(100, 8, 5, seed=1) == step_indices(100, 8, 5, seed=1)
    assert step_indices(100, 8, 5, seed=1) != step_indices(100, 8, 5, seed=2)


@given(st.integers(1, 30), st.integers(1, 5))
def test_ranks_share_a_step_without_overlap(size: int, world_size: int) -> None:
    shares = [rank_share(range(size), rank, world_size) for rank in range(world_size)]
    assert sorted(i for share in shares for i in share) == list(range(size))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
