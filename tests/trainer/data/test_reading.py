import json
from pathlib import Path
from typing import Any

import pytest

from propulsion.errors import ConfigError, DataError
from tests.trainer.data.files import lazily, read, section, write, write_lines
from trainer.data.reading import label_names, read_records
from trainer.data.records import AnswerSpan, Example, LabeledText, Question, TaggedSentence

TSV = {"format": "tsv", "text": "sentence", "label": "label", "labels": {"0": "bad", "1": "good"}}
COLA = {"format": "tsv", "header": False, "text": 3, "label": 1, "labels": {"0": "no", "1": "yes"}}
PAIRS = {"format": "tsv", "text": "a", "text_pair": "b", "label": "score"}
EXAMPLES = Path(__file__).parents[3] / "examples" / "data"


def squad(*asked: dict[str, Any], context: str = "It is red.") -> str:
    paragraph = {"context": context, "qas": asked}
    return json.dumps({"version": "1", "data": [{"title": "t", "paragraphs": [paragraph]}]})


def test_instruction_list(tmp_path: Path) -> None:
    records = [
        {"instruction": "Is it?\n", "input": "", "output": "it is true", "answer": "true"},
        {"instruction": "Add", "input": "1 2", "output": "so 3", "answer": 3},
    ]
    assert read(write(tmp_path, json.dumps(records, indent=1)), {"format": "instruction"}) == [
        Example("<Is it?>", "it is true", "true"),
        Example("<Add\n1 2>", "so 3", "3"),
    ]


def test_gsm8k_lines(tmp_path: Path) -> None:
    line = json.dumps({"question": "How many?", "answer": "2+3 = <<2+3=5>>5\n#### 1,005"})
    assert read(write(tmp_path, f"{line}\n\n"), {"format": "gsm8k"}) == [
        Example("<How many?>", "2+3 = <<2+3=5>>5\n#### 1,005", "1,005")
    ]


def test_mawps_list_with_numbers_and_with_text_for_answers(tmp_path: Path) -> None:
    records = [
        {"id": 1, "original_text": "How many ?", "equation": "x=3*6", "ans": 18.0},
        {"id": 2, "original_text": "And now ?", "equation": "x=1/8", "ans": "0.125"},
    ]
    assert read(write(tmp_path, json.dumps(records)), {"format": "mawps"}) == [
        Example("<How many ?>", "x=3*6\nThe answer is 18.", "18"),
        Example("<And now ?>", "x=1/8\nThe answer is 0.125.", "0.125"),
    ]


def test_tsv_with_header(tmp_path: Path) -> None:
    path = write(tmp_path, 'sentence\tlabel\nit \'s "fine" \t1\nno\t0\n')
    assert read(path, TSV) == [
        Example('<it \'s "fine">', "good", "good"),
        Example("<no>", "bad", "bad"),
    ]


def test_tsv_without_header(tmp_path: Path) -> None:
    assert read(write(tmp_path, "gj04\t0\t*\tHe go.\n"), COLA) == [Example("<He go.>", "no", "no")]


def test_tsv_of_pairs_for_each_task(tmp_path: Path) -> None:
    path = write(tmp_path, "a\tb\tscore\nred\tblue\t2.5\n")
    assert read(path, PAIRS, "regression") == [LabeledText("red", "blue", 2.5)]
    assert read(path, PAIRS) == [Example("<red\nblue>", "2.5", "2.5")]
    assert read(path, PAIRS, prompt="{text_pair}|{text}") == [Example("blue|red", "2.5", "2.5")]
    labels = {"1.0": "low", "2.5": "high"}
    assert read(path, {**PAIRS, "labels": labels}, "classification") == [
        LabeledText("red", "blue", 1)
    ]


def test_a_text_that_spells_a_placeholder_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "a\tb\tscore\n{text_pair}\t{text}\tyes\n")
    found = read(path, PAIRS, prompt="{text}|{text_pair}")
    assert found == [Example("{text_pair}|{text}", "yes", "yes")]


