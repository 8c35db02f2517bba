"""The loss of each task is the one that transformers takes for that kind of model."""

from types import SimpleNamespace

import pytest
import torch

from tests.trainer.tasks.bases import CASES, make_case
from trainer.tasks.losses import next_token_losses
from trainer.tasks.task import IGNORED


@pytest.mark.parametrize("name", CASES)
def test_sum_of_losses_over_terms_is_the_models_own_loss(name: str) -> None:
    case = make_case(name)
    rows = [row for record in case.records for row in case.task.encode(record)]
    assert len({len(row) for row in rows}) > 1, "rows of one length would not be padded"
    batch = case.task.collate(rows)
    labels = batch.pop("labels")
    with torch.inference_mode():
        losses = case.task.losses(case.model(**batch), labels)
        if name == "question_answering":
            answers = {"start_positions": labels[:, 0], "end_positions": labels[:, 1]}
            own = case.model(**batch, **answers).loss
        else:
            own = case.model(**batch, labels=labels).loss
    assert losses.shape == (len(rows),)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.sum() / sum(row.num_terms for row in rows), own)


@pytest.mark.parametrize("name", CASES)
def test_the_loss_of_a_row_does_not_depend_on_the_rows_beside_it(name: str) -> None:
    case = make_case(name)
    rows = [row for record in case.records for row in case.task.encode(record)]

    def losses(some: list) -> torch.Tensor:
        batch = case.task.collate(some)
        labels = batch.pop("labels")
        with torch.inference_mode():
            return case.task.losses(case.model(**batch), labels)

    alone = torch.cat([losses([row]) for row in rows])
    torch.testing.assert_close(losses(rows), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_loss_in_16_bits_is_taken_in_fp32_and_has_a_gradient(name: str) -> None:
    case = make_case(name)
    model = case.model.to(torch.bfloat16)
    batch = case.task.collate(case.task.encode(case.records[0]))
    labels = batch.pop("labels")
    losses = case.task.losses(model(**batch), labels)
    assert losses.dtype == torch.float32
    losses.sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_virtual_tokens_before_the_row_bear_no_loss() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 7)
    labels = torch.tensor([[IGNORED, 3, 1, 2, IGNORED], [IGNORED, IGNORED, 4, IGNORED, IGNORED]])
    behind_virtual = torch.cat([torch.randn(2, 3, 7), logits], dim=1)
    expected = next_token_losses(logits, labels)
    torch.testing.assert_close(next_token_losses(behind_virtual, labels), expected)


def test_prompt_tuning_changes_neither_shape_nor_number_of_terms() -> None:
    from peft import PromptTuningConfig, get_peft_model

    case = make_case("answer")
    model = get_peft_model(
        case.model, PromptTuningConfig(num_virtual_tokens=4, task_type=case.task.peft_type)
    )
    rows = [row for record in case.records for row in case.task.encode(record)]
    batch = case.task.collate(rows)
    labels = batch.pop("labels")
    outputs = model(**batch)
    assert outputs.logits.shape[1] == labels.shape[1] + 4
    own = model(**batch, labels=labels).loss
    losses = case.task.losses(outputs, labels)
    torch.testing.assert_close(losses.sum() / sum(row.num_terms for row in rows), own)


def test_a_row_without_labels_has_no_loss() -> None:
    outputs = SimpleNamespace(logits=torch.randn(1, 3, 5))
    labels = torch.full((1, 3), IGNORED)
    assert make_case("token_classification").task.losses(outputs, labels).tolist() == [0.0]
