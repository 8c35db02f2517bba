"""Windows of a context, and the answers found in them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from propulsion.errors import ConfigError, DataError
from tests.trainer.tasks.bases import (
    CONTEXT,
    QUESTIONS,
    bert_tokenizer,
    byte_tokenizer,
    llama_tokenizer,
    make_case,
)
from trainer.config.task import QuestionAnsweringTask
from trainer.data.records import AnswerSpan, Question
from trainer.tasks.build import make_task
from trainer.tasks.squad import Span, Window, best_span, context_windows
from trainer.tasks.task import Task


def settings(**changes: Any) -> QuestionAnsweringTask:
    chosen = {"doc_stride": 20, "max_query_length": 16, "no_answer": True} | changes
    return QuestionAnsweringTask(type="question_answering", **chosen)


def windows(tokenizer: Any, question: Question, **changes: int) -> list[Window]:
    sizes = {"max_length": 52, "doc_stride": 20, "max_query_length": 16} | changes
    return context_windows(tokenizer, question, **sizes)


def text_of(window: Window, context: str, first: int, last: int) -> str:
    begin, end = window.offsets[first], window.offsets[last]
    assert begin is not None
    assert end is not None
    return context[begin[0] : end[1]].strip()


@pytest.mark.parametrize("tokenizer", [bert_tokenizer(), llama_tokenizer()], ids=["bert", "llama"])
def test_every_character_is_in_a_window_and_neighbours_share_the_stride(tokenizer: Any) -> None:
    cut = windows(tokenizer, QUESTIONS[0])
    assert len(cut) > 2
    assert all(len(window.ids) <= 52 for window in cut)
    covered = [{i for o in window.offsets if o for i in range(*o)} for window in cut]
    letters = {i for i, letter in enumerate(CONTEXT) if letter != " "}
    assert set().union(*covered) >= letters
    shared = set(cut[0].offsets) & set(cut[1].offsets) - {None}
    assert len(shared) == 20


@pytest.mark.parametrize(
    "tokenizer",
    [bert_tokenizer(), llama_tokenizer(), byte_tokenizer("<s> $A", prefix_space=True)],
    ids=["bert", "llama", "blank before a word"],
)
@pytest.mark.parametrize("question", [q for q in QUESTIONS if q.answers], ids=lambda q: q.id)
def test_an_answer_is_marked_in_the_windows_that_hold_it_whole(
    tokenizer: Any, question: Question
) -> None:
    [answer] = question.answers
    marked = []
    for window in windows(tokenizer, question):
        first, last = window.position(answer)
        if (first, last) == (window.null, window.null):
            whole = set(range(answer.start, answer.start + len(answer.text)))
            seen = {i for o in window.offsets if o for i in range(*o)}
            assert not whole - {i for i in whole if question.context[i] == " "} <= seen
        else:
            marked.append(text_of(window, question.context, first, last))
    assert marked
    assert {*marked} == {answer.text}


@given(st.data())
def test_any_span_of_words_is_marked_and_read_back(data: st.DataObject) -> None:
    words = CONTEXT.rstrip(".").split()
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    text = " ".join(words[first : last + 1])
    start = len(" ".join(words[:first])) + (first > 0)
    question = Question("q", "what?", CONTEXT, (AnswerSpan(text, start),))
    [window] = windows(bert_tokenizer(), question, max_length=120)
    position = window.position(question.answers[0])
    assert text_of(window, CONTEXT, *position) == text


def test_a_long_question_loses_its_end() -> None:
    question = Question("q", "why " * 40, CONTEXT, ())
    window = windows(bert_tokenizer(), question)[0]
    assert window.ids[: window.ids.index(2)] == (
        1,
        *bert_tokenizer()("why " * 6)["input_ids"][1:17],
    )


def test_rows_have_no_token_types_which_peft_would_drop() -> None:
    assert "token_type_ids" in bert_tokenizer()("why?", "a cat.")
    task = make_case("question_answering").task
    assert "token_type_ids" not in task.collate(task.encode(QUESTIONS[4]))


def logits(window: Window, **values: float) -> np.ndarray:
    found = np.zeros(len(window.ids), dtype=np.float32)
    for place, value in values.items():
        found[int(place[1:])] = value
    return found


def test_the_best_span_is_in_order_short_enough_and_in_the_context() -> None:
    window = Window((0,) * 6, (None, None, (0, 1), (1, 2), (2, 3), (3, 4)), 0)
    options = {"n_best": 4, "max_answer_length": 2}
    starts, ends = logits(window, _0=99, _4=5, _2=3), logits(window, _1=99, _3=4, _2=2)
    # 4 → 3 is backwards, and 2 → 4 is too long.
    assert best_span(window, starts, ends, **options) == Span(7.0, 0, 2)
    assert best_span(window, starts, ends, n_best=1, max_answer_length=2) is None
    longest = logits(window, _5=9)
    assert best_span(window, starts, longest, **options) == Span(14.0, 2, 4)


def test_a_window_without_context_has_no_span() -> None:
    window = Window((0, 0), (None, None), 0)
    zeros = np.zeros(2, dtype=np.float32)
    assert best_span(window, zeros, zeros, n_best=5, max_answer_length=9) is None


def test_an_empty_context_has_no_answer() -> None:
    case = make_case("question_answering")
    assert case.predict([Question("q", "why?", "", ())], 1) == [""]


@pytest.mark.parametrize(
    ("no_answer", "threshold", "empty"),
    [(True, -1e9, True), (True, 1e9, False), (False, -1e9, False)],
)
def test_no_answer_is_given_above_the_threshold_if_the_task_has_such_questions(
    no_answer: bool, threshold: float, empty: bool
) -> None:
    case = make_case("question_answering")
    case.task.settings.no_answer, case.task.settings.null_threshold = no_answer, threshold
    answers = case.predict(case.records, 4)
    assert [answer == "" for answer in answers] == [empty] * len(case.records)
    assert all(
        answer in record.context for answer, record in zip(answers, case.records, strict=True)
    )


def test_scores_are_those_of_squad_with_and_without_an_answer() -> None:
    task = make_case("question_answering").task
    scores = task.score(["monk", "old red mill", "sea", "", "a cat!"], QUESTIONS)
    # f1: 1, 2/3 + 2/3 harmonic ("old mill" against "old red mill" is 0.8), 0, 1, 1.
    assert scores == pytest.approx(
        {
            "exact": 3 / 5,
            "f1": 3.8 / 5,
            "HasAns_exact": 2 / 4,
            "HasAns_f1": 2.8 / 4,
            "NoAns_exact": 1.0,
            "NoAns_f1": 1.0,
        }
    )
    assert set(task.score(["x", "y"], QUESTIONS[:2])) == {"exact", "f1"}


def test_the_best_of_several_right_answers_counts() -> None:
    record = Question("q", "when?", "in 1900 or so", (AnswerSpan("1900", 3), AnswerSpan("so", 11)))
    assert make_case("question_answering").task.score(["so"], [record])["exact"] == 1.0


def test_never_answering_says_something_only_where_some_have_no_answer() -> None:
    task = make_case("question_answering").task
    assert task.trivial_score(QUESTIONS) == pytest.approx(1 / 5)
    assert task.trivial_score(QUESTIONS[:2]) is None


def test_an_answer_that_is_not_there_is_an_error() -> None:
    record = Question("q7", "who?", CONTEXT, (AnswerSpan("a monk", 5),))
    with pytest.raises(DataError, match=r"'q7'.*'a monk'.*character 5.*'ld mil'"):
        make_case("question_answering").task.encode(record)


@pytest.mark.parametrize("changes", [{"doc_stride": 33}, {"max_query_length": 40}])
def test_windows_without_room_for_progress_are_an_error(changes: dict[str, int]) -> None:
    def task(**some: int) -> Task:
        return make_task(settings(**some), bert_tokenizer(), 52)

    task(doc_stride=32)
    with pytest.raises(ConfigError, match=r"task.doc_stride is .* raise data.max_length"):
        task(**changes)
