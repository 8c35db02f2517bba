"""What every implementation of every kernel owes: the reference's values, and nothing else touched.

Other implementations than the CPU's run the same tests (`test_implementations.py`).
"""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from propulsion.kernels.gather_scale import reference as gather_scale
from propulsion.kernels.scale_act_mul import reference as scale_act_mul
from propulsion.kernels.scale_add_norm import reference as scale_add_norm
from propulsion.kernels.scale_by_slot import reference as scale_by_slot
from propulsion.kernels.scale_by_slot import tiled
from propulsion.kernels.scale_gelu import reference as scale_gelu
from propulsion.kernels.scale_rope import reference as scale_rope
from tests.propulsion.kernels.implementations import DEVICE, IMPLEMENTATION, prepare

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# Of the largest value. 16 bits: one step of the type, since rounding may fall either way.
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}
GUARD = -77.0
EXAMPLES = {"native": 100, "torch": 30, "emulated": 40, "triton": 12, "cuda": 100}[IMPLEMENTATION]

OPS = torch.ops.propulsion

few = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", autouse=True)
def implementation() -> None:
    prepare()


@dataclass
class Batch:
    """Random tokens and a bank, each a part of a larger tensor whose rest must stay as it is."""

    generator: torch.Generator
    num_tokens: int
    dtype: torch.dtype
    bank_dtype: torch.dtype
    num_slots: int
    padding: int
    slots: torch.Tensor
    negative: torch.Tensor | None
    guarded: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]

    def values(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Random values in columns of a wider tensor, between guards."""
        dtype = dtype or self.dtype
        whole = torch.full((*shape[:-1], shape[-1] + 16 + self.padding), GUARD, dtype=dtype)
        start = 8 + self.padding
        mine = torch.randn(shape, generator=self.generator).to(dtype)
        whole[..., start : start + shape[-1]] = mine
        whole = whole.to(DEVICE)
        view = whole[..., start : start + shape[-1]]
        self.guarded.append((whole, view, view.clone()))
        return view

    def bank(self, width: int) -> torch.Tensor:
        bank = self.values(self.num_slots, width, dtype=self.bank_dtype).mul_(0.3)
        bank[0] = 0
        return bank

    def check_guards(self) -> None:
        for whole, view, _ in self.guarded:
            outside = torch.ones_like(whole, dtype=torch.bool)
            first = view.storage_offset()
            outside[..., first : first + view.shape[-1]] = False
            assert (whole[outside] == GUARD).all()


def make_batch(
    seed: int,
    num_tokens: int,
    num_slots: int,
    has_pairs: bool,
    dtype: torch.dtype,
    bank_dtype: torch.dtype,
    padding: int,
) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    slots, negative = torch.randint(-1, num_slots, (2, num_tokens), generator=generator).int()
    return Batch(
        *(generator, num_tokens, dtype, bank_dtype, num_slots, padding),
        *(slots.to(DEVICE), negative.to(DEVICE) if has_pairs else None, []),
    )


batches = st.builds(
    make_batch,
    seed=st.integers(0, 2**31),
    num_tokens=st.sampled_from([0, 1, 2, 3, 7]),
    num_slots=st.integers(1, 5),
    has_pairs=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    bank_dtype=st.sampled_from(DTYPES),
    # 0 and 8 leave rows aligned to 16 bytes where the width does too.
    padding=st.sampled_from([0, 0, 8, 1, 3]),
)


WIDTHS = st.sampled_from([1, 2, 3, 8, 16, 37, 64, 128, 264, 300])


def close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    scale = max(1.0, float(wanted.float().abs().max())) if wanted.numel() else 1.0
    torch.testing.assert_close(got, wanted, rtol=0, atol=TOLERANCE[wanted.dtype] * scale)


def check(batch: Batch, name: str, module: Any, x: list[torch.Tensor], *rest: Any) -> None:
    """An operator and its in-place twin against the reference; x are the tensors it changes."""
    before = [tensor.clone() for tensor in x]
    wanted = getattr(module, name)(*x, *rest)
    got = getattr(OPS, name)(*x, *rest)
    several = (got, wanted) if isinstance(got, tuple | list) else ([got], [wanted])
    for one, other in zip(*several, strict=True):
        close(one, other)
    for tensor, original in zip(x, before, strict=True):
        assert torch.equal(tensor, original), "the functional form changed its input"
    if hasattr(module, f"{name}_"):
        getattr(OPS, f"{name}_")(*x, *rest)
        for tensor, other in zip(x, several[1], strict=True):
            close(tensor, other)
    batch.check_guards()


@few
@given(batch=batches, width=WIDTHS, repeats=st.integers(0, 3))
def test_gather_scale(batch: Batch, width: int, repeats: int) -> None:
    shape = (batch.num_tokens, repeats, width) if repeats else (batch.num_tokens, width)
    x, bank = batch.values(*shape), batch.bank(width)
    check(batch, "gather_scale", gather_scale, [x], bank, batch.slots, batch.negative)


@few
@given(batch=batches, width=WIDTHS, activation=st.sampled_from([1, 2]))
def test_scale_gelu(batch: Batch, width: int, activation: int) -> None:
    x, bank = batch.values(batch.num_tokens, width), batch.bank(width)
    check(batch, "scale_gelu", scale_gelu, [x], bank, batch.slots, batch.negative, activation)


@few
@given(batch=batches, width=WIDTHS, activation=st.sampled_from([0, 1, 2]))
def test_scale_act_mul(batch: Batch, width: int, activation: int) -> None:
    x, bank = batch.values(batch.num_tokens, 2 * width), batch.bank(2 * width)
    arguments = (bank, batch.slots, batch.negative, activation)
    check(batch, "scale_act_mul", scale_act_mul, [x], *arguments)
    out = batch.values(batch.num_tokens, width)
    OPS.scale_act_mul_out(x, *arguments, out)
    close(out, scale_act_mul.scale_act_mul(x, *arguments))
    batch.check_guards()


@few
@given(
    batch=batches,
    heads=st.integers(0, 3),
    halves=st.sampled_from([(8, 8), (8, 4), (3, 2), (4, 0), (16, 16), (16, 8), (5, 5)]),
    value_width=st.sampled_from([0, 5, 16, 64]),
    is_neox=st.booleans(),
)
def test_scale_rope(
    batch: Batch, heads: int, halves: tuple[int, int], value_width: int, is_neox: bool
) -> None:
    head_size, rotary_dim = 2 * halves[0], 2 * halves[1]
    width = heads * head_size + value_width
    if not width:
        return
    qkv, bank = batch.values(batch.num_tokens, width), batch.bank(width)
    angles = torch.randn(11, rotary_dim // 2, generator=batch.generator)
    cos_sin = torch.cat((angles.cos(), angles.sin()), 1).to(DEVICE, batch.dtype)
    positions = torch.randint(0, 11, (batch.num_tokens,), generator=batch.generator).to(DEVICE)
    check(
        *(batch, "scale_rope", scale_rope, [qkv], bank, batch.slots, batch.negative),
        *(positions, cos_sin, heads, head_size, is_neox),
    )


@few
@given(
    batch=batches,
    width=st.one_of(WIDTHS, st.sampled_from([1056, 4104])),
    has_bias=st.booleans(),
    is_layer_norm=st.booleans(),
)
def test_scale_add_norm(batch: Batch, width: int, has_bias: bool, is_layer_norm: bool) -> None:
    check_norm(batch, width, has_bias, is_layer_norm)


def check_norm(batch: Batch, width: int, has_bias: bool, is_layer_norm: bool) -> None:
    """As `check`; but the norm must be that of the residual that came out.

    A step of rounding in the residual may become many in the norm, where values lie close together.
    """
    x, residual = (batch.values(batch.num_tokens, width) for _ in range(2))
    weight, bias = (batch.values(1, width)[0] for _ in range(2))
    norm = (weight, bias if has_bias else None, 1e-5, is_layer_norm)
    arguments = (batch.bank(width), batch.slots, batch.negative, *norm)
    before = x.clone(), residual.clone()
    _, wanted = scale_add_norm.scale_add_norm(x, residual, *arguments)
    for in_place in (False, True):
        if in_place:
            OPS.scale_add_norm_(x, residual, *arguments)
            normed, total = x, residual
        else:
            normed, total = OPS.scale_add_norm(x, residual, *arguments)
            assert torch.equal(x, before[0])
            assert torch.equal(residual, before[1])
        close(total, wanted)
        none = torch.zeros_like(total)
        close(normed, scale_add_norm.scale_add_norm(none, total, *arguments)[0])
    batch.check_guards()


@pytest.mark.skipif(
    IMPLEMENTATION in ("native", "torch"), reason="an error on a CPU (test_operators.py)"
)
def test_a_slot_beyond_the_bank_is_the_base() -> None:
    x, bank = torch.randn(3, 8, device=DEVICE), torch.rand(4, 8, device=DEVICE)
    bank[0] = 0
    slots = torch.tensor([4, 2**31 - 1, -(2**31)], dtype=torch.int32, device=DEVICE)
    assert torch.equal(OPS.gather_scale(x, bank, slots, None), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bank_is_fp32", [True, False])
@pytest.mark.parametrize("has_pairs", [True, False])
def test_shapes_of_whole_vectors(dtype: torch.dtype, bank_is_fp32: bool, has_pairs: bool) -> None:
    """What models have: everything aligned, and the bank in fp32 or in the activations' dtype."""
    if IMPLEMENTATION == "triton" and (dtype != torch.bfloat16 or not bank_is_fp32):
        pytest.skip("Triton has the same code for all dtypes, and its interpreter is slow")
    bank_dtype = torch.float32 if bank_is_fp32 else dtype
    batch = make_batch(0, 9, 4, has_pairs, dtype, bank_dtype, padding=0)
    chosen = (batch.slots, batch.negative)
    heads, head_size, width = 3, 32, 128
    bank, wide_bank = batch.bank(width), batch.bank(2 * width)
    check(batch, "gather_scale", gather_scale, [batch.values(9, width)], bank, *chosen)
    check(batch, "gather_scale", gather_scale, [batch.values(9, 2, width)], bank, *chosen)
    for activation in (0, 1, 2):
        x = [batch.values(9, 2 * width)]
        check(batch, "scale_act_mul", scale_act_mul, x, wide_bank, *chosen, activation)
    for activation in (1, 2):
        x = [batch.values(9, width)]
        check(batch, "scale_gelu", scale_gelu, x, bank, *chosen, activation)
    for is_neox in (True, False):
        for rotary_dim in (32, 16):
            angles = torch.randn(9, rotary_dim // 2, generator=batch.generator)
            cos_sin = torch.cat((angles.cos(), angles.sin()), 1).to(DEVICE, dtype)
            rope = (torch.arange(9, device=DEVICE).flip(0), cos_sin, heads, head_size, is_neox)
            check(batch, "scale_rope", scale_rope, [batch.values(9, width)], bank, *chosen, *rope)
    for is_layer_norm in (True, False):
        check_norm(batch, width, True, is_layer_norm)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [8192 + 8, 16384 + 8])
def test_rows_that_no_block_can_keep_are_normed(dtype: torch.dtype, width: int) -> None:
    batch = make_batch(0, 2, 2, False, dtype, torch.float32, padding=0)
    check_norm(batch, width, False, is_layer_norm=True)


@few
@given(
    num_slots=st.integers(1, 4),
    groups=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    rows_per_group=st.sampled_from([1, 2, 40, 150]),
    width=WIDTHS,
    rows=st.integers(1, 2),
    has_slots=st.booleans(),
    dtype=st.sampled_from(DTYPES),
)
def test_scale_by_slot_and_its_gradients(
    num_slots: int,
    groups: list[int],
    rows_per_group: int,
    width: int,
    rows: int,
    has_slots: bool,
    dtype: torch.dtype,
) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (len(groups), rows_per_group, width)
    values, grad = (torch.randn(shape, generator=generator).to(DEVICE, dtype) for _ in range(2))
    num_slots = num_slots if has_slots else 1
    scales = (torch.rand(num_slots, rows, width, generator=generator) + 0.5).to(DEVICE)
    slots = torch.tensor(groups, device=DEVICE) % num_slots if has_slots else None
    close(tiled.scale(values, scales, slots), scale_by_slot.scale(values, scales, slots))
    wanted = scale_by_slot.scale_backward(grad, values, scales, slots)
    for needs_values, needs_scales in ((True, True), (True, False), (False, True)):
        of_values, of_scales = tiled.scale_backward(
            grad, values, scales, slots, needs_values, needs_scales
        )
        assert (of_values is not None) == needs_values
        assert (of_scales is not None) == needs_scales
        if of_values is not None:
            close(of_values, wanted[0])
        if of_scales is not None:
            # Both sum up to 750 products in fp32, in another order.
            torch.testing.assert_close(of_scales, wanted[1], rtol=1e-5, atol=1e-4)


def test_gradients_of_scales_are_the_same_every_time() -> None:
    values, grad = (torch.randn(600, 32, device=DEVICE) for _ in range(2))
    slots = torch.randint(0, 3, (600,), device=DEVICE)
    scales = torch.ones(3, 1, 32, device=DEVICE)
    first = tiled.scale_backward(grad, values, scales, slots)
    second = tiled.scale_backward(grad, values, scales, slots)
    assert torch.equal(first[1], second[1])


def test_an_empty_batch_has_no_gradient() -> None:
    values, scales = torch.randn(0, 8, device=DEVICE), torch.ones(2, 1, 8, device=DEVICE)
    slots = torch.zeros(0, dtype=torch.int64, device=DEVICE)
    assert tiled.scale(values, scales, slots).shape == (0, 8)
    _, of_scales = tiled.scale_backward(values, values, scales, slots)
    assert of_scales is not None
    assert not of_scales.any()
