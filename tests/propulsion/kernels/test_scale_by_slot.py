import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from propulsion.kernels import scale_by_slot
from propulsion.kernels.scale_by_slot.tiles import TILE_ROWS, tiles_by_slot

GROUPINGS = {
    "all alike": ((2, 3, 5), None, 1),
    "a slot per sample": ((4, 3, 5), [1, 0, 1, 2], 3),
    "a slot per token": ((6, 5), [2, 2, 0, 1, 0, 2], 3),
    "tokens of samples in a row": ((6, 5), [1, 0], 3),
}

every_grouping = pytest.mark.parametrize(
    ("shape", "slots", "num_slots"), GROUPINGS.values(), ids=GROUPINGS.keys()
)


def by_loop(values: torch.Tensor, scales: torch.Tensor, slots: list[int] | None) -> torch.Tensor:
    """The definition, one row at a time."""
    rows = values.reshape(-1, values.shape[-1])
    slots = slots or [0]
    scaled = []
    for index, row in enumerate(rows):
        scale = scales[slots[index * len(slots) // len(rows)]]
        scaled.append(row * torch.where(row < 0, scale[-1], scale[0]))
    return torch.stack(scaled).view(values.shape)


@every_grouping
@pytest.mark.parametrize("rows", [1, 2])
def test_values_and_gradients_are_those_of_the_definition(
    shape: tuple[int, ...], slots: list[int] | None, num_slots: int, rows: int
) -> None:
    torch.manual_seed(0)
    values = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    scales = torch.randn(num_slots, rows, shape[-1], dtype=torch.float64, requires_grad=True)
    index = None if slots is None else torch.tensor(slots)
    got, wanted = scale_by_slot(values, scales, index), by_loop(values, scales, slots)
    torch.testing.assert_close(got, wanted)
    upstream = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad(got, (values, scales), upstream),
        torch.autograd.grad(wanted, (values, scales), upstream),
    )


@every_grouping
def test_gradients_from_the_saved_result_are_the_same(
    shape: tuple[int, ...], slots: list[int] | None, num_slots: int
) -> None:
    torch.manual_seed(0)
    values = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    scales = torch.randn(num_slots, 1, shape[-1], dtype=torch.float64, requires_grad=True)
    index = None if slots is None else torch.tensor(slots)
    plain, from_result = (
        scale_by_slot(values, scales, index, saves_result=flag) for flag in (False, True)
    )
    upstream = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad(from_result, (values, scales), upstream),
        torch.autograd.grad(plain, (values, scales), upstream),
    )


def test_a_scale_of_zero_has_a_gradient_of_zero_from_the_saved_result() -> None:
    values = torch.randn(3, 2)
    scales = torch.tensor([[[0.0, 2.0]]], requires_grad=True)
    scale_by_slot(values, scales, saves_result=True).sum().backward()
    torch.testing.assert_close(
        scales.grad, torch.stack((torch.zeros(()), values[:, 1].sum()))[None, None]
    )


@every_grouping
@pytest.mark.parametrize("rows", [1, 2])
def test_compiled_is_the_same(
    shape: tuple[int, ...], slots: list[int] | None, num_slots: int, rows: int
) -> None:
    torch.manual_seed(0)
    values = torch.randn(shape, requires_grad=True)
    scales = torch.randn(num_slots, rows, shape[-1], requires_grad=True)
    index = None if slots is None else torch.tensor(slots)
    # The back end that generates code is torch's affair, and slow to start on a CPU.
    compiled = torch.compile(scale_by_slot, fullgraph=True, backend="aot_eager")
    got, wanted = compiled(values, scales, index), scale_by_slot(values, scales, index)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(
        torch.autograd.grad(got.sum(), (values, scales)),
        torch.autograd.grad(wanted.sum(), (values, scales)),
    )


def test_per_sample_gradients_by_vmap_are_those_of_a_loop() -> None:
    values, scales = torch.randn(4, 3, 5), torch.randn(1, 2, 5)

    def loss(scales: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return scale_by_slot(values, scales).square().sum()

    together = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(scales, values)
    alone = torch.stack([torch.func.grad(loss)(scales, sample) for sample in values])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("saves_result", [False, True])
def test_the_values_or_the_result_are_all_of_their_size_that_is_saved(saves_result: bool) -> None:
    saved: list[torch.Tensor] = []
    values = torch.randn(6, 4, dtype=torch.bfloat16, requires_grad=True)
    scales = torch.ones(1, 1, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        result = scale_by_slot(values, scales, saves_result=saves_result)
    kept = result if saves_result else values
    assert [t.data_ptr() for t in saved] == [kept.data_ptr(), scales.data_ptr()]


def test_bf16_values_are_scaled_in_fp32() -> None:
    values = torch.tensor([[3.0]], dtype=torch.bfloat16)
    scales = torch.tensor([[[1.0 + 2**-8]]])
    assert scale_by_slot(values, scales).dtype == torch.bfloat16
    # bf16(1 + 2^-8) is 1, so a scale rounded to bf16 first would leave 3.0 as it is.
    assert scale_by_slot(values, scales).item() == 3.015625


def test_the_result_can_be_changed_in_place() -> None:
    """Falcon adds to the output of a layer in place."""
    values = torch.randn(2, 3, 4, requires_grad=True)
    scales = torch.full((1, 1, 4), 2.0, requires_grad=True)
    result = scale_by_slot(values, scales)
    result += 1
    result.sum().backward()
    assert scales.grad is not None
    torch.testing.assert_close(scales.grad[0, 0], values.detach().sum((0, 1)))


def test_an_empty_batch_is_scaled_to_an_empty_batch() -> None:
    values = torch.randn(0, 4, requires_grad=True)
    scales = torch.ones(1, 1, 4, requires_grad=True)
    scale_by_slot(values, scales).sum().backward()
    assert scales.grad is not None
    assert not scales.grad.any()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(1, 300))
def test_tiles_cover_every_row_of_a_slot_once(slots: list[int], rows_per_group: int) -> None:
    num_rows = len(slots) * rows_per_group
    tiles = tiles_by_slot(num_rows, torch.tensor(slots), 5)
    seen: dict[int, list[int]] = {slot: [] for slot in range(5)}
    for slot, start, end in zip(
        tiles.slot.tolist(), tiles.start.tolist(), tiles.end.tolist(), strict=True
    ):
        for index in range(start, min(start + TILE_ROWS, end)):
            group = tiles.groups[index // rows_per_group].item()
            seen[slot].append(int(group) * rows_per_group + index % rows_per_group)
    for slot, rows in seen.items():
        wanted = [r for r in range(num_rows) if slots[r // rows_per_group] == slot]
        assert sorted(rows) == wanted
    assert tiles.tiles_per_slot.sum() == len(tiles.slot)
