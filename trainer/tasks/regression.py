"""The task `regression`: give a number for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from trainer.data.records import LabeledText
from trainer.tasks.padding import pad_inputs
from trainer.tasks.task import EncodedRecord
from trainer.tasks.texts import TextHeadTask


class Regression(TextHeadTask):
    """A head on the model gives a number; the loss is the squared error (paper, Appendix E)."""

    def __init__(
        self, settings: Any, tokenizer: Any, max_length: int, labels: Sequence[str] = ()
    ) -> None:
        super().__init__(settings, tokenizer, max_length, labels)
        self.metric = settings.metric

    def model_options(self) -> dict[str, Any]:
        return {**super().model_options(), "num_labels": 1, "problem_type": "regression"}

    def encode(self, record: LabeledText) -> Sequence[EncodedRecord]:
        """One row with the number.

        Raises:
            DataError: it has no tokens.
        """
        return [self.row(record, float(record.label))]

    def collate(self, rows: Sequence[EncodedRecord]) -> dict[str, torch.Tensor]:
        """Inputs, each (rows, longest), int64, and `labels`, (rows,), fp32."""
        labels = torch.tensor([row.labels for row in rows], dtype=torch.float32)
        return {**pad_inputs(rows, self.tokenizer.pad_token_id), "labels": labels}

    def losses(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """Squared error of each row, (rows,), fp32."""
        return (outputs.logits.float().squeeze(-1) - labels.float()).square()

    def predict(
        self,
        model: Any,
        records: Sequence[LabeledText],
        *,
        batch_size: int,
        agree: Callable[[int], int] = lambda number: number,
        synced: bool = False,
    ) -> list[float]:
        """The model's number for each record."""
        found: list[float] = self.logits(model, records, batch_size, agree).flatten().tolist()
        return found

    def score(
        self, predictions: Sequence[float], records: Sequence[LabeledText]
    ) -> dict[str, float]:
        """`pearson` and `spearman` correlation and `mse`, the mean squared error.

        A correlation with numbers that are all the same counts as 0.
        """
        from scipy.stats import pearsonr, spearmanr
        from sklearn.metrics import mean_squared_error

        truth = [float(record.label) for record in records]
        found = list(predictions)
        varied = len({*truth}) > 1 and len({*found}) > 1
        return {
            "pearson": float(pearsonr(found, truth)[0]) if varied else 0.0,
            "spearman": float(spearmanr(found, truth)[0]) if varied else 0.0,
            "mse": float(mean_squared_error(truth, found)),
        }
