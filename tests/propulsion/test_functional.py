import torch
from hypothesis import given
from hypothesis import strategies as st

from propulsion.functional import effective_scale, scale_offset, scale_output


def test_scale_of_zero_offsets_is_exactly_one() -> None:
    assert torch.equal(effective_scale(torch.zeros(1, 5), 55), torch.ones(5))


@given(st.lists(st.floats(-0.5, 0.5, width=32), min_size=1, max_size=8), st.integers(1, 55))
def test_scale_is_z_to_the_degree(delta: list[float], degree: int) -> None:
    offsets = torch.tensor([delta])
    expected = (1 + offsets.double()).pow(degree)[0]
    torch.testing.assert_close(
        effective_scale(offsets, degree).double(), expected, rtol=degree * 2e-7, atol=0
    )


@given(st.floats(-(2**-20), 2**-20, width=32), st.integers(1, 55))
def test_scale_offset_keeps_the_precision_of_tiny_offsets(delta: float, degree: int) -> None:
    offsets = torch.tensor([[delta]])
    expected = torch.expm1(degree * torch.log1p(offsets.double()))[0]
    # One rounding to fp32, and one of 1 + δ to fp64 that the power multiplies by the degree.
    torch.testing.assert_close(
        scale_offset(offsets, degree).double(), expected, rtol=2**-23, atol=(degree + 2) * 2**-52
    )


def test_scale_output_has_the_gradients_of_the_product() -> None:
    torch.manual_seed(0)
    output = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    scale = torch.randn(5, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(3, 4, 5, dtype=torch.float64)
    wanted = torch.autograd.grad(output * scale, (output, scale), grad)
    got = torch.autograd.grad(scale_output(output, scale), (output, scale), grad)
    torch.testing.assert_close(got[0], wanted[0])
    torch.testing.assert_close(got[1].float(), wanted[1].float())


def test_scale_output_saves_the_output_alone() -> None:
    saved: list[torch.Tensor] = []
    output = torch.randn(6, 4, dtype=torch.bfloat16, requires_grad=True)
    scale = torch.ones(4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        scale_output(output, scale)
    assert {(t.dtype, tuple(t.shape)) for t in saved} == {
        (torch.bfloat16, (6, 4)),
        (torch.float32, (4,)),
    }


def test_bf16_outputs_are_scaled_in_fp32() -> None:
    output = torch.tensor([[3.0]], dtype=torch.bfloat16)
    scale = torch.tensor([1.0 + 2**-8])
    assert scale_output(output, scale).dtype == torch.bfloat16
    # bf16(1 + 2^-8) is 1, so a scale rounded to bf16 first would leave 3.0 as it is.
    assert scale_output(output, scale).item() == 3.015625
