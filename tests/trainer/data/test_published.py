"""Every named data set, on a small file in the layout in which it is published."""

import json
from pathlib import Path
from typing import get_args

import pytest
from datasets import Dataset
from pydantic import TypeAdapter

from propulsion.errors import DataError
from tests.trainer.data.files import lazily, read, section, write, write_lines
from trainer.config.formats import PublishedName, RecordFormat
from trainer.data.published import ALPACA, PUBLISHED, default_degree
from trainer.data.reading import label_names
from trainer.data.records import (
    AnswerSpan,
    Example,
    LabeledText,
    Question,
    Record,
    TaggedSentence,
)

PARSES = "(a)\t(b)\t(A)\t(B)"

GLUE = {
    "cola": (
        "gj04\t1\t\tThe car honked.\ngj04\t0\t*\tCar honk the.\n",
        [LabeledText("The car honked.", None, 1), LabeledText("Car honk the.", None, 0)],
        ("unacceptable", "acceptable"),
        ["yes", "no"],
    ),
    "sst2": (
        "sentence\tlabel\nit 's `` fine '' \t1\ndull \t0\n",
        [LabeledText("it 's `` fine ''", None, 1), LabeledText("dull", None, 0)],
        ("negative", "positive"),
        ["positive", "negative"],
    ),
    "mrpc": (
        '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tHe said "a .\tHe said a .\n',
        [LabeledText('He said "a .', "He said a .", 1)],
        ("not_equivalent", "equivalent"),
        ["yes"],
    ),
    "stsb": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "0\tmain-captions\tMSRvid\t2012test\t0001\tnone\tnone\tA plane.\tAn air plane.\t3.800\n",
        [LabeledText("A plane.", "An air plane.", 3.8)],
        (),
        ["3.800"],
    ),
    "qqp": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
        "1\t2\t3\tWhy?\tHow come?\t1\n4\t5\t6\tcut off\n7\t8\t9\tWho?\tWhen?\t0\n",
        [LabeledText("Why?", "How come?", 1), LabeledText("Who?", "When?", 0)],
        ("not_duplicate", "duplicate"),
        ["yes", "no"],
    ),
    "mnli": (
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
        "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label\n"
        f"0\t3\t3n\tfiction\t{PARSES}\tIt rains.\tIt is wet.\tneutral\tentailment\n"
        f"1\t4\t4n\tfiction\t{PARSES}\tIt rains.\tIt is dry.\tneutral\tcontradiction\n",
        [LabeledText("It rains.", "It is wet.", 0), LabeledText("It rains.", "It is dry.", 2)],
        ("entailment", "neutral", "contradiction"),
        ["yes", "no"],
    ),
    "qnli": (
        "index\tquestion\tsentence\tlabel\n0\tWho?\tHe did.\tentailment\n"
        "1\tWhen?\tHe did.\tnot_entailment\n",
        [LabeledText("Who?", "He did.", 0), LabeledText("When?", "He did.", 1)],
        ("entailment", "not_entailment"),
        ["yes", "no"],
    ),
    "rte": (
        "index\tsentence1\tsentence2\tlabel\n0\tIt rains.\tIt is wet.\tnot_entailment\n",
        [LabeledText("It rains.", "It is wet.", 1)],
        ("entailment", "not_entailment"),
        ["no"],
    ),
}

REASONING = {
    "boolq": ("true/false, question: is it?", "true"),
    "piqa": ("Solution1: a\n\nSolution2: b", "solution1"),
    "siqa": ("Answer1: a Answer2: b Answer3: c", "answer3"),
    "hellaswag": ("Ending1: a Ending2: b Ending3: c Ending4: d", "ending4"),
    "winogrande": ("Option1: a Option2: b", "option2"),
    "arc_easy": ("Answer1: a Answer2: b Answer3: c Answer4: d", "answer1"),
    "arc_challenge": ("Answer1: a Answer2: b Answer3: c Answer4: d", "answer2"),
    "obqa": ("Answer1: a Answer2: b Answer3: c Answer4: d", "answer4"),
    "multiarith": ("How many?", "15.0"),
    "gsm8k": ("How many tiles?", "576.0"),
    "addsub": ("How many crayons?", "4"),
    "singleeq": ("How many hours?", "9.0"),
    "svamp": ("How many are left?", "145.0"),
}

SPAN = AnswerSpan("red", 6)
SQUAD = {
    "title": "t",
    "paragraphs": [
        {
            "context": "It is red.",
            "qas": [
                {
                    "id": "1",
                    "question": "Which?",
                    "answers": [{"text": "red", "answer_start": 6}],
                }
            ],
        }
    ],
}


def named(name: str) -> dict[str, str]:
    return {"format": "published", "name": name}


def published(path: Path, name: str, task: str = "answer") -> list[Record]:
    """With the set's own prompt."""
    return read(path, named(name), task, prompt=None)


def test_every_name_is_known_and_tried_here() -> None:
    others = {"squad", "squad_v2", "xsum", "cnn_dailymail", "conll2003"}
    assert {*get_args(PublishedName)} == {*PUBLISHED} == {*GLUE, *REASONING, *others}


