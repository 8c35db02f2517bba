import pytest

from serving.worker.slots import SlotTable


def test_slots_are_numbered_from_one_and_kept():
    table = SlotTable(2)
    assert table.assign(10) == (1, True)
    assert table.assign(11) == (2, True)
    assert table.assign(10) == (1, False)
    assert len(table) == 2


def test_the_least_recently_used_adapter_loses_its_slot():
    table = SlotTable(2)
    table.assign(10)
    table.assign(11)
    table.assign(10)
    assert table.assign(12) == (2, True)
    assert 11 not in table
    assert table[10] == 1


def test_adapters_of_the_current_batch_keep_their_slots():
    table = SlotTable(2)
    table.assign(10)
    table.assign(11)
    assert table.assign(12, keep={10, 12}) == (2, True)
    assert 10 in table


def test_a_pinned_adapter_stays_until_released():
    table = SlotTable(2)
    table.assign(10)
    table.pin(10)
    table.assign(11)
    assert table.assign(12) == (2, True)
    table.release(10)
    assert table.assign(13) == (1, True)
    assert table.assign(14) == (2, True)


def test_no_slot_to_give_is_an_error_that_says_so():
    table = SlotTable(2)
    table.assign(10)
    table.assign(11)
    with pytest.raises(RuntimeError, match="all 2 are used by the current batch"):
        table.assign(12, keep={10, 11})


def test_a_pin_gives_way_only_to_a_batch_that_could_not_run_otherwise():
    table = SlotTable(2)
    table.assign(10)
    table.pin(10)
    table.assign(11)
    assert not table.has_room(1, keep={11})
    assert table.assign(12, keep={11}) == (1, True)
    assert 10 not in table
    assert table.num_evictions == 1


def test_an_unpinned_adapter_can_be_evicted_again():
    table = SlotTable(1)
    table.assign(10)
    table.pin(10)
    assert not table.has_room(1)
    table.unpin(10)
    assert table.has_room(1)
    assert table.assign(11) == (1, True)


def test_pinning_needs_a_slot():
    with pytest.raises(KeyError):
        SlotTable(1).pin(10)


def test_releasing_an_unknown_adapter_changes_nothing():
    table = SlotTable(1)
    table.release(99)
    assert table.assign(10) == (1, True)
