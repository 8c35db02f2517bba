"""A consistent-hash ring: who is home to a key, and who stands in, when members come and go."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from hashlib import blake2b


class HashRing:
    """Members at many places each of a ring; a key belongs to the first member after its own place.

    A member that joins takes over its share of the keys, and no key moves between two others.
    Places follow from names alone, so that every process that knows the members agrees.

    Args:
        virtual_nodes: places of each member; more spread the keys more evenly.
    """

    def __init__(self, virtual_nodes: int = 64):
        self._virtual_nodes = virtual_nodes
        self._members: frozenset[str] = frozenset()
        self._places: list[int] = []
        self._owners: list[str] = []

    def __len__(self) -> int:
        return len(self._members)

    @property
    def members(self) -> frozenset[str]:
        """Who is on the ring."""
        return self._members

    def set_members(self, members: Iterable[str]) -> bool:
        """Replace the members; false if they are the same. O(n log n) in all places."""
        wanted = frozenset(members)
        if wanted == self._members:
            return False
        pairs = sorted(
            (_place(f"{member}\0{index}"), member)
            for member in wanted
            for index in range(self._virtual_nodes)
        )
        self._members = wanted
        self._places = [place for place, _ in pairs]
        self._owners = [owner for _, owner in pairs]
        return True

    def walk(self, key: str) -> Iterator[str]:
        """Every member once, the key's home first, then clockwise."""
        seen: set[str] = set()
        start = bisect_right(self._places, _place(key))
        num_places = len(self._owners)
        for offset in range(num_places):
            owner = self._owners[(start + offset) % num_places]
            if owner not in seen:
                seen.add(owner)
                yield owner
                if len(seen) == len(self._members):
                    return


def _place(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
