import pytest

from trainer.tasks.answers import extract_answer, is_correct, majority_accuracy


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        (" the correct answer is Answer3.", "choice", "answer3"),
        ("answer33 or answer3", "choice", "answer3"),
        ("none of them", "choice", None),
        ("so 3 + 4 = 1,007.50 in all", "number", "1007.50"),
        ("it is -4.", "number", "-4"),
        ("no digits", "number", None),
        ("  Paris \n", "text", "Paris"),
        (" ", "text", None),
    ],
)
def test_extraction(text: str, kind: str, expected: str | None) -> None:
    assert extract_answer(text, kind, ["answer3", "answer1"]) == expected


@pytest.mark.parametrize(
    ("extracted", "answer", "kind", "correct"),
    [
        ("7", "7.0", "number", True),
        ("7.01", "7", "number", False),
        ("1007", "1,007", "number", True),
        ("7", "seven", "number", False),
        ("TRUE", "true", "choice", True),
        ("true", "false", "choice", False),
        (None, "true", "choice", False),
    ],
)
def test_exact_match(extracted: str | None, answer: str, kind: str, correct: bool) -> None:
    assert is_correct(extracted, answer, kind) is correct


def test_majority_is_the_share_of_the_most_frequent_answer() -> None:
    assert majority_accuracy(["yes", "no", "Yes ", "yes"]) == 0.75