@pytest.mark.parametrize("name", GLUE)
def test_glue(tmp_path: Path, name: str) -> None:
    content, expected, classes, words = GLUE[name]
    path = write(tmp_path, content, "dev.tsv")
    task = "regression" if name == "stsb" else "classification"
    records = lazily(path, named(name), task)
    assert list(records) == expected
    assert label_names(section(path, named(name)), records, task) == classes
    examples = published(path, name)
    assert [example.answer for example in examples] == words
    for example, record in zip(examples, expected, strict=True):
        assert record.text in example.prompt
        assert (record.text_pair or "") in example.prompt
        assert example.prompt.endswith("?\n")
        assert example.target == example.answer


def test_mnli_dev_matched_has_the_gold_label_in_another_column(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
        "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tlabel2\tlabel3\tlabel4\t"
        f"label5\tgold_label\n0\t3\t3n\tfiction\t{PARSES}\tIt rains.\tIt is wet.\t"
        "neutral\tneutral\tneutral\tneutral\tneutral\tentailment\n",
        "dev_matched.tsv",
    )
    assert published(path, "mnli", "classification") == [LabeledText("It rains.", "It is wet.", 0)]


@pytest.mark.parametrize("name", sorted({*GLUE} - {"qqp"}))
def test_a_row_that_is_cut_off_is_an_error_outside_qqp(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, GLUE[name][0] + "0\n", "dev.tsv")
    with pytest.raises(DataError, match=r"dev\.tsv:\d: has 1 columns"):
        published(path, name)


@pytest.mark.parametrize("name", REASONING)
def test_reasoning_sets_in_the_layout_of_llm_adapters(tmp_path: Path, name: str) -> None:
    instruction, answer = REASONING[name]
    output = f"the correct answer is {answer}"
    record = {"instruction": instruction, "input": "", "output": f"\n{output}", "answer": answer}
    path = write(tmp_path, json.dumps([record], indent=4), "test.json")
    assert published(path, name) == [Example(ALPACA.replace("{text}", instruction), output, answer)]
    assert read(path, named(name), chat_template=True, prompt=None)[0].prompt == instruction


def test_gsm8k_is_also_read_as_first_published(tmp_path: Path) -> None:
    path = write_lines(tmp_path, [{"question": "How many?", "answer": "2\n#### 2"}], "test.jsonl")
    assert published(path, "gsm8k") == [
        Example(ALPACA.replace("{text}", "How many?"), "2\n#### 2", "2")
    ]


def test_squad(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps({"version": "1.1", "data": [SQUAD]}), "dev-v1.1.json")
    assert published(path, "squad", "question_answering") == [
        Question("1", "Which?", "It is red.", (SPAN,))
    ]


def test_squad_v2(tmp_path: Path) -> None:
    content = json.loads(json.dumps({"version": "v2.0", "data": [SQUAD]}))
    asked = content["data"][0]["paragraphs"][0]["qas"]
    asked[0]["is_impossible"] = False
    asked.append({"id": "2", "question": "When?", "is_impossible": True, "answers": []})
    path = write(tmp_path, json.dumps(content), "dev-v2.0.json")
    assert [q.answers for q in published(path, "squad_v2", "question_answering")] == [(SPAN,), ()]


@pytest.mark.parametrize(
    ("name", "text", "summary"),
    [("xsum", "document", "summary"), ("cnn_dailymail", "article", "highlights")],
)
def test_summaries_as_json_lines_and_as_parquet(
    tmp_path: Path, name: str, text: str, summary: str
) -> None:
    rows = [{text: "Long.\nText.", summary: "Short.\nSum.", "id": "1"}]
    Dataset.from_list(rows).to_parquet(tmp_path / "parts" / "train-0.parquet")
    for path in (
        write_lines(tmp_path, rows),
        tmp_path / "parts",
        tmp_path / "parts" / "train-0.parquet",
        tmp_path / "parts" / "train-*.parquet",
    ):
        assert published(path, name, "summarization") == [
            Example("Article:\nLong.\nText.\n\nSummary:\n", "Short.\nSum.", "Short.\nSum.")
        ]


def test_conll2003(tmp_path: Path) -> None:
    path = write(tmp_path, "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\n. . O O\n\n", "eng.train")
    assert published(path, "conll2003", "token_classification") == [
        TaggedSentence(("EU", "."), ("I-ORG", "O"))
    ]


def test_degrees_are_the_papers() -> None:
    by_degree = {
        15: {*REASONING, "sst2", "qqp", "rte", "conll2003"},
        20: {"cola", "stsb", "mnli"},
        25: {"cnn_dailymail"},
        35: {"squad", "squad_v2", "xsum"},
        55: {"qnli", "mrpc"},
    }
    form = TypeAdapter(RecordFormat)
    for degree, names in by_degree.items():
        for name in names:
            assert default_degree(form.validate_python(named(name))) == degree
    assert default_degree(form.validate_python({"format": "squad"})) == 35
    assert default_degree(form.validate_python({"format": "instruction"})) == 15
