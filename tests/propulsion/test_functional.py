import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from propulsion.functional import Pooling, effective_scale, scale_offset
from propulsion.kernels import scale_by_slot

POOLINGS: list[Pooling] = ["mean", "max", "min", "l2"]

floats = st.floats(-2.0, 2.0, width=32)


@st.composite
def outputs_and_offsets(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """V of shape (tokens, d) and δ of shape (m, d), both of any sign."""
    tokens, vectors, width = (draw(st.integers(1, n)) for n in (4, 4, 3))
    values = draw(st.lists(floats, min_size=tokens * width, max_size=tokens * width))
    offsets = draw(st.lists(floats, min_size=vectors * width, max_size=vectors * width))
    return torch.tensor(values).view(tokens, width), torch.tensor(offsets).view(vectors, width)


def pooled_outputs(
    values: torch.Tensor, delta: torch.Tensor, degree: int, pooling: Pooling
) -> torch.Tensor:
    """The definition: m outputs V ⊙ z_i^k, pooled over i. l2 pools the scales, not the outputs."""
    powers = (1.0 + delta).pow(degree)
    outputs = values * powers[:, None]
    if pooling == "mean":
        return outputs.mean(0)
    if pooling == "l2":
        return values * powers.square().mean(0).sqrt()
    return outputs.amax(0) if pooling == "max" else outputs.amin(0)


@pytest.mark.parametrize("pooling", POOLINGS)
@given(outputs_and_offsets(), st.integers(1, 7))
def test_pooling_outputs_collapses_to_one_scale_or_two(
    pooling: Pooling, data: tuple[torch.Tensor, torch.Tensor], degree: int
) -> None:
    values, delta = data
    scale = effective_scale(delta, degree, pooling)
    single = delta.shape[0] == 1 or pooling in ("mean", "l2")
    assert scale.shape == (1 if single else 2, delta.shape[1])
    collapsed = scale_by_slot(values, scale[None])
    wanted = pooled_outputs(values, delta, degree, pooling)
    torch.testing.assert_close(collapsed, wanted, rtol=1e-5, atol=1e-5 * 3**degree)


@pytest.mark.parametrize("pooling", POOLINGS)
@given(outputs_and_offsets(), st.integers(1, 7))
def test_gradients_of_the_collapse_are_those_of_pooling(
    pooling: Pooling, data: tuple[torch.Tensor, torch.Tensor], degree: int
) -> None:
    values, delta = data
    delta = delta.requires_grad_()
    # Away from ties and zeros, where a maximum or a root has no gradient.
    powers = (1.0 + delta.detach()).pow(degree)
    differences = (powers[:, None] - powers[None]).abs() + torch.eye(len(powers))[..., None]
    if differences.min() < 1e-3 or powers.abs().min() < 1e-3 or values.abs().min() < 1e-3:
        return
    wanted = torch.autograd.grad(pooled_outputs(values, delta, degree, pooling).sum(), delta)
    got = torch.autograd.grad(
        scale_by_slot(values, effective_scale(delta, degree, pooling)[None]).sum(), delta
    )
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * 3**degree)


def test_scale_of_zero_offsets_is_exactly_one() -> None:
    assert torch.equal(effective_scale(torch.zeros(1, 5), 55), torch.ones(1, 5))


def test_root_mean_square_of_zeros_has_a_finite_gradient() -> None:
    delta = torch.full((2, 3), -1.0, requires_grad=True)
    effective_scale(delta, 2, "l2").sum().backward()
    assert delta.grad is not None
    assert delta.grad.isfinite().all()


def test_adapters_of_several_degrees_are_taken_at_once() -> None:
    delta = torch.randn(3, 2, 4) * 0.1
    degrees = torch.tensor([1, 15, 55])
    together = effective_scale(delta, degrees[:, None, None], "max")
    for row, degree in enumerate(degrees.tolist()):
        torch.testing.assert_close(together[row], effective_scale(delta[row], degree, "max"))


@given(st.lists(st.floats(-0.5, 0.5, width=32), min_size=1, max_size=8), st.integers(1, 55))
def test_scale_is_z_to_the_degree(delta: list[float], degree: int) -> None:
    offsets = torch.tensor([delta])
    expected = (1 + offsets.double()).pow(degree)
    torch.testing.assert_close(
        effective_scale(offsets, degree).double(), expected, rtol=degree * 2e-7, atol=0
    )


@given(st.floats(-(2**-20), 2**-20, width=32), st.integers(1, 55))
def test_scale_offset_keeps_the_precision_of_tiny_offsets(delta: float, degree: int) -> None:
    offsets = torch.tensor([[delta]])
    expected = torch.expm1(degree * torch.log1p(offsets.double()))
    # One rounding to fp32, and one of 1 + δ to fp64 that the power multiplies by the degree.
    torch.testing.assert_close(
        scale_offset(offsets, degree).double(), expected, rtol=2**-23, atol=(degree + 2) * 2**-52
    )


@pytest.mark.parametrize("pooling", POOLINGS)
def test_scale_offset_is_the_scale_minus_one(pooling: Pooling) -> None:
    delta = torch.randn(3, 4) * 0.1
    torch.testing.assert_close(
        1 + scale_offset(delta, 15, pooling), effective_scale(delta, 15, pooling)
    )
