"""Generation without padding, for methods that put virtual tokens before a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def generate_unpadded(
    generate: Callable[..., torch.Tensor],
    *,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    **options: Any,
) -> torch.Tensor:
    """As `generate`, rows of one length at a time.

    Padding would stand between the virtual tokens and the text, where training has none.

    Args:
        generate: of a causal LM.
        input_ids: (rows, length), left-padded.
        attention_mask: the same shape, 0 at the padding.
        options: of `generate`; `pad_token_id` among them.

    Returns:
        (rows, length + longest generated text), int64, right-padded.
    """
    lengths = attention_mask.sum(1)
    written: dict[int, torch.Tensor] = {}
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero().flatten()
        whole = generate(
            input_ids=input_ids[rows, -length:],
            attention_mask=attention_mask[rows, -length:],
            **options,
        )
        written |= zip(rows.tolist(), whole[:, length:], strict=True)
    longest = max(len(one) for one in written.values())
    result = input_ids.new_full((len(input_ids), longest), options["pad_token_id"])
    for row, one in written.items():
        result[row, : len(one)] = one
    return torch.cat([input_ids, result], dim=1)
