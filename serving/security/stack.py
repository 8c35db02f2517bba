"""All guards around an app, in their order."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from serving.security.audit import Audit
from serving.security.audit_log import AuditLog
from serving.security.auth import ApiKeyAuth
from serving.security.body_limit import BodyLimit
from serving.security.config import SecurityConfig
from serving.security.keys import KeyRing
from serving.security.limits import RateLimits
from serving.security.local import LocalOnly


@dataclass(frozen=True)
class SecuredApp:
    """An ASGI app with the guards around it.

    Attributes:
        limits: the keys' limits, to charge tokens to; None without keys.
        audit_log: where admin calls are recorded.
    """

    app: Any = field(repr=False)
    limits: RateLimits | None
    audit_log: AuditLog

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def secure(
    app: Any,
    config: SecurityConfig,
    *,
    tokens_used: Callable[[], int] | None = None,
    request_id: Callable[[], str | None] = lambda: None,
    root_path: str = "",
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
) -> SecuredApp:
    """Put the guards around an ASGI app.

    From the outside: the audit, which sees every refusal; the keys, so that nothing of a stranger
    is read; the limits of the key; the limit of the body, which is then read for known callers.

    Args:
        app: the app.
        config: without keys in it, only callers on this machine are answered.
        tokens_used: called in a request's context at its end, for the tokens to charge its key.
        request_id: called in a request's context, for the audit log.
        root_path: the prefix that `app` itself cuts off paths (vLLM's --root-path).
        clock: seconds from any start.
        wall_clock: Unix time in seconds.

    Raises:
        ConfigError: a key is empty, or the keys file or the audit log cannot be used.
    """
    audit_log = AuditLog(config.audit_log)
    guarded: Any = BodyLimit(app, config.max_body_bytes)
    limits = None
    if config.asks_for_keys:
        clocks = {"clock": clock, "wall_clock": wall_clock}
        keys = KeyRing(config.api_keys, config.keys_file, **clocks)
        guarded = limits = RateLimits(guarded, keys, tokens_used=tokens_used, **clocks)
        guarded = ApiKeyAuth(
            guarded, keys, metrics_are_open=config.metrics_are_open, root_path=root_path
        )
    else:
        guarded = LocalOnly(guarded, root_path=root_path)
    audit = Audit(guarded, audit_log, request_id=request_id, root_path=root_path, clock=clock)
    return SecuredApp(audit, limits, audit_log)
