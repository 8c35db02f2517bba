"""Which adapters get metrics series of their own, so that their number stays bounded."""

BASE = "base"
OTHER = "other"
UNKNOWN = "unknown"
BLEND = "blend"

_SPECIAL = frozenset({BASE, OTHER, UNKNOWN, BLEND})
_BUSY_REQUESTS = 32
_MAX_CANDIDATES = 1024


class AdapterLabels:
    """Gives at most `top` adapter names a label of their own, and all others `other`.

    A series cannot change its name later, so a place once taken is never given to another name.
    Three quarters of the places go to the names that come first; the last quarter is kept for names
    asked for often, so that adapters tried once after a start do not take every place.

    Args:
        top: names to tell apart.
    """

    def __init__(self, top: int):
        self._top = top
        self._earned = top // 4
        self._named: set[str] = set()
        self._asked: dict[str, int] = {}

    def label(self, name: str) -> str:
        """The label of an adapter in the store; asking counts as a request for it."""
        if name in self._named:
            return name
        free = self._top - len(self._named)
        if free <= 0 or name in _SPECIAL:
            return OTHER
        if free <= self._earned and not self._is_busy(name):
            return OTHER
        self._named.add(name)
        if free == 1:
            self._asked.clear()
        return name

    def _is_busy(self, name: str) -> bool:
        asked = self._asked.pop(name, 0) + 1
        if asked >= _BUSY_REQUESTS:
            return True
        # Last in, last to go: a busy name returns before it is pushed out.
        self._asked[name] = asked
        if len(self._asked) > _MAX_CANDIDATES:
            del self._asked[next(iter(self._asked))]
        return False