def test_limit_takes_the_first(tmp_path: Path) -> None:
    path = write(tmp_path, "sentence\tlabel\na\t1\n\nb\t0\nc\t1\n")
    assert [e.prompt for e in read(path, TSV, limit=2)] == ["<a>", "<b>"]
    records = lazily(path, TSV)
    assert records[-1] == Example("<c>", "good", "good")
    assert list(records[1:]) == [records[1], records[2]]
    with pytest.raises(IndexError):
        records[3]


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_data(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes("\ufeffsentence\tlabel\r\na\t1\r\n".encode())
    assert read(path, TSV) == [Example("<a>", "good", "good")]
    record = [{"instruction": "a", "output": "b", "answer": "c"}]
    path.write_bytes(("\ufeff" + json.dumps(record)).encode())
    assert read(path, {"format": "instruction"}) == [Example("<a>", "b", "c")]


def test_squad_with_and_without_answers(tmp_path: Path) -> None:
    answer = {"text": "red", "answer_start": 6}
    content = squad(
        {"id": "1", "question": " Which colour?", "answers": [answer, answer]},
        {"id": "2", "question": "When?", "is_impossible": True, "answers": []},
        {
            "id": "3",
            "question": "Who?",
            "is_impossible": True,
            "plausible_answers": [answer],
            "answers": [],
        },
    )
    span = AnswerSpan("red", 6)
    assert read(write(tmp_path, content), {"format": "squad"}, "question_answering") == [
        Question("1", "Which colour?", "It is red.", (span, span)),
        Question("2", "When?", "It is red.", ()),
        Question("3", "Who?", "It is red.", ()),
    ]


def test_conll_sentences(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\nPeter NNP B-NP B-PER\n",
    )
    sentences = read(path, {"format": "conll"}, "token_classification")
    assert sentences == [
        TaggedSentence(("EU", "rejects"), ("B-ORG", "O")),
        TaggedSentence(("Peter",), ("B-PER",)),
    ]
    data = section(path, {"format": "conll"})
    assert label_names(data, sentences, "token_classification") == ("O", "B-ORG", "B-PER")


def test_classes_keep_the_order_of_the_run_file(tmp_path: Path) -> None:
    path = write(tmp_path, "sentence\tlabel\na\t1\nb\t0\n")
    records = {**TSV, "labels": {"1": "zebra", "0": "ant"}}
    found = lazily(path, records, "classification")
    assert [record.label for record in found] == [0, 1]
    for those in (found, found[1:], list(found)):
        names = label_names(section(path, records), those, "classification")
        assert names == ("zebra", "ant")
    assert label_names(section(path, records), found, "answer") == ()


def test_the_shipped_samples_are_read_as_they_are() -> None:
    sst2 = lazily(EXAMPLES / "sst2" / "test.tsv", {"format": "published", "name": "sst2"})
    assert len(sst2) == 400
    assert sum(record.answer == "positive" for record in sst2) == 200
    boolq = read(
        EXAMPLES / "boolq" / "test.json", {"format": "published", "name": "boolq"}, prompt=None
    )
    assert len(boolq) == 400
    assert {record.answer for record in boolq} == {"true", "false"}
    assert boolq[0].prompt.endswith("Answer format: true/false\n\n### Response:\n")


@pytest.mark.parametrize(
    ("records", "content", "message"),
    [
        (TSV, "sentence\tlabel\na\t1\nb\n", "data:3: has 1 columns"),
        (TSV, "sentence\tlabel\na\t7\n", "data:2: label '7' is not one of '0', '1'"),
        (TSV, "text\tlabel\na\t1\n", "data:1: no column 'sentence'; the header has text, label"),
        (TSV, "sentence\tlabel\n", "data: holds no record"),
        (TSV, "", "data: holds no record"),
        ({"format": "gsm8k"}, '{"question": "q", "answer": "a\\n#### 1"}\n{"qu', "data:2: not va"),
        ({"format": "gsm8k"}, '{"question": "q", "answer": "5"}\n', "data:1: 'answer' does not"),
        ({"format": "gsm8k"}, "\n[1]\n", "data:2: a record must be a JSON object"),
        ({"format": "gsm8k"}, "\n\n", "data: holds no record"),
        ({"format": "instruction"}, "{}", "data:1: must hold a JSON list"),
        ({"format": "instruction"}, "", "data:1: must hold a JSON list"),
        ({"format": "instruction"}, "[]", "data: holds no record"),
        ({"format": "instruction"}, '[\n{"instruction": "a"}\n]', "data:2: the record has no 'ou"),
        (
            {"format": "instruction"},
            '[\n{"instruction": "a", "output": "b", "answer": "c"},\n\n{"instruction": []}]',
            "data:4: 'instruction' must be text",
        ),
        ({"format": "instruction"}, '[\n{"instruction": "a"', "data:2: not valid JSON"),
        ({"format": "mawps"}, '[{"original_text": "q", "ans": 1}]', "data:1: the record has no 'e"),
    ],
)
def test_malformed_record_is_named_by_file_and_line(
    tmp_path: Path, records: dict[str, object], content: str, message: str
) -> None:
    with pytest.raises(DataError) as error:
        read(write(tmp_path, content), records)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{\n", "data:2: not valid JSON"),
        ("{}", "data: the record has no 'data'"),
        (squad({"id": "1", "answers": []}), r"data[0].paragraphs[0].qas[0]: the record has no 'qu"),
        (squad({"id": "1", "question": "q"}), "the record has no 'answers'"),
        (
            squad({"id": "1", "question": "q", "answers": [{"text": "red", "answer_start": 5}]}),
            "the answer 'red' does not stand at character 5 of the context; there is ' re'",
        ),
        (squad(), "data: holds no record"),
    ],
)
def test_malformed_squad_is_named_by_place(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        read(write(tmp_path, content), {"format": "squad"}, "question_answering")
    assert message in str(error.value)


def test_a_token_without_tag_is_named_by_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data:2: 'b' has no tag"):
        read(write(tmp_path, "a O\nb\n"), {"format": "conll"}, "token_classification")


@pytest.mark.parametrize("label", ["good", "nan", ""])
def test_regression_refuses_what_is_no_number(tmp_path: Path, label: str) -> None:
    path = write(tmp_path, f"sentence\tlabel\na\t1\nb\t{label}\n")
    with pytest.raises(DataError, match=f"data:3: label '{label}' is not a number"):
        read(path, TSV, "regression")


@pytest.mark.parametrize(
    "records", [TSV, {"format": "instruction"}, {"format": "parquet", "prompt": "a", "target": "b"}]
)
def test_missing_file_and_folder_are_named(tmp_path: Path, records: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="nowhere: no such data file"):
        read(tmp_path / "nowhere", records)
    with pytest.raises(DataError, match=f"{tmp_path}: (a folder|no such)"):
        read(tmp_path, records)


@pytest.mark.parametrize("records", [TSV, {"format": "instruction"}])
def test_binary_file_is_named(tmp_path: Path, records: dict[str, Any]) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"sentence\tlabel\n\xff\xfe\t1\n")
    with pytest.raises(DataError, match="data: not UTF-8"):
        read(path, records)


@pytest.mark.parametrize(
    ("records", "task"),
    [
        ({"format": "instruction"}, "classification"),
        ({"format": "squad"}, "answer"),
        ({"format": "conll"}, "question_answering"),
        ({"format": "jsonl", "prompt": "a", "target": "b"}, "regression"),
        ({"format": "published", "name": "squad"}, "summarization"),
        (TSV, "token_classification"),
    ],
)
def test_data_that_do_not_fit_the_task_are_refused(
    tmp_path: Path, records: dict[str, Any], task: str
) -> None:
    with pytest.raises(ConfigError, match=f"cannot train a task of type '{task}'"):
        read(tmp_path / "unread", records, task)


def test_settings_that_lack_what_the_task_needs_are_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path, [{"a": "x", "b": "1"}])
    with pytest.raises(ConfigError, match=r"data\.records\.labels"):
        read(path, {"format": "jsonl", "text": "a", "label": "b"}, "classification")
    with pytest.raises(ConfigError, match="names no text_pair"):
        read(path, {"format": "jsonl", "text": "a", "label": "b"}, prompt="{text} {text_pair}")
    with pytest.raises(ConfigError, match="no such type 'guess'"):
        read_records(path, section(path, TSV), "guess")
