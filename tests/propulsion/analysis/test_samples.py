import json
from pathlib import Path

import pytest

from propulsion.analysis.samples import Sample, draw_samples, read_texts
from propulsion.errors import ConfigError, DataError
from tests.propulsion.analysis.models import SST2


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def lengths(text: str) -> list[int]:
    """As many tokens as words."""
    return [len(word) for word in text.split()]


TEXTS = [(line, "word " * line) for line in range(1, 31)]


def draw(num_samples: int, seed: int = 0, min_tokens: int = 1) -> list[Sample]:
    return draw_samples(
        TEXTS, lengths, num_samples, min_tokens=min_tokens, seed=seed, source=Path("file.txt")
    )


def test_text_has_a_sample_on_each_line_that_is_not_blank(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "one\n\n  two é \n\t\nthree")
    assert read_texts(path) == [(1, "one"), (3, "two é"), (5, "three")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSON"])
def test_json_lines_have_the_sample_in_a_field(tmp_path: Path, name: str) -> None:
    lines = [
        {"text": "one", "other": "1"},
        {"text": " ", "other": "2"},
        {"text": "3", "other": "x"},
    ]
    path = written(tmp_path / name, "\n".join(map(json.dumps, lines)) + "\n\n")
    assert read_texts(path) == [(1, "one"), (3, "3")]
    assert read_texts(path, "other") == [(1, "1"), (2, "2"), (3, "x")]


def test_tsv_has_the_sample_in_a_column_and_no_quoting(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", 'id\tsentence\n1\tsay "no"\n\n2\t"open quote\n3\t\n')
    assert read_texts(path, "sentence") == [(2, 'say "no"'), (4, '"open quote')]


def test_the_shipped_sst2_file_is_read_whole() -> None:
    texts = read_texts(SST2, "sentence")
    assert len(texts) == 400
    assert texts[0] == (2, "that this likable movie is n't more accomplished")


@pytest.mark.parametrize(
    ("name", "content", "column", "message"),
    [
        ("a.txt", " \n\n", None, "holds no sample"),
        ("a.tsv", "sentence\n", "sentence", "holds no sample"),
        ("a.tsv", "", "sentence", "a.tsv:1: no column 'sentence'"),
        ("a.tsv", "text\tlabel\nx\t1\n", "sentence", "the header has 'text', 'label'"),
        ("a.tsv", "id\tsentence\n1\tx\n2\n", "sentence", "a.tsv:3: has 1 columns, .* is column 2"),
        ("a.jsonl", '{"text": "x"}\n{"text": \n', None, "a.jsonl:2: not valid JSON"),
        ("a.jsonl", '{"text": "x"}\n{"txt": "y"}\n', None, "a.jsonl:2: .* text in 'text'"),
        ("a.jsonl", '{"text": 1}\n', None, "a.jsonl:1: .* text in 'text'"),
        ("a.json", '[{"text": "x"}]\n', None, "a.json:1: must be an object"),
    ],
)
def test_malformed_files_are_refused_by_line(
    tmp_path: Path, name: str, content: str, column: str | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_texts(written(tmp_path / name, content), column)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing.txt: cannot be read \(No such file"):
        read_texts(tmp_path / "missing.txt")
    with pytest.raises(DataError, match="cannot be read"):
        read_texts(tmp_path)
    (tmp_path / "latin.txt").write_bytes("é\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.txt: not UTF-8"):
        read_texts(tmp_path / "latin.txt")


def test_a_tsv_needs_a_column_and_text_has_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--column"):
        read_texts(written(tmp_path / "a.tsv", "sentence\nx\n"))
    with pytest.raises(ConfigError, match="--column sentence is for"):
        read_texts(written(tmp_path / "a.txt", "x\n"), "sentence")


def test_samples_are_drawn_by_seed_and_keep_the_order_of_the_file() -> None:
    samples = draw(8)
    lines = [sample.line for sample in samples]
    assert lines == sorted(set(lines))
    assert samples == draw(8)
    assert samples != draw(8, seed=1)
    assert lines != list(range(1, 9))
    assert all(sample.token_ids == (4,) * sample.line for sample in samples)


def test_samples_with_too_few_tokens_are_not_drawn() -> None:
    assert [sample.line for sample in draw(5, min_tokens=26)] == [26, 27, 28, 29, 30]
    with pytest.raises(DataError, match=r"file.txt: holds 5 samples of at least 26 .* 6 are asked"):
        draw(6, min_tokens=26)
