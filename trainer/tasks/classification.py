"""The task `classification`: choose one of several classes for a text or a pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from propulsion.errors import ConfigError, DataError
from trainer.data.records import LabeledText
from trainer.tasks.padding import pad_inputs
from trainer.tasks.task import EncodedRecord
from trainer.tasks.texts import TextHeadTask


class Classification(TextHeadTask):
    """A head on the model chooses one of several classes for a text or a pair of texts.

    Raises:
        ConfigError: there are fewer than two classes, or two of the same name.
    """

    def __init__(
        self, settings: Any, tokenizer: Any, max_length: int, labels: Sequence[str] = ()
    ) -> None:
        super().__init__(settings, tokenizer, max_length, labels)
        if len(self.labels) < 2 or len({*self.labels}) < len(self.labels):
            raise ConfigError(
                "task.type classification needs two classes or more, each with a name of its own, "
                f"got {list(self.labels)}: see `labels` in data.records"
            )
        self.metric = settings.metric

    def model_options(self) -> dict[str, Any]:
        names = dict(enumerate(self.labels))
        return {
            **super().model_options(),
            "num_labels": len(names),
            "id2label": names,
            "label2id": {name: index for index, name in names.items()},
            "problem_type": "single_label_classification",
        }

    def encode(self, record: LabeledText) -> Sequence[EncodedRecord]:
        """One row with the index of the class.

        Raises:
            DataError: it has no tokens, or its label is none of the classes.
        """
        if record.label not in range(len(self.labels)):
            raise DataError(
                f"the record {record.text[:60]!r} has the label {record.label}, but there are "
                f"{len(self.labels)} classes, counted from 0: correct it or add the class"
            )
        return [self.row(record, int(record.label))]

    def collate(self, rows: Sequence[EncodedRecord]) -> dict[str, torch.Tensor]:
        """Inputs, each (rows, longest), and `labels`, (rows,), int64."""
        labels = torch.tensor([row.labels for row in rows], dtype=torch.long)
        return {**pad_inputs(rows, self.tokenizer.pad_token_id), "labels": labels}

    def losses(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """Cross entropy of each row, (rows,), fp32."""
        return cross_entropy(outputs.logits.float(), labels, reduction="none")

    def predict(
        self,
        model: Any,
        records: Sequence[LabeledText],
        *,
        batch_size: int,
        agree: Callable[[int], int] = lambda number: number,
        synced: bool = False,
    ) -> list[str]:
        """The name of the likeliest class of each record."""
        logits = self.logits(model, records, batch_size, agree)
        return [self.labels[index] for index in logits.argmax(-1).tolist()]

    def score(self, predictions: Sequence[str], records: Sequence[LabeledText]) -> dict[str, float]:
        """`accuracy`, `f1` (of the second of two classes, else macro) and `matthews_corrcoef`."""
        from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

        truth = [self.labels[int(record.label)] for record in records]
        found = list(predictions)
        if len(self.labels) == 2:
            f1 = f1_score(truth, found, pos_label=self.labels[1], zero_division=0.0)
        else:
            f1 = f1_score(truth, found, average="macro", zero_division=0.0)
        return {
            "accuracy": float(accuracy_score(truth, found)),
            "f1": float(f1),
            "matthews_corrcoef": float(matthews_corrcoef(truth, found)),
        }

    def trivial_score(self, records: Sequence[LabeledText]) -> float:
        """`metric` of always choosing the most frequent class."""
        [(label, _)] = Counter(int(record.label) for record in records).most_common(1)
        return self.score([self.labels[label]] * len(records), records)[self.metric]
