"""How many adapters the server's bank keeps in memory: it is allocated, filled and read."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.gpu.shapes import Shape
from propulsion import kernels
from serving.worker.bank import Bank

# The plug-in keeps one more row for each sequence of a batch, since max and min pooling take two.
SEQUENCES = 256


def measure(
    shape: Shape, num_adapters: int, device: str, dtype: torch.dtype, max_num_tokens: int = 8192
) -> dict[str, Any]:
    """A bank of attention adapters (Q, K, V) for every layer, as the vLLM plug-in makes it.

    Args:
        shape: of the model.
        num_adapters: resident at once.
        device: where the bank lies.
        dtype: of its rows.
        max_num_tokens: of a batch.

    Returns:
        `bytes`: on a GPU what the allocator gave, on a CPU the tensors' own; `bytes_per_adapter`;
        `is_last_right`: whether the last adapter's row scales as it should.
    """
    width = shape.projections["qkv"].width
    names = [f"model.layers.{layer}.self_attn.qkv_proj" for layer in range(shape.layers)]
    before = _allocated(device)
    bank = Bank(
        dict.fromkeys(names, width),
        num_adapters + min(num_adapters, SEQUENCES),
        max_num_tokens,
        device,
        dtype,
    )
    tensors = (bank.rows, bank.token_slots, bank.negative_slots)
    used = _allocated(device) - before if device == "cuda" else sum(t.nbytes for t in tensors)
    generator = torch.Generator().manual_seed(0)
    row, last = (
        bank.host_row(torch.randn(bank.width, generator=generator) * 0.1) for _ in range(2)
    )
    for slot in range(1, num_adapters):
        bank.write(slot, row)
    bank.write(num_adapters, last)
    return {
        "model": shape.model,
        "adapters": num_adapters,
        "rows": len(bank.rows),
        "dtype": str(dtype).removeprefix("torch."),
        "bytes": used,
        "bytes_per_adapter": bank.row_bytes,
        "is_last_right": _scales_by(bank, names, num_adapters, last),
    }


def _scales_by(bank: Bank, names: list[str], slot: int, row: torch.Tensor) -> bool:
    """Whether the row scales two tokens of `slot` in every layer, and none of the base."""
    device = bank.rows.device
    slots = torch.tensor([slot, 0, slot], dtype=torch.int32, device=device)
    for name in names:
        columns = bank.columns(name)
        x = torch.randn(3, columns.stop - columns.start, device=device)
        wanted = x * (1 + row[columns].to(device).float() * (slots[:, None] > 0))
        if not torch.allclose(kernels.gather_scale(x, bank.layer(name), slots), wanted):
            return False
    return True


def _allocated(device: str) -> int:
    return torch.cuda.memory_allocated() if device == "cuda" else 0
