import json
from pathlib import Path

import pytest

from propulsion.errors import DataError
from trainer.config import DataSection
from trainer.records import Example, load_examples

TSV = {"format": "tsv", "text": "sentence", "label": "label", "labels": {"0": "bad", "1": "good"}}
COLA = {"format": "tsv", "header": False, "text": 3, "label": 1, "labels": {"0": "no", "1": "yes"}}


def read(path: Path, records: dict[str, object], limit: int | None = None) -> list[Example]:
    data = DataSection(train=path, test=path, records=records, prompt="<{text}>")
    return load_examples(path, data, limit)


def write(folder: Path, content: str) -> Path:
    path = folder / "data"
    path.write_text(content, encoding="utf-8")
    return path


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


def test_tsv_with_header(tmp_path: Path) -> None:
    path = write(tmp_path, 'sentence\tlabel\nit \'s "fine" \t1\nno\t0\n')
    assert read(path, TSV) == [
        Example('<it \'s "fine">', "good", "good"),
        Example("<no>", "bad", "bad"),
    ]


def test_tsv_without_header(tmp_path: Path) -> None:
    assert read(write(tmp_path, "gj04\t0\t*\tHe go.\n"), COLA) == [Example("<He go.>", "no", "no")]


def test_limit_takes_the_first(tmp_path: Path) -> None:
    path = write(tmp_path, "sentence\tlabel\na\t1\nb\t0\nc\t1\n")
    assert [e.prompt for e in read(path, TSV, 2)] == ["<a>", "<b>"]


@pytest.mark.parametrize(
    ("records", "content", "message"),
    [
        (TSV, "sentence\tlabel\na\t1\nb\n", "data:3: has 1 columns"),
        (TSV, "sentence\tlabel\na\t7\n", "data:2: label '7' is not one of '0', '1'"),
        (TSV, "text\tlabel\na\t1\n", "data:1: no column 'sentence'; the header has text, label"),
        (TSV, "sentence\tlabel\n", "data: holds no record"),
        ({"format": "gsm8k"}, '{"question": "q", "answer": "a\\n#### 1"}\n{"qu', "data:2: not va"),
        ({"format": "gsm8k"}, '{"question": "q", "answer": "5"}\n', "data:1: 'answer' does not"),
        ({"format": "gsm8k"}, "\n[1]\n", "data:2: a record must be a JSON object"),
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
    ],
)
def test_malformed_record_is_named_by_file_and_line(
    tmp_path: Path, records: dict[str, object], content: str, message: str
) -> None:
    with pytest.raises(DataError) as error:
        read(write(tmp_path, content), records)
    assert message in str(error.value)


def test_missing_and_binary_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such data file"):
        read(tmp_path / "nowhere", TSV)
    path = tmp_path / "data"
    path.write_bytes(b"sentence\tlabel\n\xff\xfe\t1\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read(path, TSV)
