"""Who a request comes from, and what that one may do."""

from contextvars import ContextVar, Token
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

Role = Literal["inference", "admin"]


@dataclass(frozen=True)
class Principal:
    """The holder of an API key.

    Attributes:
        key_id: public name of the key, for logs; never the key itself.
        tenant: whom the key belongs to.
        role: "admin" may use the admin API, "inference" the OpenAI routes alone.
        adapters: shell patterns of the adapter names it may use, list and learn of.
        may_use_base: whether it may ask the base model itself.
    """

    key_id: str
    tenant: str
    role: Role
    adapters: tuple[str, ...] = ("*",)
    may_use_base: bool = True

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    def may_use(self, name: str) -> bool:
        """Whether the adapter of that name exists for this principal."""
        return any(fnmatchcase(name, pattern) for pattern in self.adapters)


LOCAL = Principal(key_id="local", tenant="local", role="admin")
"""Everyone who reaches a server without keys: it listens on loopback alone."""

current_principal: ContextVar[Principal] = ContextVar("propulsion_principal", default=LOCAL)


async def run_as(principal: Principal, app: Any, scope: Any, receive: Any, send: Any) -> None:
    """Run an ASGI app for a principal, whom `current_principal` and the scope's state name."""
    scope.setdefault("state", {})["principal"] = principal
    token: Token[Principal] = current_principal.set(principal)
    try:
        await app(scope, receive, send)
    finally:
        current_principal.reset(token)
