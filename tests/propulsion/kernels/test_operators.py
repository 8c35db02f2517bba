"""The operators as torch sees them: schemas, fakes, tracing, choice of implementation."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from propulsion import kernels
from propulsion.kernels.catalogue import KERNELS
from propulsion.kernels.gather_scale.operator import KERNEL as GATHER_SCALE
from propulsion.kernels.scale_by_slot.tiles import tiles_by_slot

TOKENS, WIDTH = 3, 16


def arguments(name: str, tokens: int = TOKENS, dtype: torch.dtype = torch.float32) -> tuple:
    """Arguments that fit an operator."""
    x, wide = torch.randn(tokens, WIDTH).to(dtype), torch.randn(tokens, 2 * WIDTH).to(dtype)
    bank, wide_bank = torch.randn(4, WIDTH), torch.randn(4, 2 * WIDTH)
    bank[0] = wide_bank[0] = 0
    slots = torch.arange(tokens, dtype=torch.int32) - 1
    negative = slots.flip(0).contiguous()
    weight, bias = torch.randn(2, WIDTH).to(dtype)
    cos_sin, positions = torch.randn(9, 4).to(dtype), torch.arange(tokens)
    groups = torch.arange(tokens) % 2
    tiles = tiles_by_slot(tokens, groups, 4) if tokens else None
    of_tiles = (tiles.slot, tiles.start, tiles.end, tiles.groups) if tiles else (None,) * 4
    return {
        "gather_scale": (x, bank, slots, negative),
        "scale_gelu": (x, bank, slots, None, 2),
        "scale_act_mul": (wide, wide_bank, slots, negative, 0),
        "scale_act_mul_out": (wide, wide_bank, slots, None, 1, torch.empty_like(x)),
        "scale_rope": (x, bank, slots, negative, positions, cos_sin, 2, 6, True),
        "scale_add_norm": (x, x.clone(), bank, slots, None, weight, bias, 1e-5, False),
        "scale_by_slot": (x, bank[:, None].contiguous(), groups),
        "scale_by_slot_tiles": (
            *(x.clone(), x, torch.randn(4, 2, WIDTH), *of_tiles),
            *(tiles.slot.shape[0] if tiles else 0, True, True),
        ),
    }[name.removesuffix("_")]


OPERATORS = [operator.name for kernel in KERNELS for operator in kernel.operators]
every_operator = pytest.mark.parametrize("name", OPERATORS)


@every_operator
@pytest.mark.parametrize("tokens", [TOKENS, 0])
def test_torch_finds_nothing_wrong_with_the_registration(name: str, tokens: int) -> None:
    torch.library.opcheck(getattr(torch.ops.propulsion, name).default, arguments(name, tokens))


@every_operator
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fakes_have_the_dtype_and_shape_of_the_real_thing(name: str, dtype: torch.dtype) -> None:
    given = arguments(name, dtype=dtype)
    with torch._subclasses.FakeTensorMode() as mode:
        fakes = [mode.from_tensor(v) if isinstance(v, torch.Tensor) else v for v in given]
        fake = getattr(torch.ops.propulsion, name)(*fakes)
    real = getattr(torch.ops.propulsion, name)(*given)
    pairs = zip(fake, real, strict=True) if isinstance(real, tuple | list) else [(fake, real)]
    for one, other in pairs:
        assert (one is None) == (other is None)
        if other is not None:
            assert (one.shape, one.dtype, one.stride()) == (
                *(other.shape, other.dtype),
                other.stride(),
            )


def layer(x: torch.Tensor, bank: torch.Tensor, slots: torch.Tensor, weight: torch.Tensor) -> Any:
    """Every serving kernel after another, in place where there is a form in place."""
    half = WIDTH // 2
    x = x.clone()
    kernels.gather_scale_(x, bank, slots)
    positions = torch.arange(x.shape[0])
    cos_sin = torch.ones(8, 4)
    kernels.scale_rope_(
        x, bank, slots, positions, cos_sin, slots, num_heads=1, num_kv_heads=1, head_size=6
    )
    kernels.scale_gelu_(x, bank, slots)
    y = kernels.scale_act_mul(torch.cat((x, x), 1), torch.cat((bank, bank), 1), slots)
    residual = x + 1
    normed, residual = kernels.scale_add_norm_(y, residual, bank, slots, weight)
    return normed[:, :half], residual


def test_a_compiled_layer_is_the_same() -> None:
    x, bank, _, _ = arguments("gather_scale")
    slots, weight = torch.tensor([0, 2, 3], dtype=torch.int32), torch.rand(WIDTH)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        compiled(x, bank, slots, weight), layer(x, bank, slots, weight), rtol=0, atol=1e-6
    )


def test_functional_forms_are_those_in_place() -> None:
    x, bank, slots, negative = arguments("gather_scale")
    qkv = {"num_heads": 1, "num_kv_heads": 1, "head_size": 6}
    rope = (torch.arange(TOKENS), torch.randn(9, 4), negative)
    weight, out = torch.rand(WIDTH), torch.empty(TOKENS, WIDTH // 2)
    equal = torch.testing.assert_close
    equal(kernels.gather_scale(x, bank, slots), kernels.gather_scale_(x.clone(), bank, slots))
    equal(kernels.scale_gelu(x, bank, slots), kernels.scale_gelu_(x.clone(), bank, slots))
    equal(
        kernels.scale_rope(x, bank, slots, *rope, **qkv),
        kernels.scale_rope_(x.clone(), bank, slots, *rope, **qkv),
    )
    equal(
        kernels.scale_add_norm(x, x, bank, slots, weight, norm="layer"),
        kernels.scale_add_norm_(x.clone(), x.clone(), bank, slots, weight, norm="layer"),
    )
    result = kernels.scale_act_mul(x, bank, slots, activation="gelu", out=out)
    assert result is out
    equal(kernels.scale_act_mul(x, bank, slots, activation="gelu"), out)


@pytest.mark.parametrize("name", [n for n in OPERATORS if not n.startswith("scale_by_slot")])
def test_the_native_operators_refuse_what_would_read_out_of_bounds(name: str) -> None:
    given = arguments(name)
    position = 2 + name.startswith("scale_add_norm")
    beyond = torch.full((TOKENS,), 4, dtype=torch.int32)
    bad = {"not in the bank": beyond, "int32": beyond.long(), "tokens": beyond[1:]}
    for message, slots in bad.items():
        with pytest.raises(RuntimeError, match=message):
            getattr(torch.ops.propulsion, name)(*given[:position], slots, *given[position + 1 :])
    bank = given[position - 1][:, 1:]
    with pytest.raises(RuntimeError, match="same width"):
        getattr(torch.ops.propulsion, name)(*given[: position - 1], bank, *given[position:])
    doubles = [
        value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for value in given
    ]
    with pytest.raises(RuntimeError, match="float32"):
        getattr(torch.ops.propulsion, name)(*doubles)


def test_a_position_without_a_cosine_is_refused() -> None:
    given = list(arguments("scale_rope"))
    given[4] = given[4] + 7
    with pytest.raises(RuntimeError, match="position"):
        torch.ops.propulsion.scale_rope(*given)


def test_every_kernel_has_every_implementation() -> None:
    for kernel in KERNELS:
        folder = kernel._folder
        assert {path.name for path in folder.iterdir()} >= {
            *("reference.py", "operator.py", "triton_kernels.py", "cuda.cu", "cpu.cpp")
        }
        assert kernel.backend("cpu").name == "native", kernel.backend("cpu").reason


def test_without_a_gpu_nothing_is_loaded_for_it() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert GATHER_SCALE.backend("cuda").name == "torch"
    assert "no NVIDIA GPU" in GATHER_SCALE.backend("cuda").reason


SCALE = """
import torch
from propulsion.kernels import gather_scale
from propulsion.kernels.gather_scale import KERNEL
x, bank = torch.ones(2, 3), torch.tensor([[0.0] * 3, [0.5] * 3])
print(gather_scale(x, bank, torch.tensor([-1, 1], dtype=torch.int32)).sum().item())
print(KERNEL.backend("cpu").name, KERNEL.backend("cpu").reason)
"""


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"PROPULSION_KERNELS": "torch"}, "torch PROPULSION_KERNELS=torch"),
        ({"PROPULSION_DISABLE_NATIVE": "1"}, "torch PROPULSION_DISABLE_NATIVE is set"),
        ({"CXX": "/nowhere/g++", "PROPULSION_CACHE": "{tmp}"}, "/nowhere/g++"),
    ],
)
def test_without_a_compiler_or_by_choice_the_torch_version_runs(
    environment: dict[str, str], reason: str, tmp_path: Any
) -> None:
    environment = {name: value.format(tmp=tmp_path) for name, value in environment.items()}
    done = subprocess.run(
        [sys.executable, "-c", SCALE],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("7.5\ntorch ")
    assert reason in done.stdout


def test_a_choice_that_there_is_not_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCALE],
        env={**os.environ, "PROPULSION_KERNELS": "cuda"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "must be one of auto, triton, torch" in done.stderr
