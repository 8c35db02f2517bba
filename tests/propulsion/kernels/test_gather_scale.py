import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from propulsion.kernels import gather_scale, gather_scale_
from propulsion.kernels.gather_scale import KERNEL, reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@given(
    num_tokens=st.integers(0, 9),
    repeats=st.integers(0, 3),
    d_out=st.integers(1, 37),
    num_slots=st.integers(1, 6),
    dtype=st.sampled_from(DTYPES),
    bank_dtype=st.sampled_from(DTYPES),
    has_pairs=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_every_token_gets_its_own_slot_in_every_implementation(
    num_tokens: int,
    repeats: int,
    d_out: int,
    num_slots: int,
    dtype: torch.dtype,
    bank_dtype: torch.dtype,
    has_pairs: bool,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (num_tokens, repeats, d_out) if repeats else (num_tokens, d_out)
    x = torch.randn(shape, generator=generator).to(dtype)
    # Columns of a wider bank, as a layer sees them.
    bank = torch.randn(num_slots, d_out + 5, generator=generator).to(bank_dtype)[:, 3:-2]
    bank[0] = 0
    slots, negative = torch.randint(0, num_slots, (2, num_tokens), generator=generator).int()
    expected = x.clone()
    for token in range(num_tokens):
        value = x[token].float()
        factor = 1 + bank[slots[token]].float()
        if has_pairs:
            factor = torch.where(value < 0, 1 + bank[negative[token]].float(), factor)
        expected[token] = (value * factor).to(dtype)
    pairs = negative if has_pairs else None
    assert torch.equal(gather_scale(x, bank, slots, pairs), expected)
    reference.gather_scale_(x, bank, slots, pairs)
    assert torch.equal(x, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_of_zeros_is_the_base(dtype: torch.dtype) -> None:
    x = torch.randn(4, 8).to(dtype)
    slots = torch.zeros(4, dtype=torch.int32)
    assert torch.equal(gather_scale(x, torch.zeros(1, 8), slots), x)
    assert torch.equal(gather_scale_(x.clone(), torch.zeros(1, 8), slots), x)


def test_values_that_are_not_finite_stay_so() -> None:
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), 3e38], dtype=torch.bfloat16)
    x = special.repeat(3, 5)
    bank = torch.cat((torch.zeros(1, 20), torch.full((1, 20), 4.0)))
    scaled = gather_scale(x, bank, torch.ones(3, dtype=torch.int32))
    assert torch.equal(scaled.isnan(), x.isnan())
    assert scaled[:, 1:4].isinf().all()


def test_this_machine_has_the_native_operator() -> None:
    # Without a compiler the tests above would compare torch with torch.
    assert KERNEL.backend("cpu").name == "native"


@pytest.mark.parametrize(
    ("x", "bank", "slots", "message"),
    [
        (torch.ones(2, 4), torch.ones(2, 5), torch.zeros(2, dtype=torch.int32), "same width"),
        (torch.ones(2, 4), torch.ones(2, 4), torch.zeros(3, dtype=torch.int32), "tokens"),
        (torch.ones(2, 4), torch.ones(2, 4), torch.zeros(2), "int32"),
        (torch.ones(2, 4), torch.ones(2, 4), torch.full((2,), 9, dtype=torch.int32), "not in the"),
        (torch.ones(2, 4).double(), torch.ones(2, 4), torch.zeros(2, dtype=torch.int32), "float32"),
    ],
)
def test_the_native_operator_refuses_what_would_read_out_of_bounds(x, bank, slots, message) -> None:
    with pytest.raises(RuntimeError, match=message):
        gather_scale_(x, bank, slots)
