import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from serving.registry.splits import draw, fraction_of, request_key, sticky_fraction

WEIGHTS = {"v3": 0.9, "v4": 0.1}


def test_versions_are_drawn_by_their_weights():
    source = random.Random(7)
    drawn = Counter(draw(WEIGHTS, source.random()) for _ in range(10_000))
    assert abs(drawn["v4"] / 10_000 - 0.1) < 0.01


def test_users_spread_over_the_versions_by_their_weights():
    fractions = [sticky_fraction("a", "prod", f"user:{i}") for i in range(10_000)]
    drawn = Counter(draw(WEIGHTS, fraction) for fraction in fractions)
    assert abs(drawn["v4"] / 10_000 - 0.1) < 0.01


def test_growing_the_newest_share_moves_users_to_it_and_never_back():
    for i in range(1000):
        fraction = sticky_fraction("a", "prod", f"user:{i}")
        before, after = draw(WEIGHTS, fraction), draw({"v3": 0.6, "v4": 0.4}, fraction)
        assert (before, after) != ("v4", "v3")


def test_a_user_is_independent_between_aliases_and_adapters():
    places = [("a", "prod"), ("a", "beta"), ("b", "prod")]
    assert len({sticky_fraction(name, alias, "user:1") for name, alias in places}) == 3


def test_a_request_is_sticky_by_its_user_else_by_its_seed():
    assert request_key("ann", 3) == request_key("ann", None) != request_key("bob", 3)
    assert request_key(None, 3) == request_key("", 3) != request_key("3", None)
    assert request_key(None, 0) is not None
    assert request_key(None, None) is None


def test_a_request_without_a_key_is_drawn_at_random_and_one_with_a_key_never():
    assert fraction_of("a", "prod", None, lambda: 0.25) == 0.25
    assert fraction_of("a", "prod", "user:1", lambda: 0.25) == sticky_fraction(
        "a", "prod", "user:1"
    )


@given(
    st.dictionaries(
        st.integers(1, 99).map("v{}".format), st.floats(1e-9, 1e9), min_size=1, max_size=8
    ),
    st.floats(0, 1, exclude_max=True),
)
def test_every_fraction_has_a_version(weights, fraction):
    assert draw(weights, fraction) in weights
