"""The head bank alone, asked as vLLM's pooler heads ask it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from propulsion.heads import MULTI_LABEL, REGRESSION, SINGLE_LABEL, SavedHead
from serving.worker import head_bank
from serving.worker.head_bank import HeadBank

HIDDEN = 8
BASE = torch.tensor([0.25, 0.75])


@pytest.fixture
def bank() -> HeadBank:
    return HeadBank(HIDDEN, max_labels=4, num_slots=4, device="cpu")


def head(num_labels: int, problem_type: str = SINGLE_LABEL, bias: bool = False) -> SavedHead:
    weight = torch.randn(num_labels, HIDDEN)
    return SavedHead("score", weight, torch.randn(num_labels) if bias else None, problem_type, {})


def ask(bank: HeadBank, pooled, activated: list[bool] | None = None):
    flags = activated or [True] * len(pooled)
    metadata = SimpleNamespace(pooling_params=[SimpleNamespace(use_activation=f) for f in flags])
    base = [None if row is None else BASE.expand(*row.shape[:-1], 2) for row in pooled]
    return bank.answer(None, (pooled, metadata), base)


def wanted(one: SavedHead, values: torch.Tensor) -> torch.Tensor:
    logits = torch.nn.functional.linear(values, one.weight, one.bias)
    if one.problem_type == SINGLE_LABEL:
        return logits.softmax(-1)
    return logits.sigmoid() if one.problem_type == MULTI_LABEL else logits


def test_each_request_is_answered_by_the_head_of_its_slot_alone(bank):
    heads = [head(3, bias=True), head(1, REGRESSION), head(4, MULTI_LABEL)]
    for slot, one in enumerate(heads, 1):
        bank.write(slot, one)
    bank.set_request_slots(np.array([3, 0, 1, 2, 1], dtype=np.int32))
    pooled = torch.randn(5, HIDDEN)
    answers = ask(bank, pooled)
    assert torch.equal(answers[1], BASE)
    for place, slot in ((0, 3), (2, 1), (3, 2), (4, 1)):
        torch.testing.assert_close(answers[place], wanted(heads[slot - 1], pooled[place]))


def test_a_request_that_wants_no_activation_gets_logits(bank):
    one = head(3)
    bank.write(1, one)
    bank.set_request_slots(np.array([1, 1], dtype=np.int32))
    pooled = torch.randn(2, HIDDEN)
    raw, activated = ask(bank, pooled, [False, True])
    torch.testing.assert_close(raw, pooled[0] @ one.weight.T)
    torch.testing.assert_close(activated, (pooled[1] @ one.weight.T).softmax(-1))


def test_tokens_of_a_request_are_answered_by_its_head_and_unread_prompts_by_none(bank):
    one = head(3, bias=True)
    bank.write(2, one)
    bank.set_request_slots(np.array([2, 2, 0], dtype=np.int32))
    pooled = [torch.randn(5, HIDDEN), None, torch.randn(2, HIDDEN)]
    answers = ask(bank, pooled)
    torch.testing.assert_close(answers[0], wanted(one, pooled[0]))
    assert answers[1] is None
    assert torch.equal(answers[2], BASE.expand(2, 2))


def test_without_a_head_in_the_batch_the_bases_answers_are_left_alone(bank):
    bank.write(1, head(2))
    bank.set_request_slots(np.array([0, 2], dtype=np.int32))
    output = torch.randn(2, 2)
    assert bank.answer(None, (torch.randn(2, HIDDEN), None), output) is output


def test_a_smaller_head_in_a_slot_leaves_nothing_of_the_one_before(bank):
    bank.write(1, head(4, MULTI_LABEL, bias=True))
    small = head(2)
    bank.write(1, small)
    bank.set_request_slots(np.array([1], dtype=np.int32))
    pooled = torch.randn(1, HIDDEN)
    torch.testing.assert_close(ask(bank, pooled)[0], wanted(small, pooled[0]))
    bank.write(1, None)
    assert torch.equal(ask(bank, pooled)[0], BASE)


def test_many_rows_are_gathered_in_parts(bank, monkeypatch):
    one = head(3)
    bank.write(1, one)
    bank.set_request_slots(np.ones(7, dtype=np.int32))
    monkeypatch.setattr(head_bank, "_MAX_GATHERED", 2 * 3 * HIDDEN)
    pooled = torch.randn(7, HIDDEN)
    torch.testing.assert_close(torch.stack(ask(bank, pooled)), wanted(one, pooled))


def test_writing_never_moves_what_was_allocated(bank):
    before = bank.weight.data_ptr(), bank.bias.data_ptr()
    bank.write(4, head(4, bias=True))
    assert (bank.weight.data_ptr(), bank.bias.data_ptr()) == before
