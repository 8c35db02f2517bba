"""What the tasks predict, on whatever batches and ranks, and that it is what was learned."""

from collections.abc import Callable

import pytest
import torch

from tests.trainer.tasks.bases import CASES, Case, make_case

GENERATED = {"answer", "summarization-llama", "summarization-t5"}


def learn(case: Case, steps: int = 150, lr: float = 1e-2) -> None:
    """Learn the records by heart."""
    optimizer = torch.optim.AdamW(case.model.parameters(), lr, weight_decay=0.0)
    rows = [row for record in case.records for row in case.task.encode(record)]
    terms = sum(row.num_terms for row in rows)
    for _ in range(steps):
        batch = case.task.collate(rows)
        labels = batch.pop("labels")
        loss = case.task.losses(case.model(**batch), labels).sum() / terms
        loss.backward()
        torch.nn.utils.clip_grad_norm_(case.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture(scope="module")
def learned() -> Callable[[str], Case]:
    cases: dict[str, Case] = {}

    def case(name: str) -> Case:
        if name not in cases:
            cases[name] = make_case(name)
            learn(cases[name])
        return cases[name]

    return case


@pytest.mark.parametrize("name", CASES)
def test_what_was_learned_by_heart_is_predicted(learned: Callable[[str], Case], name: str) -> None:
    case = learned(name)
    scores = case.task.score(case.predict(case.records, 2), case.records)
    assert set(scores) >= {case.task.metric}
    if name == "causal_lm":
        assert scores["perplexity"] < 1.3
    elif name in ("summarization-llama", "summarization-t5"):
        # Of six tokens, which the longer summaries have more than.
        assert scores["rouge1"] > 0.75
    elif name == "answer":
        assert scores["accuracy"] == 4 / 5
    else:
        assert scores[case.task.metric] > 0.99


@pytest.mark.parametrize("name", CASES)
def test_predictions_do_not_depend_on_the_batch_size(
    learned: Callable[[str], Case], name: str
) -> None:
    case = learned(name)
    alone = case.predict(case.records, 1)
    for batch_size in (2, 5):
        together = case.predict(case.records, batch_size)
        if name in ("causal_lm", "regression"):
            torch.testing.assert_close(
                torch.tensor(together), torch.tensor(alone), atol=1e-4, rtol=1e-4
            )
        else:
            assert together == alone


@pytest.mark.parametrize("name", CASES)
def test_a_rank_makes_as_many_calls_as_the_rank_with_most(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(name)
    calls = []
    if name in GENERATED:
        real = case.model.generate
        monkeypatch.setattr(
            case.model, "generate", lambda **options: calls.append(1) or real(**options)
        )
    else:
        case.model.register_forward_hook(lambda *_: calls.append(1))
    expected = case.predict(case.records[:1], 1)
    for number_of_records in (0, 1):
        calls.clear()
        found = case.predict(case.records[:number_of_records], 1, agree=lambda own: own + 7)
        own = len(calls) - 7
        assert own >= number_of_records
        assert found == expected[:number_of_records]


def test_a_generated_text_ends_before_the_end_of_sequence(
    learned: Callable[[str], Case],
) -> None:
    case = learned("answer")
    assert case.predict(case.records, 5)[3:] == ["yes", "yes"]


def test_the_ends_that_a_base_names_also_end_a_text(learned: Callable[[str], Case]) -> None:
    case = learned("answer")
    [letter] = case.task.tokenizer("s", add_special_tokens=False)["input_ids"]
    before = case.model.generation_config.eos_token_id
    case.model.generation_config.eos_token_id = [2, letter]
    try:
        assert case.predict(case.records[3:], 2) == ["ye", "ye"]
    finally:
        case.model.generation_config.eos_token_id = before


def test_generation_settings_of_a_base_do_not_change_what_it_finds_likely(
    learned: Callable[[str], Case],
) -> None:
    case = learned("answer")
    expected = case.predict(case.records, 5)
    settings = case.model.generation_config
    settings.repetition_penalty, settings.no_repeat_ngram_size = 9.0, 1
    try:
        assert case.predict(case.records, 5) == expected
    finally:
        settings.repetition_penalty, settings.no_repeat_ngram_size = None, None


@pytest.mark.parametrize("name", CASES)
def test_a_fresh_adapter_predicts_what_the_base_does_and_trains_the_head(name: str) -> None:
    from peft import get_peft_model

    from propulsion import PropulsionConfig

    case = make_case(name)
    expected = case.predict(case.records, 2)
    config = PropulsionConfig(preset="attn", degree=3, task_type=case.task.peft_type)
    case.model = get_peft_model(case.model, config)
    assert case.predict(case.records, 2) == expected
    trained = [path for path, p in case.model.named_parameters() if p.requires_grad]
    assert any("modules_to_save" in path for path in trained) == case.task.has_head
