import numpy as np
import pytest
import torch

from propulsion.errors import AdapterCorruptError, BaseMismatchError
from propulsion.kernels import gather_scale
from serving.worker.bank import Bank
from serving.worker.layers import Part, ScaledLayer
from serving.worker.rows import RowLayout

WIDTHS = {"blocks.0.qkv_proj": 40, "blocks.0.o_proj": 8}


@pytest.fixture
def bank() -> Bank:
    return Bank(WIDTHS, num_slots=3, max_num_tokens=16, device="cpu")


@pytest.fixture
def layout(bank: Bank) -> RowLayout:
    # The second of two ranks: q is sharded, the one key/value head is replicated.
    qkv = {
        "blocks.0.q_proj": Part(offset=0, size=16, source_offset=16, source_size=32),
        "blocks.0.k_proj": Part(offset=16, size=12, source_offset=0, source_size=12),
        "blocks.0.v_proj": Part(offset=28, size=12, source_offset=0, source_size=12),
    }
    out = {"blocks.0.o_proj": Part(offset=0, size=8, source_offset=0, source_size=8)}
    layers = [
        ScaledLayer("blocks.0.qkv_proj", torch.nn.Identity(), qkv),
        ScaledLayer("blocks.0.o_proj", torch.nn.Identity(), out),
    ]
    assert {layer.name: layer.width for layer in layers} == WIDTHS
    return RowLayout(layers, bank, elsewhere=["blocks.1"])


def test_a_new_bank_is_the_base_model_everywhere(bank: Bank):
    x = torch.randn(16, 40)
    assert torch.equal(gather_scale(x, bank.layer("blocks.0.qkv_proj"), bank.token_slots), x)


def test_each_token_gets_the_row_of_its_slot(bank: Bank):
    for slot in (1, 2, 3):
        bank.write(slot, torch.full((bank.width,), float(slot)))
    bank.set_token_slots(np.array([2, 0, 3, 3, 1]))
    x = torch.ones(5, 8)
    y = gather_scale(x, bank.layer("blocks.0.o_proj"), bank.token_slots[:5])
    assert y[:, 0].tolist() == [3.0, 1.0, 4.0, 4.0, 2.0]


def test_loading_and_stepping_never_move_what_layers_hold(bank: Bank):
    view, slots = bank.layer("blocks.0.o_proj"), bank.token_slots
    before = view.data_ptr(), slots.data_ptr()
    bank.write(1, torch.ones(bank.width))
    bank.set_token_slots(np.array([1, 1]))
    assert (view.data_ptr(), slots.data_ptr()) == before
    assert view[1].tolist() == [1.0] * 8
    assert slots[:2].tolist() == [1, 1]


def test_layers_do_not_share_columns_and_start_aligned(bank: Bank):
    columns = [bank.columns(name) for name in WIDTHS]
    assert columns[0].stop <= columns[1].start
    assert [c.start * 4 % 128 for c in columns] == [0, 0]


def test_a_row_takes_this_ranks_part_of_each_module(bank: Bank, layout: RowLayout):
    q, v = torch.arange(32.0), torch.arange(100.0, 112.0)
    row = layout.row({"blocks.0.q_proj": q, "blocks.0.v_proj": v})
    qkv = row[bank.columns("blocks.0.qkv_proj")]
    assert qkv[:16].tolist() == q[16:].tolist()
    assert qkv[16:28].tolist() == [0.0] * 12
    assert qkv[28:40].tolist() == v.tolist()
    assert row[bank.columns("blocks.0.o_proj")].tolist() == [0.0] * 8


def test_modules_of_another_pipeline_rank_are_left_to_it(layout: RowLayout):
    assert not layout.row({"blocks.1.q_proj": torch.ones(32)}).any()


def test_a_module_the_model_lacks_is_refused_by_name(layout: RowLayout):
    with pytest.raises(BaseMismatchError, match=r"'blocks\.10\.q_proj'"):
        layout.row({"blocks.10.q_proj": torch.ones(32)})


def test_a_wrong_width_is_refused_with_both_widths(layout: RowLayout):
    with pytest.raises(BaseMismatchError, match=r"\(16,\).*32 wide"):
        layout.row({"blocks.0.q_proj": torch.ones(16)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_scale_that_is_not_finite_is_refused(layout: RowLayout, value: float):
    with pytest.raises(AdapterCorruptError, match="not finite"):
        layout.row({"blocks.0.o_proj": torch.full((8,), value)})
