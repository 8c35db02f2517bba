"""Which version of a weighted split (A/B) a request gets."""

import hashlib
from collections.abc import Callable, Mapping

from adapters.reference import version_number


def sticky_fraction(name: str, alias: str, user: str) -> float:
    """A fraction in [0, 1) that a user keeps for an alias, on every server and after restarts."""
    digest = hashlib.blake2b("\0".join((name, alias, user)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / (1 << 53)


def draw(weights: Mapping[str, float], fraction: float) -> str:
    """The version whose share of [0, 1) holds `fraction`.

    Shares lie in the order of the version numbers, so that growing the newest version's share moves
    users to it and none between the others.

    Args:
        weights: positive weights by version; their sum need not be 1.
        fraction: in [0, 1).
    """
    ordered = sorted(weights, key=version_number)
    left = fraction * sum(weights.values())
    for version in ordered:
        left -= weights[version]
        if left < 0:
            return version
    return ordered[-1]


def request_key(user: str | None, seed: int | None) -> str | None:
    """What makes a request's draw sticky: its `user`, else its `seed`, else nothing."""
    if user:
        return f"user:{user}"
    return None if seed is None else f"seed:{seed}"


def fraction_of(name: str, alias: str, key: str | None, draw_random: Callable[[], float]) -> float:
    """The fraction to draw with: the key's own, or a random one for requests without a key."""
    return draw_random() if key is None else sticky_fraction(name, alias, key)
