"""Words, their first tokens and their tags."""

from typing import Any

import pytest

from propulsion.errors import ConfigError, DataError
from tests.trainer.tasks.bases import (
    SENTENCES,
    TAGS,
    bert_tokenizer,
    byte_tokenizer,
    make_case,
)
from trainer.config.task import TokenClassificationTask
from trainer.data.records import TaggedSentence
from trainer.tasks.build import make_task
from trainer.tasks.task import IGNORED, Task


def task(tokenizer: Any = None, max_length: int = 64, tags: tuple[str, ...] = TAGS) -> Task:
    settings = TokenClassificationTask(type="token_classification")
    return make_task(settings, tokenizer or bert_tokenizer(), max_length, tags)


@pytest.mark.parametrize(
    ("tokenizer", "positions"),
    [
        (bert_tokenizer(), [1, 4, 8, 10, 13]),
        # A blank is a token of its own there, and belongs to no word.
        (byte_tokenizer("<s> $A"), [1, 5, 10, 13, 17]),
    ],
    ids=["pieces", "bytes"],
)
def test_the_first_token_of_each_word_bears_its_tag(tokenizer: Any, positions: list[int]) -> None:
    [row] = task(tokenizer).encode(SENTENCES[0])
    labelled = {i: TAGS[label] for i, label in enumerate(row.labels) if label != IGNORED}
    assert labelled == dict(zip(positions, SENTENCES[0].tags, strict=True))
    assert row.num_terms == 5


def test_a_word_with_a_blank_before_it_is_labelled_once() -> None:
    """As tokenizers of RoBERTa and GPT-2, whose tokens begin with the blank before the word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<unk>": 0, "ada": 1, "Ġwent": 2, "Ġto": 3}, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", pad_token="<unk>"
    )
    sentence = TaggedSentence(("ada", "went", "to"), ("B-PER", "O", "B-LOC"))
    [row] = task(tokenizer).encode(sentence)
    assert row.ids == (1, 2, 3)
    assert [TAGS[label] for label in row.labels] == list(sentence.tags)


def test_words_beyond_the_row_are_not_learned_and_count_as_outside() -> None:
    short = task(max_length=9)
    [row] = short.encode(SENTENCES[0])
    assert len(row) == 9
    assert row.num_terms == 2
    case = make_case("token_classification")
    # A model that tags every word as a person.
    case.model.classifier.weight.data.zero_()
    case.model.classifier.bias.data.copy_(case.model.classifier.bias.data.new_tensor([0, 0, 9, 0]))
    predictions = short.predict(case.model, [SENTENCES[0]], batch_size=1)
    assert predictions == [("B-PER", "B-PER", "O", "O", "O")]


def test_a_word_without_tokens_is_not_learned_and_counts_as_outside() -> None:
    case = make_case("token_classification")
    sentence = TaggedSentence(("ada", "", "went"), ("B-PER", "O", "O"))
    [row] = case.task.encode(sentence)
    assert row.num_terms == 2
    [tags] = case.predict([sentence], 1)
    assert len(tags) == 3
    assert tags[1] == "O"


def test_scores_are_of_whole_entities() -> None:
    predictions = [("B-PER", "O", "O", "B-LOC", "O"), ("O",), ("B-PER", "O", "O", "B-LOC")]
    scores = task().score(predictions, SENTENCES)
    # Three of four entities, and "new" alone is not "new york".
    assert scores == pytest.approx(
        {"precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4, "accuracy": 9 / 10}
    )


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        (TaggedSentence(("a", "b"), ("O",)), "'a b' has 2 words, but 1 tags"),
        (TaggedSentence(("a",), ("B-ORG",)), "'B-ORG', which is none of O, B-LOC"),
        (TaggedSentence((), ()), "no tokens"),
    ],
)
def test_a_sentence_that_cannot_be_used_is_an_error(sentence: TaggedSentence, message: str) -> None:
    with pytest.raises(DataError, match=message):
        task().encode(sentence)


def test_tags_are_needed() -> None:
    with pytest.raises(ConfigError, match="two tags or more"):
        task(tags=())


def test_the_head_knows_the_tags() -> None:
    options = task().model_options()
    assert options["num_labels"] == 4
    assert options["id2label"][2] == "B-PER"
