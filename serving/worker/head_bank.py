"""The head bank: classifiers of resident adapters, beside the z-bank and with its slots."""

from typing import Any

import numpy as np
import torch

from propulsion.heads import MULTI_LABEL, PROBLEM_TYPES, REGRESSION, SINGLE_LABEL, SavedHead

_RAW = PROBLEM_TYPES.index(REGRESSION)
_SIGMOID = PROBLEM_TYPES.index(MULTI_LABEL)
_SOFTMAX = PROBLEM_TYPES.index(SINGLE_LABEL)
# Numbers of the weights that one product gathers, which bounds its memory to 64 MiB.
_MAX_GATHERED = 1 << 24


class HeadBank:
    """A linear head for each slot, allocated once, padded to the most labels that one may have.

    Slots are those of the z-bank; one whose adapter has no head of its own keeps the base's, as
    slot 0 does. Arithmetic is in fp32.

    Args:
        hidden_size: width of what heads read.
        max_labels: most labels of a head.
        num_slots: of the z-bank.
        device: of the model.

    Attributes:
        weight: (num_slots + 1, max_labels, hidden_size), fp32.
        bias: (num_slots + 1, max_labels), fp32.
    """

    def __init__(
        self, hidden_size: int, max_labels: int, num_slots: int, device: torch.device | str
    ):
        self.max_labels = max_labels
        self.hidden_size = hidden_size
        self.weight = torch.zeros(num_slots + 1, max_labels, hidden_size, device=device)
        self.bias = torch.zeros(num_slots + 1, max_labels, device=device)
        # Of each slot, on the host: 0 labels mean the base's head.
        self._num_labels = np.zeros(num_slots + 1, dtype=np.int64)
        self._problems = np.zeros(num_slots + 1, dtype=np.int64)
        self._request_slots = np.zeros(0, dtype=np.int64)

    def write(self, slot: int, head: SavedHead | None) -> None:
        """Copy a head of at most `max_labels` into a slot; None leaves the slot to the base's."""
        self._num_labels[slot] = 0
        if head is None:
            return
        rows = slice(head.num_labels)
        self.weight[slot, rows].copy_(head.weight)
        self.bias[slot, rows].copy_(torch.zeros(()) if head.bias is None else head.bias)
        self._num_labels[slot] = head.num_labels
        self._problems[slot] = PROBLEM_TYPES.index(head.problem_type)

    def set_request_slots(self, slots: np.ndarray) -> None:
        """Set the slot of each request of the batch, (num_requests,)."""
        self._request_slots = slots

    def answer(self, _: Any, args: tuple[Any, Any], output: Any) -> Any:
        """Forward hook of vLLM's pooler head: puts in the answers of requests with heads.

        Args:
            args: what the head read: a vector (hidden_size,) for each request, or for tokens
                (num_tokens, hidden_size), None while a prompt is not read to its end; and vLLM's
                PoolingMetadata.
            output: what the base's head answered.

        Returns:
            A tensor for each request, as wide as its head has labels.
        """
        pooled, metadata = args
        slots = self._request_slots
        own = [i for i in np.flatnonzero(self._num_labels[slots]) if pooled[i] is not None]
        if not own:
            return output
        raw = [not metadata.pooling_params[i].use_activation for i in own]
        answers = list(output)
        vectors = [pooled[i].reshape(-1, self.hidden_size) for i in own]
        sizes = [len(part) for part in vectors]
        labels = self._num_labels[slots[own]]
        problems = np.where(raw, _RAW, self._problems[slots[own]])
        values = self._values(
            torch.cat(vectors).float(), *(_repeat(x, sizes) for x in (slots[own], labels, problems))
        )
        for i, part, num_labels in zip(own, values.split(sizes), labels.tolist(), strict=True):
            answers[i] = part[:, :num_labels].reshape(*pooled[i].shape[:-1], num_labels)
        return answers

    def _values(
        self, vectors: torch.Tensor, slots: np.ndarray, num_labels: np.ndarray, problems: np.ndarray
    ) -> torch.Tensor:
        """(rows, most labels), fp32: each row's answer, and beyond its labels anything."""
        device, width = self.weight.device, int(num_labels.max())
        chosen, valid, kinds = (
            torch.from_numpy(array).to(device) for array in (slots, num_labels, problems)
        )
        step = max(1, _MAX_GATHERED // (width * self.hidden_size))
        logits = torch.cat(
            [
                torch.baddbmm(
                    self.bias[of, :width, None], self.weight[of, :width], part[:, :, None]
                )[..., 0]
                for part, of in zip(vectors.split(step), chosen.split(step), strict=True)
            ]
        )
        padding = torch.arange(width, device=device) >= valid[:, None]
        softmax = logits.masked_fill(padding, -torch.inf).softmax(-1)
        kinds = kinds[:, None]
        return torch.where(
            kinds == _SOFTMAX, softmax, torch.where(kinds == _SIGMOID, logits.sigmoid(), logits)
        )


def _repeat(values: np.ndarray, sizes: list[int]) -> np.ndarray:
    return np.repeat(values.astype(np.int64), sizes)
