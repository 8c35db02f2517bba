import numpy as np

from cluster.capacity.simulation.traffic import Lengths, Rate, draw_traffic, zipf_weights


def drawn(rate: Rate, count: int = 50_000, seed: int = 0):
    return draw_traffic(count, rate, zipf_weights(100, 1.0), Lengths(64, 0.5), Lengths(16), seed)


def test_popularity_follows_zipf():
    counts = np.bincount(drawn(Rate((10.0,))).adapter, minlength=100)
    expected = 50_000 * zipf_weights(100, 1.0)
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))


def test_arrivals_are_poisson_at_the_rate():
    gaps = np.diff(drawn(Rate((10.0,))).arrival)
    assert abs(gaps.mean() - 0.1) < 5 * 0.1 / np.sqrt(len(gaps))
    assert abs(gaps.std() / gaps.mean() - 1) < 0.03


def test_rate_changes_when_it_is_to():
    arrival = drawn(Rate((10.0, 100.0, 10.0), (0.0, 50.0, 60.0)), 3000).arrival
    counts = [((arrival >= a) & (arrival < b)).sum() for a, b in ((0, 50), (50, 60), (60, 100))]
    for count, expected in zip(counts, (500, 1000, 400), strict=True):
        assert abs(count - expected) < 5 * np.sqrt(expected)


def test_lengths_have_their_mean_and_no_spread_means_all_alike():
    traffic = drawn(Rate((10.0,)))
    assert abs(traffic.prompt.mean() / 64 - 1) < 0.02
    assert set(traffic.output.tolist()) == {16}


def test_equal_seeds_draw_equal_traffic():
    first, again, other = (drawn(Rate((10.0,)), 1000, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.arrival, again.arrival)
    assert np.array_equal(first.adapter, again.adapter)
    assert not np.array_equal(first.arrival, other.arrival)
