from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from propulsion.errors import DataError
from tests.trainer.data.files import lazily, read, section, write, write_lines
from trainer.data.reading import label_names, read_records
from trainer.data.records import AnswerSpan, Example, LabeledText, Question, TaggedSentence

CHAT = {"format": "jsonl", "messages": "messages"}
PAIRS = {"text": "a", "text_pair": "b", "label": "c", "labels": {"0": "no", "1": "yes"}}
SPANS = {"question": "question", "context": "context", "answers": "answers", "id": "id"}


def in_every_format(folder: Path, rows: Sequence[dict[str, Any]]) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    table = Dataset.from_list(list(rows))
    table.to_parquet(folder / "data.parquet")
    table.save_to_disk(folder / "saved")
    return {
        "jsonl": write_lines(folder, rows),
        "parquet": folder / "data.parquet",
        "dataset": folder / "saved",
    }


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.fixed_dictionaries({"a": st.text(), "b": st.text(), "c": st.integers(0, 1)}),
        min_size=1,
        max_size=8,
    )
)
def test_every_format_gives_the_same_records(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    paths = in_every_format(tmp_path_factory.mktemp("same"), rows)
    texts = [(row["a"].strip(), row["b"].strip(), row["c"]) for row in rows]
    for name, path in paths.items():
        found = read(path, {"format": name, **PAIRS}, "classification")
        assert found == [LabeledText(*values) for values in texts]
        columns = {"prompt": "a", "target": "b", "answer": "c"}
        found = read(path, {"format": name, **columns})
        assert found == [Example(f"<{a}>", b, str(c)) for a, b, c in texts]


@pytest.mark.parametrize("name", ["jsonl", "parquet", "dataset"])
def test_questions_tags_and_chats_in_every_format(tmp_path: Path, name: str) -> None:
    row = {
        "id": "7",
        "question": "What?",
        "context": "It is red.",
        "answers": {"text": ["red"], "answer_start": [6]},
        "words": ["EU", "rejects"],
        "tags": [1, 0],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": "Bye"},
        ],
    }
    path = in_every_format(tmp_path, [row])[name]
    assert read(path, {"format": name, **SPANS}, "question_answering") == [
        Question("7", "What?", "It is red.", (AnswerSpan("red", 6),))
    ]
    tagged = {"format": name, "tokens": "words", "tags": "tags", "tag_names": ["O", "B-ORG"]}
    assert read(path, tagged, "token_classification") == [
        TaggedSentence(("EU", "rejects"), ("B-ORG", "O"))
    ]
    assert read(path, {"format": name, "messages": "messages"}) == [
        Example(
            "<System: Be brief.\nUser: Hello>",
            "Hi",
            "Hi",
            (("system", "Be brief."), ("user", "Hello")),
        )
    ]


