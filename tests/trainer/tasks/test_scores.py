"""Scores of the tasks whose encoding has nothing of its own to test."""

import math

import pytest

from propulsion.errors import ConfigError, DataError
from tests.trainer.tasks.bases import (
    CLASSES,
    SIMILAR,
    TEXTS,
    bert_tokenizer,
    byte_tokenizer,
    llama_config,
    llama_tokenizer,
    make_case,
    t5_tokenizer,
)
from trainer.config.task import (
    AnswerTask,
    ClassificationTask,
    RegressionTask,
    SummarizationTask,
)
from trainer.data.records import Example, LabeledText
from trainer.tasks.build import make_task
from trainer.tasks.rouge import rouge_scores
from trainer.tasks.task import IGNORED, Task


def classification(labels: tuple[str, ...] = ("no", "yes"), **changes: str) -> Task:
    settings = ClassificationTask(type="classification", **changes)
    return make_task(settings, bert_tokenizer(), 32, labels)


def labelled(*labels: int) -> list[LabeledText]:
    return [LabeledText("a text", None, label) for label in labels]


@pytest.mark.parametrize(
    ("kind", "texts", "accuracy"),
    [
        ("text", ["yes", "Yes ", "yes it is"], 2 / 3),
        ("choice", ["I say yes.", "no, yes", "it is yes"], 2 / 3),
        ("number", ["yes", "yes", "yes"], 0.0),
    ],
)
def test_an_answer_is_read_as_the_run_file_says(
    kind: str, texts: list[str], accuracy: float
) -> None:
    task = make_task(AnswerTask(answer=kind), llama_tokenizer(), 32)
    records = [*[Example("q", "yes", "yes")] * 3, Example("q", "no", "no")]
    assert task.score([*texts, "?"], records) == {"accuracy": pytest.approx(accuracy * 3 / 4)}
    assert task.trivial_score(records) == 3 / 4


def test_log_likelihood_is_per_token_and_better_when_higher() -> None:
    task = make_case("causal_lm").task
    scores = task.score([(2.0, 1), (4.0, 3)], TEXTS[:2])
    assert scores == pytest.approx({"log_likelihood": -1.5, "perplexity": math.exp(1.5)})


def test_of_two_classes_f1_is_that_of_the_second() -> None:
    records = labelled(1, 1, 1, 0)
    scores = classification().score(["yes", "yes", "no", "yes"], records)
    assert scores["accuracy"] == 1 / 2
    assert scores["f1"] == pytest.approx(2 / 3)
    assert scores["matthews_corrcoef"] == pytest.approx(-1 / 3)


def test_of_more_classes_f1_is_the_mean() -> None:
    scores = classification(CLASSES).score(["bad", "good", "good"], labelled(0, 1, 2))
    assert scores["f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_the_metric_and_its_trivial_value_are_the_chosen_ones() -> None:
    records = labelled(1, 1, 1, 0)
    assert classification().trivial_score(records) == 3 / 4
    correlation = classification(metric="matthews_corrcoef")
    assert correlation.metric == "matthews_corrcoef"
    assert correlation.trivial_score(records) == 0.0


@pytest.mark.parametrize("labels", [(), ("yes",), ("yes", "yes")])
def test_classes_need_names_of_their_own(labels: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="two classes or more"):
        classification(labels)


@pytest.mark.parametrize("label", [2, -1, 0.5])
def test_a_label_that_is_no_class_is_an_error(label: float) -> None:
    with pytest.raises(DataError, match=f"'a text' has the label {label}"):
        classification().encode(LabeledText("a text", None, label))


def test_the_longer_of_a_pair_is_shortened() -> None:
    record = LabeledText("a cat", "b" * 10 + " " + "c" * 40, 1)
    [row] = classification().encode(record)
    assert len(row) == 32
    first = bert_tokenizer()("a cat")["input_ids"]
    assert row.ids[: len(first)] == tuple(first)
    assert row.token_type_ids == (0,) * 6 + (1,) * 26


def test_a_text_without_tokens_is_an_error() -> None:
    task = make_task(RegressionTask(type="regression"), byte_tokenizer("$A"), 32)
    with pytest.raises(DataError, match="no tokens"):
        task.encode(LabeledText("", None, 1.0))


def test_the_head_of_a_decoder_finds_the_last_token_by_the_padding() -> None:
    options = make_case("classification-llama").task.model_options()
    assert options["pad_token_id"] == 0
    assert options["id2label"] == dict(enumerate(CLASSES))


def test_correlations_and_error_of_numbers() -> None:
    task = make_case("regression").task
    truth = [record.label for record in SIMILAR]
    assert task.score(truth, SIMILAR) == pytest.approx({"pearson": 1, "spearman": 1, "mse": 0})
    squares = task.score([label**3 for label in truth], SIMILAR)
    assert squares["spearman"] == pytest.approx(1.0)
    assert 0.8 < squares["pearson"] < 0.99


def test_a_model_that_always_says_the_same_correlates_with_nothing() -> None:
    scores = make_case("regression").task.score([1.0] * 5, SIMILAR)
    assert scores["pearson"] == scores["spearman"] == 0.0
    assert scores["mse"] > 0


def test_rouge_of_known_texts() -> None:
    scores = rouge_scores(["the cats sat down"], ["the cat sat"])
    assert scores == pytest.approx({"rouge1": 6 / 7, "rouge2": 4 / 5, "rougeLsum": 6 / 7})
    assert rouge_scores(["", "a"], ["a cat", "a"])["rouge1"] == 0.5


def test_rouge_l_compares_sentence_by_sentence_however_they_are_divided() -> None:
    reference = "a dog ran far.\nthe cat sat down."
    turned = "the cat sat down. a dog ran far."
    assert rouge_scores([turned], [reference])["rougeLsum"] == pytest.approx(1.0)
    assert rouge_scores([turned.replace(". ", ".\n")], [reference])["rougeLsum"] == 1.0


def test_source_and_target_of_an_encoder_decoder_have_lengths_of_their_own() -> None:
    settings = SummarizationTask(type="summarization", model="seq2seq", max_target_length=5)
    task = make_task(settings, t5_tokenizer(), 12)
    [row] = task.encode(Example("a long text to sum up", "a summary", "a summary"))
    assert len(row.ids) == 12
    assert row.ids[-1] == 2
    assert len(row.labels) == row.num_terms == 5
    assert row.labels[-1] == 2
    [short] = task.encode(Example("a", "b", "b"))
    batch = task.collate([row, short])
    assert batch["decoder_input_ids"][0].tolist() == [0, *row.labels[:-1]]
    assert batch["decoder_input_ids"][1].tolist() == [0, *short.labels, 0, 0]
    assert batch["labels"][1].tolist() == [*short.labels, IGNORED, IGNORED, IGNORED]


def test_a_base_without_a_decoder_start_is_no_encoder_decoder(tmp_path) -> None:
    from transformers import AutoTokenizer

    llama_tokenizer().save_pretrained(tmp_path)
    llama_config().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    settings = SummarizationTask(type="summarization", model="seq2seq")
    with pytest.raises(ConfigError, match="decoder_start_token_id"):
        make_task(settings, tokenizer, 32)
