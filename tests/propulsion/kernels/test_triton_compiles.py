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


POINTERS = {
    **dict.fromkeys(("x", "out", "residual", "residual_out", "qkv", "weight", "cos_sin"), "*bf16"),
    "bank": "*fp32",
    "slots": "*i32",
    "positions": "*i64",
    "epsilon": "fp32",
}


@pytest.mark.parametrize("arch", [CAPABILITIES[0], CAPABILITIES[-1]])
@pytest.mark.parametrize("is_pair", [False, True])
def test_serving_kernels_compile(arch: int, is_pair: bool) -> None:
    from propulsion.kernels.scale_act_mul.triton_kernels import _act_mul_kernel
    from propulsion.kernels.scale_add_norm.triton_kernels import _norm_kernel
    from propulsion.kernels.scale_rope.triton_kernels import _rope_kernel
    from propulsion.kernels.triton_rows import _rows_kernel

    norm = {"HAS_BIAS": False, "bias": None, "BLOCK": 4096}
    rope = {"HALF": 64, "REST": 1, "VALUE_BLOCK": 1024}
    cases: list[tuple[Any, dict[str, Any]]] = [
        *((_rows_kernel, {"ACTIVATION": activation, "BLOCK": 1024}) for activation in (-1, 1, 2)),
        (_act_mul_kernel, {"ACTIVATION": 0, "BLOCK": 1024}),
        *((_rope_kernel, {"IS_NEOX": is_neox, **rope}) for is_neox in (True, False)),
        *((_norm_kernel, {"IS_LAYER_NORM": is_layer, **norm}) for is_layer in (True, False)),
    ]
    for kernel, constants in cases:
        constants = {**constants, "IS_PAIR": is_pair}
        signature = {name: POINTERS.get(name, "i32") for name in kernel.arg_names}
        if is_pair:
            signature["negative_slots"] = "*i32"
        else:
            constants["negative_slots"] = None
        for name in constants:
            del signature[name]
        assert "cubin" in compiled(kernel, signature, constants, arch).asm
