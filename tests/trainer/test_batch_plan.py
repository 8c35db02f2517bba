from hypothesis import given
from hypothesis import strategies as st

from trainer.batch_plan import plan_passes
from trainer.tasks.task import EncodedRecord


def record(length: int) -> EncodedRecord:
    return EncodedRecord(tuple(range(length)), labels=(0,) * length, num_terms=1)


jobs = st.dictionaries(
    st.integers(0, 5),
    st.lists(st.integers(1, 20).map(record), min_size=1, max_size=12),
    min_size=1,
)


@given(jobs, st.integers(1, 4), st.none() | st.integers(1, 5), st.none() | st.just(24))
def test_every_record_is_in_one_pass_of_one_rank(
    rows: dict[int, list[EncodedRecord]], ranks: int, micro: int | None, pack: int | None
) -> None:
    lengths = None if pack is None else dict.fromkeys(rows, pack)
    plans = [plan_passes(rows, rank, ranks, micro, lengths) for rank in range(ranks)]
    seen = [
        (row.job, id(part))
        for plan in plans
        for batch in plan
        for row in batch
        if row.weight == 1.0
        for part in row.parts
    ]
    assert sorted(seen) == sorted((job, id(r)) for job, records in rows.items() for r in records)
    assert len({len(plan) for plan in plans}) == 1
    for batch in (batch for plan in plans for batch in plan):
        assert 1 <= len(batch) <= (micro or len(seen))
        assert all(row.weight in (0.0, 1.0) for row in batch)
        assert pack is None or all(len(row) <= pack for row in batch)


def test_rows_of_like_length_go_together() -> None:
    rows = {0: [record(n) for n in (9, 1, 8, 2)], 1: [record(n) for n in (2, 9)]}
    passes = plan_passes(rows, 0, 1, 2)
    assert [[len(row) for row in batch] for batch in passes] == [[1, 2], [2, 8], [9, 9]]


def test_packing_fills_rows_with_records_of_one_job() -> None:
    rows = {0: [record(n) for n in (6, 4, 3, 3)], 1: [record(5)]}
    (batch,) = plan_passes(rows, 0, 1, None, {0: 10, 1: 10})
    packed = sorted((row.job, sorted(len(part) for part in row.parts)) for row in batch)
    assert packed == [(0, [3, 3]), (0, [4, 6]), (1, [5])]
