import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from propulsion.kernels import gather_scale, gather_scale_

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@given(
    num_tokens=st.integers(0, 9),
    d_out=st.integers(1, 17),
    num_slots=st.integers(1, 6),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**31),
)
def test_every_token_gets_its_own_slot(
    num_tokens: int, d_out: int, num_slots: int, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_tokens, d_out, generator=generator).to(dtype)
    bank = torch.randn(num_slots, d_out, generator=generator)
    slots = torch.randint(0, num_slots, (num_tokens,), generator=generator)
    expected = x.clone()
    for token in range(num_tokens):
        expected[token] = (x[token].float() * (1 + bank[slots[token]])).to(dtype)
    assert torch.equal(gather_scale(x, bank, slots), expected)
    torch.testing.assert_close(gather_scale_(x.clone(), bank, slots.int()), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_of_zeros_is_the_base(dtype: torch.dtype) -> None:
    x = torch.randn(4, 8).to(dtype)
    slots = torch.zeros(4, dtype=torch.int64)
    assert torch.equal(gather_scale(x, torch.zeros(1, 8), slots), x)
    assert torch.equal(gather_scale_(x.clone(), torch.zeros(1, 8), slots), x)
