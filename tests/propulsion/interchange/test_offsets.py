from fractions import Fraction

import torch
from hypothesis import given
from hypothesis import strategies as st

from propulsion.interchange.offsets import offset_of

LARGEST = 2.0**24

factors = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(-4.0, 4.0, width=32),
    st.floats(-LARGEST, LARGEST, width=32),
)


def offset(z: float) -> tuple[Fraction, Fraction]:
    """δ and what a layer applies for it."""
    delta = offset_of(torch.tensor([z], dtype=torch.float32))
    assert delta.dtype == torch.float32
    return Fraction(delta.item()), Fraction((1.0 + delta).item())


@given(st.floats(0.5, LARGEST, width=32))
def test_factors_from_a_half_up_are_exact(z: float) -> None:
    delta, applied = offset(z)
    assert delta == Fraction(z) - 1
    assert applied == Fraction(z)


@given(st.floats(0.0, 0.5, width=32, exclude_max=True))
def test_small_factors_are_kept_to_2_to_minus_25(z: float) -> None:
    delta, applied = offset(z)
    assert abs(delta - (Fraction(z) - 1)) <= Fraction(1, 2**25)
    assert applied - Fraction(z) == delta - (Fraction(z) - 1)


@given(factors)
def test_other_factors_are_kept_to_the_rounding_of_fp32(z: float) -> None:
    delta, applied = offset(z)
    wanted = Fraction(z) - 1
    # Below the range of normal numbers nothing is left to round: z - 1 is near -1.
    assert abs(delta - wanted) <= abs(wanted) / 2**24
    if abs(z) <= 2**23:
        assert applied - Fraction(z) == delta - wanted


@given(st.floats(-1.0, 0.5, width=32))
def test_from_minus_one_the_error_is_at_most_2_to_minus_24(z: float) -> None:
    delta, _ = offset(z)
    assert abs(delta - (Fraction(z) - 1)) <= Fraction(1, 2**24)


@given(st.floats(-4.0, 4.0, width=16))
def test_16_bit_factors_are_computed_as_wide_ones(z: float) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        saved = torch.tensor([z], dtype=dtype)
        assert torch.equal(offset_of(saved), offset_of(saved.float()))