def test_a_single_message_is_the_prompt(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hello "}, {"role": "assistant", "content": "Hi"}]
    assert read(write_lines(tmp_path, [{"messages": turns}]), CHAT) == [
        Example("<Hello>", "Hi", "Hi", (("user", "Hello"),))
    ]


def test_answers_may_be_a_list_and_be_none(tmp_path: Path) -> None:
    rows = [
        {"question": "q", "context": "a b", "answers": [{"text": "b", "answer_start": 2}]},
        {"question": "q", "context": "a b", "answers": []},
    ]
    columns = {key: key for key in ("question", "context", "answers")}
    found = read(write_lines(tmp_path, rows), {"format": "jsonl", **columns}, "question_answering")
    assert [question.answers for question in found] == [(AnswerSpan("b", 2),), ()]
    assert len({question.id for question in found}) == 2


def test_a_data_sets_own_label_names_are_used(tmp_path: Path) -> None:
    features = Features(
        {
            "text": Value("string"),
            "label": ClassLabel(names=["neg", "pos"]),
            "tokens": List(Value("string")),
            "tags": List(ClassLabel(names=["O", "B-PER", "B-LOC"])),
        }
    )
    rows = [{"text": "a", "label": 1, "tokens": ["x"], "tags": [1]}]
    table = Dataset.from_list(rows, features=features)
    DatasetDict(train=table, validation=table).save_to_disk(tmp_path / "set")
    dataset = {"format": "dataset", "test_split": "validation"}
    labeled = {**dataset, "text": "text", "label": "label"}
    found = lazily(tmp_path / "set", labeled, "classification")
    assert list(found) == [LabeledText("a", None, 1)]
    data = section(tmp_path / "set", labeled)
    assert label_names(data, found, "classification") == ("neg", "pos")
    assert read(tmp_path / "set", labeled) == [Example("<a>", "pos", "pos")]
    tagged = {**dataset, "tokens": "tokens", "tags": "tags"}
    found = lazily(tmp_path / "set", tagged, "token_classification")
    assert list(found) == [TaggedSentence(("x",), ("B-PER",))]
    assert label_names(data, found, "token_classification") == ("O", "B-LOC", "B-PER")


def test_the_splits_of_one_data_set_train_and_test(tmp_path: Path) -> None:
    parts = {n: Dataset.from_list([{"a": n, "b": "y"}]) for n in ("fit", "test")}
    DatasetDict(parts).save_to_disk(tmp_path / "set")
    records = {"format": "dataset", "prompt": "a", "target": "b", "train_split": "fit"}
    data = section(tmp_path / "set", records)
    data.test = data.train
    train = read_records(data.train, data, "answer", split="train")
    test = read_records(data.test, data, "answer", split="test")
    assert (train[0].prompt, test[0].prompt) == ("<fit>", "<test>")
    data.records.test_split = "dev"
    with pytest.raises(DataError, match="has no split 'dev'; it has fit, test"):
        read_records(data.test, data, "answer", split="test")


def test_a_folder_of_data_files_is_a_data_set(tmp_path: Path) -> None:
    write_lines(tmp_path, [{"a": "x", "b": "y"}], "train.jsonl")
    write_lines(tmp_path, [{"a": "z", "b": "y"}], "test.jsonl")
    before = sorted(tmp_path.rglob("*"))
    records = {"format": "dataset", "prompt": "a", "target": "b"}
    data = section(tmp_path, records)
    assert read_records(tmp_path, data, "answer", split="train")[0].prompt == "<x>"
    assert read_records(tmp_path, data, "answer", split="test")[0].prompt == "<z>"
    assert sorted(tmp_path.rglob("*")) == before


def test_parquet_parts_are_read_together(tmp_path: Path) -> None:
    for i in range(3):
        part = tmp_path / f"train-{i}.parquet"
        Dataset.from_list([{"a": f"{i}", "b": "y"}]).to_parquet(part)
    records = {"format": "parquet", "prompt": "a", "target": "b"}
    for path in (tmp_path, tmp_path / "train-*.parquet"):
        assert [record.prompt for record in read(path, records)] == ["<0>", "<1>", "<2>"]


@pytest.mark.parametrize(
    ("columns", "task", "row", "message"),
    [
        (PAIRS, "answer", {"a": "x", "b": "y"}, "data.jsonl:2: the record has no 'c'"),
        (PAIRS, "answer", {"a": "x", "b": None, "c": 1}, "data.jsonl:2: 'b' must be text"),
        (PAIRS, "classification", {"a": "", "b": "", "c": -1}, "data.jsonl:2: label '-1' is not"),
        (
            SPANS,
            "question_answering",
            {"id": 1, "question": "q", "context": "c", "answers": {"text": ["c"]}},
            "data.jsonl:2: the record has no 'answer_start'",
        ),
        (
            SPANS,
            "question_answering",
            {"id": 1, "question": "q", "context": "c", "answers": "c"},
            "data.jsonl:2: 'answers' must be a list",
        ),
        (
            {"tokens": "a", "tags": "b"},
            "token_classification",
            {"a": ["x", "y"], "b": ["O"]},
            "data.jsonl:2: 2 tokens, but 1 tags",
        ),
        (
            {"tokens": "a", "tags": "b"},
            "token_classification",
            {"a": ["x"], "b": [3]},
            "data.jsonl:2: tag 3 has no name",
        ),
        (
            {"messages": "m"},
            "answer",
            {"m": [{"role": "user", "content": "x"}]},
            "data.jsonl:2: 'm' has no reply",
        ),
    ],
)
def test_malformed_line_is_named(
    tmp_path: Path, columns: dict[str, Any], task: str, row: dict[str, Any], message: str
) -> None:
    path = write_lines(tmp_path, [row])
    path.write_text("\n" + path.read_text())
    with pytest.raises(DataError) as error:
        read(path, {"format": "jsonl", **columns}, task)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["parquet", "dataset"])
def test_malformed_row_and_missing_column_are_named(tmp_path: Path, name: str) -> None:
    path = in_every_format(tmp_path, [{"a": "x", "b": "y"}, {"a": "x", "b": None}])[name]
    with pytest.raises(DataError, match=f"{path}: row 1: 'b' must be text, found NoneType"):
        read(path, {"format": name, "prompt": "a", "target": "b"})
    with pytest.raises(DataError, match=f"{path}: no column 'c'; the columns are a, b"):
        read(path, {"format": name, "prompt": "a", "target": "c"})


def test_what_is_no_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.parquet: cannot be read as a data set"):
        read(write(tmp_path, "a", "x.parquet"), {"format": "parquet", "prompt": "a", "target": "b"})
    dataset = {"format": "dataset", "prompt": "a", "target": "b"}
    with pytest.raises(DataError, match="nowhere: no such data set folder"):
        read(tmp_path / "nowhere", dataset)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: cannot be read as a data set"):
        read(tmp_path / "empty", dataset)
