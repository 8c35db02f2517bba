"""Every kernel on random data against its fp32 reference in torch, on the device.

    python -m benchmarks.gpu.correctness --tokens 5 --widths 64 51

By itself it says what is wrong, if anything, in few and small launches: for compute-sanitizer.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from propulsion.kernels.gather_scale import reference as gather_scale
from propulsion.kernels.scale_act_mul import reference as scale_act_mul
from propulsion.kernels.scale_add_norm import reference as scale_add_norm
from propulsion.kernels.scale_by_slot import reference as scale_by_slot
from propulsion.kernels.scale_by_slot import tiled
from propulsion.kernels.scale_gelu import reference as scale_gelu
from propulsion.kernels.scale_rope import reference as scale_rope

# Of the largest value; 16 bits may be rounded either way.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}
# Widths with whole vectors, and without.
WIDTHS = (4096, 4100, 1003)


def check_all(device: str, tokens: int, widths: tuple[int, ...] = WIDTHS) -> list[dict[str, Any]]:
    """A row for each kernel, dtype and width: the largest error, in shares of the largest value."""
    rows = []
    for dtype, tolerance in TOLERANCE.items():
        for width in widths:
            for kernel, (got, wanted) in _results(device, tokens, width, dtype).items():
                error = max(_error(a, b) for a, b in zip(got, wanted, strict=True))
                limit = 1e-5 if kernel == "scale_by_slot, sums" else tolerance
                rows.append(
                    {
                        "kernel": kernel,
                        "dtype": str(dtype).removeprefix("torch."),
                        "width": width,
                        "error": error,
                        "limit": limit,
                        "is_right": error <= limit,
                    }
                )
    return rows


def _error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    scale = wanted.float().abs().max().clamp_min(1.0)
    return ((got.float() - wanted.float()).abs().max() / scale).item()


def _results(
    device: str, tokens: int, width: int, dtype: torch.dtype
) -> dict[str, tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """By kernel: what it computes, and what it should."""
    generator = torch.Generator(device).manual_seed(width)

    def random(*shape: int, of: torch.dtype = dtype) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device).to(of)

    bank = random(9, 2 * width, of=torch.float32) * 0.3
    bank[0] = 0
    slots, negative = torch.randint(
        -1, 9, (2, tokens), generator=generator, device=device, dtype=torch.int32
    )
    x, residual, wide = random(tokens, width), random(tokens, width), random(tokens, 2 * width)
    weight, bias = random(2, width)
    head, rotary = (64, 48) if width >= 1024 else (16, 12)
    heads = width // head // 2
    angles = random(tokens, rotary // 2, of=torch.float32)
    cos_sin = torch.cat((angles.cos(), angles.sin()), 1).to(dtype)
    rope = (torch.arange(tokens, device=device), cos_sin, heads, head)
    narrow = (bank[:, :width], slots, negative)
    norm = (*narrow, weight, bias, 1e-5)
    serving = {
        "gather_scale": (gather_scale, "gather_scale", (x, *narrow)),
        "scale_gelu": (scale_gelu, "scale_gelu", (x, *narrow, 2)),
        "scale_act_mul": (scale_act_mul, "scale_act_mul", (wide, bank, slots, negative, 0)),
        "scale_rope, NeoX": (scale_rope, "scale_rope", (x, *narrow, *rope, True)),
        "scale_rope, GPT-J": (scale_rope, "scale_rope", (x, *narrow, *rope, False)),
        "scale_add_norm, RMS": (scale_add_norm, "scale_add_norm", (x, residual, *norm, False)),
        "scale_add_norm, layer": (scale_add_norm, "scale_add_norm", (x, residual, *norm, True)),
    }
    results = {
        label: (
            _listed(getattr(torch.ops.propulsion, name)(*arguments)),
            _listed(getattr(module, name)(*arguments)),
        )
        for label, (module, name, arguments) in serving.items()
    }
    scales, groups = torch.rand(9, 2, width, device=device) + 0.5, slots.clamp_min(0).long()
    got = tiled.scale_backward(residual, x, scales, groups)
    wanted = scale_by_slot.scale_backward(residual, x, scales, groups)
    results["scale_by_slot, gradient"] = _listed(got[0]), _listed(wanted[0])
    results["scale_by_slot, sums"] = _listed(got[1]), _listed(wanted[1])
    return results


def _listed(result: Any) -> list[torch.Tensor]:
    return list(result) if isinstance(result, tuple | list) else [result]


def main() -> None:
    """Exit with 1 where a kernel is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS))
    args = parser.parse_args()
    with torch.inference_mode():
        rows = check_all(args.device, args.tokens, tuple(args.widths))
    wrong = [row for row in rows if not row["is_right"]]
    print(*wrong, f"{len(rows) - len(wrong)} of {len(rows)} are right", sep="\n")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
