"""How the files of a data set are written: the section `data.records`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainer.config.section import Section

_LABELS = (
    "Label as the data holds it → what it is called, in the order of the class indices. "
    "Classification needs it; without it an `answer` task says the label itself."
)


class InstructionFormat(Section):
    """A JSON list of records with `instruction`, `input`, `output` and `answer`."""

    format: Literal["instruction"]


class Gsm8kFormat(Section):
    """JSON lines with `question` and `answer`; the final number follows `####`."""

    format: Literal["gsm8k"]


class MawpsFormat(Section):
    """A JSON list of records with `original_text`, `equation` and `ans`."""

    format: Literal["mawps"]


class SquadFormat(Section):
    """The nested JSON of SQuAD 1.1 and 2.0."""

    format: Literal["squad"]


class ConllFormat(Section):
    """A token and its tag per line, in the first and last column; sentences end in a blank line."""

    format: Literal["conll"]


class TsvFormat(Section):
    """Tab-separated columns with a label; no quoting, as GLUE publishes them."""

    format: Literal["tsv"]
    header: bool = Field(True, description="Whether the first line names the columns.")
    text: str | int = Field(description="Column of the text: its name, or its index from 0.")
    text_pair: str | int | None = Field(None, description="Column of the second text, if any.")
    label: str | int = Field(description="Column of the label: its name, or its index from 0.")
    labels: dict[str, str] = Field({}, description=_LABELS)
    skip_short_rows: bool = Field(
        False, description="Leave out rows that lack a column, as some of QQP do."
    )

    @model_validator(mode="after")
    def _columns_can_be_found(self) -> TsvFormat:
        columns = [c for c in (self.text, self.text_pair, self.label) if c is not None]
        if not self.header and not all(isinstance(column, int) for column in columns):
            raise ValueError("without a header, `text` and `label` must be column numbers")
        _check_labels(self.labels)
        return self


GROUPS: dict[str, tuple[str, ...]] = {
    "text": ("text", "label"),
    "prompt": ("prompt", "target"),
    "question": ("question", "context", "answers"),
    "tokens": ("tokens", "tags"),
    "messages": ("messages",),
}
"""What makes a record: the key that tells the kind → the keys that kind needs."""

_OPTIONAL = {"text": ("text_pair",), "prompt": ("answer",), "question": ("id",)}


class ColumnsFormat(Section):
    """Which column is what. Give the keys of one kind of record."""

    text: str | None = Field(None, description="Column of a labelled text.")
    text_pair: str | None = Field(None, description="Column of the second text, if any.")
    label: str | None = Field(None, description="Column of the label, or of a number to predict.")
    labels: dict[str, str] = Field({}, description=_LABELS)
    prompt: str | None = Field(None, description="Column of what the model reads.")
    target: str | None = Field(None, description="Column of what it learns to write.")
    answer: str | None = Field(
        None, description="Column of what is right; the target if not given."
    )
    question: str | None = Field(None, description="Column of a question about a context.")
    context: str | None = Field(None, description="Column of the text that holds the answer.")
    answers: str | None = Field(
        None, description="Column of the answers: `text` and `answer_start`, as in SQuAD."
    )
    id: str | None = Field(None, description="Column of the question's id.")
    tokens: str | None = Field(None, description="Column of the words of a sentence.")
    tags: str | None = Field(None, description="Column of a tag for each word.")
    tag_names: list[str] = Field([], description="Names of the tags where the data holds integers.")
    messages: str | None = Field(
        None, description="Column of a chat, `role` and `content` each; the last reply is learned."
    )

    @property
    def kind(self) -> str:
        """The key of `GROUPS` whose record the columns make."""
        return next(kind for kind in GROUPS if getattr(self, kind) is not None)

    @property
    def columns(self) -> dict[str, str]:
        """Key → column, of the keys that are given."""
        keys = (*GROUPS[self.kind], *_OPTIONAL.get(self.kind, ()))
        return {key: getattr(self, key) for key in keys if getattr(self, key) is not None}

    @model_validator(mode="after")
    def _makes_one_kind_of_record(self) -> ColumnsFormat:
        kinds = [kind for kind in GROUPS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(
                f"give the columns of one kind of record, found {', '.join(kinds) or 'none'}: "
                + "; ".join(" + ".join(keys) for keys in GROUPS.values())
            )
        missing = [key for key in GROUPS[kinds[0]] if getattr(self, key) is None]
        if missing:
            raise ValueError(f"`{kinds[0]}` also needs {', '.join(f'`{key}`' for key in missing)}")
        own = {*self.columns, "labels", "tag_names", "format", "config"}
        every = {*sum(GROUPS.values(), ()), *sum(_OPTIONAL.values(), ())}
        foreign = [key for key in sorted(every - own) if getattr(self, key) is not None]
        if foreign:
            raise ValueError(f"`{kinds[0]}` does not go with {', '.join(map(repr, foreign))}")
        _check_labels(self.labels)
        return self


class JsonlFormat(ColumnsFormat):
    """JSON lines, an object each."""

    format: Literal["jsonl"]


class ParquetFormat(ColumnsFormat):
    """A Parquet file, a folder of them, or a pattern such as `train-*.parquet`."""

    format: Literal["parquet"]


class DatasetFormat(ColumnsFormat):
    """A Hugging Face data set: a folder of `save_to_disk` or of data files, or a hub name."""

    format: Literal["dataset"]
    config: str | None = Field(None, description="Name of the data set's configuration.")
    train_split: str = Field("train", description="Split that is trained on.")
    test_split: str = Field("test", description="Split that evaluation uses.")


PublishedName = Literal[
    "cola",
    "sst2",
    "mrpc",
    "stsb",
    "qqp",
    "mnli",
    "qnli",
    "rte",
    "squad",
    "squad_v2",
    "xsum",
    "cnn_dailymail",
    "conll2003",
    "boolq",
    "piqa",
    "siqa",
    "hellaswag",
    "winogrande",
    "arc_easy",
    "arc_challenge",
    "obqa",
    "multiarith",
    "gsm8k",
    "addsub",
    "singleeq",
    "svamp",
]


class PublishedFormat(Section):
    """A data set whose layout, prompt and label words are known by its name."""

    format: Literal["published"]
    name: PublishedName = Field(description="Name of the data set.")


RecordFormat = Annotated[
    InstructionFormat
    | Gsm8kFormat
    | MawpsFormat
    | SquadFormat
    | ConllFormat
    | TsvFormat
    | JsonlFormat
    | ParquetFormat
    | DatasetFormat
    | PublishedFormat,
    Field(discriminator="format"),
]


def _check_labels(labels: dict[str, str]) -> None:
    if len(labels) == 1:
        raise ValueError("`labels` must name at least two labels")
    if len({*labels.values()}) < len(labels):
        raise ValueError("`labels` gives two labels the same name")
