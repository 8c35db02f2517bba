from hypothesis import given
from hypothesis import strategies as st

from trainer.order import step_indices


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 5))
def test_steps_visit_every_record_once_an_epoch(records: int, batch: int, seed: int) -> None:
    steps = -(-3 * records // batch)
    stream = [i for step in range(steps) for i in step_indices(records, batch, step, seed)]
    for epoch in range(3):
        assert sorted(stream[epoch * records : (epoch + 1) * records]) == list(range(records))


def test_order_is_a_function_of_seed_and_step() -> None:
    assert step_indices(100, 8, 5, seed=1) == step_indices(100, 8, 5, seed=1)
    assert step_indices(100, 8, 5, seed=1) != step_indices(100, 8, 5, seed=2)
