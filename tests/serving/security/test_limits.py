"""Requests and tokens a key may use, on clocks that the tests set."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from serving.security.bucket import Bucket
from serving.security.config import SecurityConfig
from serving.security.keys import KeyRing
from serving.security.limits import RateLimits
from serving.security.principal import LOCAL
from serving.security.stack import SecuredApp, secure
from tests.serving.security.apps import (
    ADMIN_KEY,
    INFERENCE_KEY,
    OTHER_KEY,
    Clock,
    app,
    bearer,
    record,
    write_keys,
)
from tests.serving.security.test_auth import error_of

DAY = 86_400
NOON = 20_000 * DAY + DAY // 2


@pytest.fixture
def wall_clock() -> Clock:
    return Clock(NOON)


def limited(path: Path, clock: Clock, wall_clock: Clock, used=None, **limits) -> SecuredApp:
    records = [
        record(INFERENCE_KEY, "reader", **limits),
        record(ADMIN_KEY, "operator", role="admin", **limits),
        record(OTHER_KEY, "free"),
    ]
    config = SecurityConfig(keys_file=write_keys(path / "keys", records))
    return secure(app(), config, tokens_used=used, clock=clock, wall_clock=wall_clock)


def ask(secured: SecuredApp, key: str = INFERENCE_KEY, path: str = "/v1/completions"):
    return TestClient(secured).post(path, headers=bearer(key))


def test_requests_beyond_the_minutes_are_refused_until_the_bucket_refills(
    tmp_path, clock, wall_clock
) -> None:
    secured = limited(tmp_path, clock, wall_clock, requests_per_minute=3)
    remaining = [ask(secured).headers["x-ratelimit-remaining-requests"] for _ in range(3)]
    assert remaining == ["2", "1", "0"]
    refused = ask(secured)
    error = error_of(refused, 429)
    assert error["type"] == "RateLimitError"
    assert "3 requests per minute" in error["message"]
    assert refused.headers["retry-after"] == "20"
    assert refused.headers["x-ratelimit-limit-requests"] == "3"
    assert refused.headers["x-ratelimit-reset-requests"] == "1m0s"
    clock.now += 19
    error_of(ask(secured), 429)
    clock.now += 1
    assert ask(secured).status_code == 200
    error_of(ask(secured), 429)


def test_each_key_has_a_bucket_of_its_own_and_admin_routes_count_too(
    tmp_path, clock, wall_clock
) -> None:
    secured = limited(tmp_path, clock, wall_clock, requests_per_minute=1)
    assert ask(secured).status_code == 200
    error_of(ask(secured), 429)
    assert ask(secured, ADMIN_KEY, "/admin/v1/status").status_code == 200
    error_of(ask(secured, ADMIN_KEY, "/admin/v1/status"), 429)
    for _ in range(5):
        free = ask(secured, OTHER_KEY)
        assert free.status_code == 200
        assert "x-ratelimit-limit-requests" not in free.headers


def test_refused_callers_use_up_nothing(tmp_path, clock, wall_clock) -> None:
    secured = limited(tmp_path, clock, wall_clock, requests_per_minute=1)
    for _ in range(3):
        error_of(ask(secured, path="/admin/v1/status"), 403)
    assert ask(secured).status_code == 200


def test_tokens_are_charged_at_the_end_and_a_debt_is_paid_off_over_time(
    tmp_path, clock, wall_clock
) -> None:
    secured = limited(tmp_path, clock, wall_clock, used=lambda: 90, tokens_per_minute=60)
    first = ask(secured)
    assert first.headers["x-ratelimit-remaining-tokens"] == "60"
    refused = ask(secured)
    assert "60 tokens per minute" in error_of(refused, 429)["message"]
    assert refused.headers["retry-after"] == "31"
    assert refused.headers["x-ratelimit-remaining-tokens"] == "0"
    clock.now += 31
    assert ask(secured).status_code == 200


def test_the_quota_of_a_day_says_when_it_resets_and_resets_at_midnight_utc(
    tmp_path, clock, wall_clock
) -> None:
    secured = limited(tmp_path, clock, wall_clock, used=lambda: 60, tokens_per_day=100)
    assert ask(secured).headers["x-ratelimit-remaining-tokens-day"] == "100"
    assert ask(secured).headers["x-ratelimit-remaining-tokens-day"] == "40"
    refused = ask(secured)
    assert "100 tokens of the day; it resets in 12h0m0s" in error_of(refused, 429)["message"]
    assert refused.headers["retry-after"] == str(DAY // 2)
    wall_clock.now += DAY // 2 - 1
    error_of(ask(secured), 429)
    wall_clock.now += 1
    assert ask(secured).status_code == 200


def test_tokens_are_charged_even_when_the_app_fails(tmp_path, clock, wall_clock) -> None:
    async def broken(scope, receive, send) -> None:
        raise RuntimeError("no engine")

    path = write_keys(tmp_path / "keys", [record(INFERENCE_KEY, "reader", tokens_per_day=5)])
    secured = secure(
        broken,
        SecurityConfig(keys_file=path),
        tokens_used=lambda: 5,
        clock=clock,
        wall_clock=wall_clock,
    )
    with pytest.raises(RuntimeError):
        ask(secured)
    error_of(ask(secured), 429)


def test_tokens_can_be_charged_from_elsewhere(tmp_path, clock, wall_clock) -> None:
    secured = limited(tmp_path, clock, wall_clock, tokens_per_day=10)
    reader = SimpleNamespace(key_id="reader")
    secured.limits.charge(reader, 0)
    secured.limits.charge(reader, -5)
    secured.limits.charge(LOCAL, 10**9)
    assert ask(secured).headers["x-ratelimit-remaining-tokens-day"] == "10"
    secured.limits.charge(reader, 10)
    error_of(ask(secured), 429)


def test_changed_limits_count_at_once_and_what_was_used_today_stays(
    tmp_path, clock, wall_clock
) -> None:
    secured = limited(tmp_path, clock, wall_clock, used=lambda: 50, tokens_per_day=50)
    ask(secured)
    error_of(ask(secured), 429)
    write_keys(
        tmp_path / "keys",
        [record(INFERENCE_KEY, "reader", tokens_per_day=80, requests_per_minute=9)],
    )
    clock.now += 1
    raised = ask(secured)
    assert raised.headers["x-ratelimit-remaining-tokens-day"] == "30"
    assert raised.headers["x-ratelimit-remaining-requests"] == "8"


def test_memory_is_bounded_by_the_keys_that_there_are(tmp_path, clock, wall_clock) -> None:
    def keys(generation: str) -> list[dict]:
        ids = [f"{generation}-{i}" for i in range(100)]
        return [record(f"pk-{id}", id, requests_per_minute=1) for id in ids]

    ring = KeyRing(keys_file=write_keys(tmp_path / "keys", keys("a")), clock=clock)
    limits = RateLimits(None, ring, clock=clock, wall_clock=wall_clock)
    for generation in "abcd":
        write_keys(tmp_path / "keys", keys(generation))
        clock.now += 1
        asyncio.run(ring.refresh())
        for id in [key["id"] for key in keys(generation)] + ["unknown"]:
            limits.admit(SimpleNamespace(key_id=id))
        assert 100 <= len(limits) <= 164


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    bucket = Bucket(2, 1.0, now=100)
    bucket.spend(2, 100)
    assert bucket.level(50) == 0
    assert bucket.level(51) == 1
    assert bucket.seconds_until(2, 51) == 1
    assert bucket.level(1000) == 2
