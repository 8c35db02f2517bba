import pytest

from cluster.serving.popularity import Popularity


def test_shares_are_of_the_requests_counted():
    popularity = Popularity(window=100)
    for i in range(80):
        popularity.count("often" if i % 4 else "seldom")
    assert popularity.share("often") == pytest.approx(0.75)
    assert popularity.share("seldom") == pytest.approx(0.25)
    assert popularity.share("never") == 0


def test_a_first_request_makes_nothing_popular():
    popularity = Popularity(window=1000)
    popularity.count("a")
    assert popularity.share("a") < 0.01


def test_what_was_popular_is_forgotten_in_time():
    popularity = Popularity(window=100)
    for _ in range(100):
        popularity.count("old")
    for _ in range(400):
        popularity.count("new")
    assert popularity.share("old") < 0.05
    assert popularity.share("new") > 0.9


def test_memory_is_bounded_by_the_window():
    popularity = Popularity(window=100)
    for i in range(10_000):
        popularity.count(str(i))
    assert len(popularity) <= 100


def test_many_rare_adapters_do_not_inflate_a_popular_ones_share():
    popularity = Popularity(window=1000)
    for i in range(20_000):
        popularity.count("popular" if i % 10 == 0 else f"rare-{i}")
    assert popularity.share("popular") == pytest.approx(0.1, rel=0.1)
