"""The Triton kernels compile for the GPUs we support, on a machine without one."""

from typing import Any

import pytest

triton = pytest.importorskip("triton")

CAPABILITIES = [80, 86, 89, 90, 100, 120]


def compiled(kernel: Any, signature: dict[str, str], constants: dict[str, Any], arch: int) -> Any:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {name: signature.get(name, "constexpr") for name in kernel.arg_names}
    source = ASTSource(kernel, types, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32))


@pytest.mark.parametrize("arch", CAPABILITIES)
@pytest.mark.parametrize("has_slots", [False, True])
@pytest.mark.parametrize("is_pair", [False, True])
def test_kernels_compile(arch: int, has_slots: bool, is_pair: bool) -> None:
    from propulsion.kernels.scale_by_slot import triton_kernels

    options = {"HAS_SLOTS": has_slots, "IS_PAIR": is_pair, "BLOCK_ROWS": 16, "BLOCK_COLUMNS": 256}
    sizes = dict.fromkeys(("num_rows", "width", "rows_per_group"), "i32")
    forward = {"values": "*bf16", "scales": "*fp32", "result": "*bf16", **sizes}
    backward = {
        **dict.fromkeys(("grad", "values", "grad_values"), "*bf16"),
        **dict.fromkeys(("scales", "partial"), "*fp32"),
        **sizes,
    }
    optional = ["tile_slot", "tile_start", "tile_end", "groups"]
    absent: dict[str, None] = {}
    if has_slots:
        forward["slots"] = "*i64"
        backward.update(dict.fromkeys(optional, "*i64"))
    else:
        absent = dict.fromkeys(optional)
    kernel = compiled(
        triton_kernels._scale_kernel,
        forward,
        options if has_slots else {**options, "slots": None},
        arch,
    )
    assert "cubin" in kernel.asm
    kernel = compiled(
        triton_kernels._backward_kernel,
        backward,
        {
            **options,
            **absent,
            "NEEDS_VALUES": True,
            "NEEDS_SCALES": True,
            "TILE_ROWS": triton_kernels.TILE_ROWS,
        },
        arch,
    )
    assert "cubin" in kernel.asm
