"""What each key may use: requests a minute, tokens a minute, tokens a day.

Kept in memory by each server process for itself: two processes allow twice as much, and a restart
begins anew.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from serving.security.bucket import Bucket
from serving.security.keys import KeyLimits, KeyRing
from serving.security.principal import Principal
from serving.security.refusals import refuse

_MINUTE, _DAY = 60, 86_400
_KEPT_BEYOND_KEYS = 64


@dataclass(frozen=True)
class Verdict:
    """Whether a request may run; `headers` tell the client how it stands.

    Attributes:
        refusal: why it may not, or None.
        headers: `x-ratelimit-*`, and `retry-after` in seconds with a refusal.
    """

    refusal: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


class _Usage:
    """What one key has used."""

    def __init__(self, limits: KeyLimits, now: float):
        self.day, self.day_tokens = 0, 0
        self.follow(limits, now)

    def follow(self, limits: KeyLimits, now: float) -> None:
        self.limits = limits
        self.requests = _per_minute(limits.requests_per_minute, now)
        self.tokens = _per_minute(limits.tokens_per_minute, now)

    def turn_to(self, day: int) -> None:
        if day != self.day:
            self.day, self.day_tokens = day, 0


class RateLimits:
    """ASGI middleware that refuses with 429 what is beyond the limits of the caller's key.

    Tokens are known only afterwards, so that a key is refused once it has used up its quota, and
    requests under way at that moment finish.
    """

    def __init__(
        self,
        app: Any,
        keys: KeyRing,
        *,
        tokens_used: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ):
        """Guard `app`.

        Args:
            app: runs where `scope["state"]["principal"]` is set.
            keys: whose limits count.
            tokens_used: called in the request's context at its end for the prompt and generated
                tokens to charge; without it someone must call `charge`.
            clock: seconds from any start.
            wall_clock: Unix time in seconds, which the days of quotas follow, in UTC.
        """
        self._app = app
        self._keys = keys
        self._tokens_used = tokens_used
        self._clock, self._wall_clock = clock, wall_clock
        self._usages: dict[str, _Usage] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        principal = scope.get("state", {}).get("principal")
        if principal is None or not self._keys.limits_of(principal.key_id).is_limited:
            await self._app(scope, receive, send)
            return
        verdict = self.admit(principal)
        if verdict.refusal:
            status = HTTPStatus.TOO_MANY_REQUESTS
            await refuse(scope, receive, send, status, verdict.refusal, verdict.headers)
            return
        headers = [(name.encode(), value.encode()) for name, value in verdict.headers.items()]

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            if self._tokens_used is not None:
                self.charge(principal, self._tokens_used())

    def __len__(self) -> int:
        """How many keys' use is kept in memory."""
        return len(self._usages)

    def admit(self, principal: Principal) -> Verdict:
        """Count one request of a principal, unless a limit forbids it."""
        usage = self._usage(principal.key_id)
        if usage is None:
            return Verdict()
        now = self._clock()
        wait, reason = self._wait(usage, now)
        if wait:
            seconds = max(1, math.ceil(wait))
            message = f"{reason}; it resets in {_duration(seconds)}."
            return Verdict(message, {**_standing(usage, now), "retry-after": str(seconds)})
        if usage.requests:
            usage.requests.spend(1, now)
        return Verdict(None, _standing(usage, now))

    def charge(self, principal: Principal, num_tokens: int) -> None:
        """Count prompt and generated tokens that a principal has used."""
        usage = self._usage(principal.key_id)
        if usage is None or num_tokens <= 0:
            return
        usage.day_tokens += num_tokens
        if usage.tokens:
            usage.tokens.spend(num_tokens, self._clock())

    def _wait(self, usage: _Usage, now: float) -> tuple[float, str]:
        """Seconds until the next request may run, and what it waits for."""
        limits = usage.limits
        if limits.tokens_per_day and usage.day_tokens >= limits.tokens_per_day:
            rest = _DAY - self._wall_clock() % _DAY
            return rest, f"This key has used its {limits.tokens_per_day} tokens of the day"
        if usage.tokens and usage.tokens.level(now) <= 0:
            wait = usage.tokens.seconds_until(1, now)
            return wait, f"This key has used its {limits.tokens_per_minute} tokens per minute"
        if usage.requests and usage.requests.level(now) < 1:
            wait = usage.requests.seconds_until(1, now)
            return wait, f"This key has sent its {limits.requests_per_minute} requests per minute"
        return 0.0, ""

    def _usage(self, key_id: str) -> _Usage | None:
        limits = self._keys.limits_of(key_id)
        if not limits.is_limited:
            return None
        now = self._clock()
        usage = self._usages.get(key_id)
        if usage is None:
            self._forget_removed_keys()
            usage = self._usages[key_id] = _Usage(limits, now)
        elif usage.limits != limits:
            usage.follow(limits, now)
        usage.turn_to(int(self._wall_clock() // _DAY))
        return usage

    def _forget_removed_keys(self) -> None:
        if len(self._usages) < len(self._keys) + _KEPT_BEYOND_KEYS:
            return
        known = {name: usage for name, usage in self._usages.items() if self._keys.knows(name)}
        self._usages = known


def _per_minute(limit: int | None, now: float) -> Bucket | None:
    return Bucket(limit, limit / _MINUTE, now) if limit else None


def _standing(usage: _Usage, now: float) -> dict[str, str]:
    headers = {}
    for name, bucket in (("requests", usage.requests), ("tokens", usage.tokens)):
        if bucket:
            headers[f"x-ratelimit-limit-{name}"] = str(bucket.capacity)
            headers[f"x-ratelimit-remaining-{name}"] = str(max(0, int(bucket.level(now))))
            headers[f"x-ratelimit-reset-{name}"] = _duration(bucket.seconds_until_full(now))
    if usage.limits.tokens_per_day:
        rest = max(0, usage.limits.tokens_per_day - usage.day_tokens)
        headers["x-ratelimit-limit-tokens-day"] = str(usage.limits.tokens_per_day)
        headers["x-ratelimit-remaining-tokens-day"] = str(rest)
    return headers


def _duration(seconds: int) -> str:
    """As OpenAI writes it: `6m0s`."""
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
