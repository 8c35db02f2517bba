"""The interface between the training loop and what is trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from trainer.data.records import Record

IGNORED = -100
"""Label that the loss leaves out, as in transformers."""


@dataclass(frozen=True)
class EncodedRecord:
    """What the model reads of a record, and what the loss compares its output with."""

    ids: tuple[int, ...]
    labels: Any
    """As the task's `collate` and `losses` take it; one per id where `Task.packs` is true."""
    num_terms: int
    """Terms of the loss in it, over which a step takes the mean: 1, or the labelled tokens."""
    token_type_ids: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Scores:
    """What an evaluation found; every score from 0 to 1, or a correlation from -1 to 1."""

    metric: str
    """The score that tells the better adapter; higher is better."""
    values: Mapping[str, float]
    num_records: int
    predictions: tuple[Any, ...] = ()
    """One per record, as text, label or number."""

    @property
    def main(self) -> float:
        return self.values[self.metric]


class Task(ABC):
    """What is learned from a record and how it is judged.

    Args:
        settings: the section `task`.
        tokenizer: of the base.
        max_length: most tokens of a row.
        labels: names of the classes or tags, in the order of their indices.
    """

    peft_type: ClassVar[str]
    """PEFT's task type, which decides the model class and which head is trained."""
    auto_model: ClassVar[str]
    """The class of transformers that loads such a base."""
    packs: ClassVar[bool] = False
    """Whether several records can share a row."""
    has_head: ClassVar[bool] = True
    """Whether a new head is trained beside the adapter, so that the bare base means nothing."""
    metric: str
    """The score that tells the better adapter; higher is better."""

    def __init__(
        self, settings: Any, tokenizer: Any, max_length: int, labels: Sequence[str] = ()
    ) -> None:
        self.settings = settings
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.labels = tuple(labels)

    def model_options(self) -> dict[str, Any]:
        """Options of `from_pretrained` that shape the head, as `num_labels`."""
        return {}

    @abstractmethod
    def encode(self, record: Record) -> Sequence[EncodedRecord]:
        """Rows of a record for training: one, or several where a long record is cut up.

        Raises:
            DataError: the record cannot be used.
        """

    @abstractmethod
    def collate(self, rows: Sequence[EncodedRecord]) -> dict[str, torch.Tensor]:
        """Right-padded inputs of the model, and `labels`, on the CPU."""

    @abstractmethod
    def losses(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """Sum of the loss's terms of each row, shape (rows,), fp32."""

    @abstractmethod
    def predict(
        self,
        model: Any,
        records: Sequence[Record],
        *,
        batch_size: int,
        agree: Callable[[int], int] = lambda number: number,
        synced: bool = False,
    ) -> list[Any]:
        """What the model says of each record.

        Args:
            model: a transformers or PEFT model; calls run under `torch.no_grad` in eval
                mode, which the caller has seen to.
            records: on this rank.
            batch_size: records per call.
            agree: largest value over all ranks; every rank makes that many calls of the model,
                since ZeRO-3 gathers weights in each.
            synced: ranks generate in lockstep (`synced_gpus` of `generate`).
        """

    @abstractmethod
    def score(self, predictions: Sequence[Any], records: Sequence[Record]) -> dict[str, float]:
        """Scores of all predictions, by name."""

    def trivial_score(self, records: Sequence[Record]) -> float | None:
        """`metric` of always giving the most frequent answer; None where that says nothing."""
        return None
