"""The Triton kernels against the reference: on a GPU, or in Triton's interpreter.

Run it with TRITON_INTERPRET=1 where there is no GPU.
"""

import pytest
import torch
import triton
from hypothesis import given, settings
from hypothesis import strategies as st

from propulsion.kernels.scale_by_slot import reference, triton_kernels

DEVICE = "cpu" if triton.knobs.runtime.interpret else "cuda"
# One step of the type: where the GPU rounds to bf16, the interpreter cuts off.
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}

CASES = {
    "all alike": ((3, 70, 300), None, 1),
    "a slot per sample": ((4, 37, 300), [2, 0, 2, 1], 4),
    "a slot per token": ((300, 40), [token * token % 7 % 5 for token in range(300)], 5),
    "tokens of samples in a row": ((74, 40), [1, 0], 2),
}


@pytest.mark.parametrize(("shape", "slots", "num_slots"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("dtype", ROUNDING)
def test_kernels_agree_with_the_reference(
    shape: tuple[int, ...], slots: list[int] | None, num_slots: int, rows: int, dtype: torch.dtype
) -> None:
    check(shape, slots, num_slots, rows, dtype)


@given(st.data())
@settings(max_examples=15)
def test_kernels_agree_with_the_reference_at_any_size(data: st.DataObject) -> None:
    num_slots = data.draw(st.integers(1, 4))
    slots = data.draw(st.lists(st.integers(0, num_slots - 1), min_size=1, max_size=5))
    rows, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 260))
    check((len(slots), rows, width), slots, num_slots, data.draw(st.integers(1, 2)), torch.float32)


def check(
    shape: tuple[int, ...], slots: list[int] | None, num_slots: int, rows: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator).to(DEVICE, dtype)
    grad = torch.randn(shape, generator=generator).to(DEVICE, dtype)
    scales = (torch.rand(num_slots, rows, shape[-1], generator=generator) + 0.5).to(DEVICE)
    index = None if slots is None else torch.tensor(slots, device=DEVICE)
    tolerance = {"rtol": ROUNDING[dtype], "atol": 0.0}
    torch.testing.assert_close(
        triton_kernels.scale(values, scales, index),
        reference.scale(values, scales, index),
        **tolerance,
    )
    got = triton_kernels.scale_backward(grad, values, scales, index)
    wanted = reference.scale_backward(grad, values, scales, index)
    torch.testing.assert_close(got[0], wanted[0], **tolerance)
    # Both sum up to num_rows products in fp32, in another order.
    torch.testing.assert_close(got[1], wanted[1], rtol=1e-5, atol=1e-4)


def test_only_the_gradients_asked_for_are_computed() -> None:
    values, grad = (torch.randn(5, 8, device=DEVICE) for _ in range(2))
    scales = torch.ones(1, 1, 8, device=DEVICE)
    of_values, of_scales = triton_kernels.scale_backward(
        grad, values, scales, None, needs_scales=False
    )
    assert of_scales is None
    torch.testing.assert_close(of_values, grad)
    of_values, of_scales = triton_kernels.scale_backward(
        grad, values, scales, None, needs_values=False
    )
    assert of_values is None
    torch.testing.assert_close(of_scales, (grad * values).sum(0)[None, None])


def test_an_empty_batch_has_no_gradient() -> None:
    values = torch.randn(0, 8, device=DEVICE)
    scales = torch.ones(2, 1, 8, device=DEVICE)
    slots = torch.zeros(0, dtype=torch.int64, device=DEVICE)
    assert triton_kernels.scale(values, scales, slots).shape == (0, 8)
    _, of_scales = triton_kernels.scale_backward(values, values, scales, slots)
    assert of_scales is not None
    assert not of_scales.any()


def test_the_same_sums_every_time() -> None:
    values, grad = (torch.randn(600, 32, device=DEVICE) for _ in range(2))
    slots = torch.randint(0, 3, (600,), device=DEVICE)
    scales = torch.ones(3, 1, 32, device=DEVICE)
    first = triton_kernels.scale_backward(grad, values, scales, slots)
    second = triton_kernels.scale_backward(grad, values, scales, slots)
    assert torch.equal(first[1], second[1])
