from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cluster.serving.ring import HashRing

KEYS = [f"adapter-{i}" for i in range(2000)]
names = st.sets(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=12)


def ring_of(members) -> HashRing:
    ring = HashRing()
    ring.set_members(members)
    return ring


def home(ring: HashRing, key: str) -> str:
    return next(ring.walk(key))


@given(names, st.text(max_size=8))
def test_a_walk_meets_every_member_once(members, key):
    assert Counter(ring_of(members).walk(key)) == Counter(members)


@given(names, st.text("xyz", min_size=1, max_size=4))
def test_a_member_that_joins_takes_keys_for_itself_alone(members, joining):
    before, after = ring_of(members), ring_of({*members, joining})
    moved = {home(after, key) for key in KEYS[:200] if home(before, key) != home(after, key)}
    assert moved <= {joining}


@given(names)
def test_the_order_of_members_does_not_matter(members):
    one, other = ring_of(sorted(members)), ring_of(sorted(members, reverse=True))
    assert [home(one, key) for key in KEYS[:50]] == [home(other, key) for key in KEYS[:50]]


def test_keys_are_spread_evenly():
    counts = Counter(home(ring_of(map(str, range(10))), key) for key in KEYS)
    assert len(counts) == 10
    assert max(counts.values()) < 2 * len(KEYS) / 10


def test_a_member_that_leaves_is_followed_by_the_next_on_the_walk():
    ring = ring_of("abcde")
    first, second = list(ring.walk("key"))[:2]
    assert home(ring_of(set("abcde") - {first}), "key") == second


def test_the_same_members_again_change_nothing():
    ring = ring_of("ab")
    assert not ring.set_members("ba")
    assert ring.set_members("abc")
    assert len(ring) == 3


def test_a_ring_of_nobody_has_no_home():
    assert list(HashRing().walk("key")) == []
