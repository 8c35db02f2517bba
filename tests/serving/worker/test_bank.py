import numpy as np
import pytest
import torch

from propulsion.errors import AdapterCorruptError, BaseMismatchError, ConfigError
from propulsion.kernels import gather_scale
from serving.worker.bank import Bank
from serving.worker.rows import RowLayout
from serving.worker.source import ServedScale
from serving.worker.targets import Part, ScaledLayer

WIDTHS = {"blocks.0.qkv_proj": 40, "blocks.0.o_proj": 8}


@pytest.fixture
def bank() -> Bank:
    return Bank(WIDTHS, num_slots=3, max_num_tokens=16, device="cpu")


@pytest.fixture
def layout(bank: Bank) -> RowLayout:
    # The second of two ranks: q is sharded, the one key/value head is replicated.
    qkv = {
        "blocks.0.q_proj": Part(0, slice(16, 32), 32),
        "blocks.0.k_proj": Part(16, slice(0, 12), 12),
        "blocks.0.v_proj": Part(28, slice(0, 12), 12),
    }
    out = {"blocks.0.o_proj": Part(0, slice(0, 8), 8)}
    # In a gated MLP the down projection's input is the up projection's output.
    gated = {"blocks.0.down_proj": qkv["blocks.0.v_proj"]}
    identity = torch.nn.Identity()
    layers = [
        ScaledLayer("blocks.0.qkv_proj", identity, 40, qkv, gated),
        ScaledLayer("blocks.0.o_proj", identity, 8, out, {}, takes_pairs=False),
    ]
    return RowLayout(layers, bank, elsewhere=["blocks.1"])


def only_row(layout: RowLayout, scales: dict[str, torch.Tensor]) -> torch.Tensor:
    outputs = {module: ServedScale(offset[None], False) for module, offset in scales.items()}
    (row,) = layout.rows(outputs).rows
    return row


def test_a_new_bank_is_the_base_model_everywhere(bank: Bank):
    x = torch.randn(16, 40)
    assert torch.equal(gather_scale(x, bank.layer("blocks.0.qkv_proj"), bank.token_slots), x)


def test_each_token_gets_the_row_of_its_slot(bank: Bank):
    for slot in (1, 2, 3):
        bank.write(slot, torch.full((bank.width,), float(slot)))
    bank.set_token_slots(np.array([2, 0, 3, 3, 1], dtype=np.int32), None)
    x = torch.ones(5, 8)
    y = gather_scale(x, bank.layer("blocks.0.o_proj"), bank.token_slots[:5])
    assert y[:, 0].tolist() == [3.0, 1.0, 4.0, 4.0, 2.0]


def test_loading_and_stepping_never_move_what_layers_hold(bank: Bank):
    view, slots = bank.layer("blocks.0.o_proj"), bank.token_slots
    before = view.data_ptr(), slots.data_ptr()
    bank.write(1, torch.ones(bank.width))
    bank.set_token_slots(np.array([1, 1], dtype=np.int32), None)
    assert (view.data_ptr(), slots.data_ptr()) == before
    assert view[1].tolist() == [1.0] * 8
    assert slots[:2].tolist() == [1, 1]


def test_layers_do_not_share_columns_and_start_aligned(bank: Bank):
    columns = [bank.columns(name) for name in WIDTHS]
    assert columns[0].stop <= columns[1].start
    assert [c.start * 4 % 128 for c in columns] == [0, 0]


def test_a_row_takes_this_ranks_part_of_each_module(bank: Bank, layout: RowLayout):
    q, v = torch.arange(32.0), torch.arange(100.0, 112.0)
    row = only_row(layout, {"blocks.0.q_proj": q, "blocks.0.v_proj": v})
    qkv = row[bank.columns("blocks.0.qkv_proj")]
    assert qkv[:16].tolist() == q[16:].tolist()
    assert qkv[16:28].tolist() == [0.0] * 12
    assert qkv[28:40].tolist() == v.tolist()
    assert row[bank.columns("blocks.0.o_proj")].tolist() == [0.0] * 8


def test_modules_of_another_pipeline_rank_are_left_to_it(layout: RowLayout):
    assert not only_row(layout, {"blocks.1.q_proj": torch.ones(32)}).any()


def test_a_module_the_model_lacks_is_refused_by_name(layout: RowLayout):
    with pytest.raises(BaseMismatchError, match=r"'blocks\.10\.q_proj'"):
        only_row(layout, {"blocks.10.q_proj": torch.ones(32)})


def test_a_wrong_width_is_refused_with_both_widths(layout: RowLayout):
    with pytest.raises(BaseMismatchError, match=r"\(16,\).*32 wide"):
        only_row(layout, {"blocks.0.q_proj": torch.ones(16)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_scale_that_is_not_finite_is_refused(layout: RowLayout, value: float):
    with pytest.raises(AdapterCorruptError, match="not finite"):
        only_row(layout, {"blocks.0.o_proj": torch.full((8,), value)})


def test_a_scale_of_a_gated_mlps_input_meets_the_scale_of_the_output_it_is_folded_into(
    bank: Bank, layout: RowLayout
):
    output, scaled_input = torch.rand(12), torch.rand(12)
    scales = {
        "blocks.0.v_proj": ServedScale(output[None], False),
        "blocks.0.down_proj": ServedScale(scaled_input[None], True),
    }
    (row,) = layout.rows(scales).rows
    product = (1 + output) * (1 + scaled_input) - 1
    torch.testing.assert_close(row[bank.columns("blocks.0.qkv_proj")][28:40], product)


def test_an_adapter_with_two_scales_per_output_takes_two_rows(bank: Bank, layout: RowLayout):
    pair = torch.randn(2, 12)
    scales = {
        "blocks.0.k_proj": ServedScale(pair, False),
        "blocks.0.v_proj": ServedScale(torch.ones(1, 12), False),
    }
    adapter = layout.rows(scales)
    assert len(adapter.rows) == 2
    for row, wanted in zip(adapter.rows, pair, strict=True):
        qkv = row[bank.columns("blocks.0.qkv_proj")]
        assert torch.equal(qkv[16:28], wanted)
        assert qkv[28:40].tolist() == [1.0] * 12
    assert adapter.touches.tolist() == [True, False]


@pytest.mark.parametrize(
    ("module", "scales_input"), [("blocks.0.o_proj", False), ("blocks.0.down_proj", True)]
)
def test_two_scales_are_refused_where_the_sign_is_not_known(
    layout: RowLayout, module: str, scales_input: bool
):
    width = 8 if module.endswith("o_proj") else 12
    scale = ServedScale(torch.ones(2, width), scales_input)
    with pytest.raises(ConfigError, match="use pooling mean"):
        layout.rows({module: scale})


def test_a_scale_that_a_16_bit_bank_cannot_hold_is_refused(layout: RowLayout):
    bank = Bank(WIDTHS, num_slots=1, max_num_tokens=4, device="cpu", dtype=torch.float16)
    layer = ScaledLayer(
        "blocks.0.o_proj", torch.nn.Identity(), 8, {"o": Part(0, slice(0, 8), 8)}, {}
    )
    small = RowLayout([layer], bank)
    (row,) = small.rows({"o": ServedScale(torch.full((1, 8), 0.25), False)}).rows
    assert row.dtype == torch.float16
    assert bank.row_bytes == 2 * bank.width
    with pytest.raises(AdapterCorruptError, match="float16"):
        small.rows({"o": ServedScale(torch.full((1, 8), 1e6), False)})
