"""Which keys are in force, also after their file changed."""

import asyncio
import hmac
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from propulsion.errors import ConfigError
from serving.security.keys import CHECK_SECONDS, Key, KeyLimits, KeyRing
from tests.serving.security.apps import (
    ADMIN_KEY,
    EXPIRED_KEY,
    INFERENCE_KEY,
    OTHER_KEY,
    Clock,
    record,
    standard_records,
    write_keys,
)


def found(ring: KeyRing, key: str) -> Key | None:
    return ring.find(key.encode())


def refresh(ring: KeyRing, clock: Clock) -> None:
    clock.now += CHECK_SECONDS
    asyncio.run(ring.refresh())


def test_a_key_of_the_options_does_everything_for_the_default_tenant() -> None:
    ring = KeyRing([SecretStr("correct-horse"), SecretStr("battery")])
    first, second = found(ring, "correct-horse"), found(ring, "battery")
    assert first.principal.tenant == second.principal.tenant == "default"
    assert first.principal.key_id != second.principal.key_id
    assert first.principal.is_admin
    assert first.principal.may_use_base
    assert first.principal.may_use("any")
    assert found(ring, "correct") is None


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="API key is empty"):
        KeyRing([SecretStr(text)])


def test_a_key_of_the_file_has_the_rights_of_its_record(tmp_path: Path) -> None:
    limits = {"requests_per_minute": 1, "tokens_per_minute": 2, "tokens_per_day": 3}
    records = [record(INFERENCE_KEY, "one", base=False, expires="2030-01-01T00:00:00Z", **limits)]
    clock = Clock(datetime(2029, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())
    ring = KeyRing(keys_file=write_keys(tmp_path / "keys", records), wall_clock=clock)
    key = found(ring, INFERENCE_KEY)
    assert (key.principal.key_id, key.principal.tenant) == ("one", "acme")
    assert not key.principal.is_admin
    assert not key.principal.may_use_base
    assert key.principal.may_use("acme-1")
    assert not key.principal.may_use("other")
    assert key.limits == ring.limits_of("one") == KeyLimits(1, 2, 3)
    assert not ring.has_expired(key)
    clock.now += 1
    assert ring.has_expired(key)


def test_every_key_is_compared_and_in_constant_time(
    keys_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = KeyRing([SecretStr("first")], keys_file)
    compared = []
    original = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(b) or original(a, b))
    for key in ("first", INFERENCE_KEY, EXPIRED_KEY, "wrong", ""):
        compared.clear()
        ring.find(key.encode())
        assert len(compared) == len(ring) == 4


def test_an_edited_file_counts_from_the_next_look_at_it(keys_file: Path, clock: Clock) -> None:
    ring = KeyRing([SecretStr("option")], keys_file, clock=clock)
    write_keys(keys_file, [*standard_records()[1:], record(OTHER_KEY, "new")])
    asyncio.run(ring.refresh())
    assert found(ring, INFERENCE_KEY)
    refresh(ring, clock)
    assert found(ring, INFERENCE_KEY) is None
    assert found(ring, OTHER_KEY).principal.key_id == "new"
    assert found(ring, "option")
    assert ring.knows("new")
    assert not ring.knows("reader")


def test_a_change_in_place_is_seen_too(keys_file: Path, clock: Clock) -> None:
    ring = KeyRing(keys_file=keys_file, clock=clock)
    keys_file.write_text("")
    refresh(ring, clock)
    assert len(ring) == 0


@pytest.mark.parametrize("harm", ["syntax", "record", "mode", "gone"])
def test_a_bad_edit_leaves_the_last_good_keys_and_is_logged_once_until_mended(
    keys_file: Path, clock: Clock, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    ring = KeyRing(keys_file=keys_file, clock=clock)
    if harm == "gone":
        keys_file.unlink()
    elif harm == "mode":
        keys_file.chmod(0o644)
    else:
        write_keys(keys_file, "- [" if harm == "syntax" else "- id: x")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            refresh(ring, clock)
    assert len(caplog.records) == 1
    assert str(keys_file) in caplog.text
    assert "stay in force" in caplog.text
    assert found(ring, ADMIN_KEY)
    write_keys(keys_file, [record(OTHER_KEY, "new")])
    refresh(ring, clock)
    assert found(ring, OTHER_KEY)
    assert found(ring, ADMIN_KEY) is None


def test_a_mode_mended_by_chmod_alone_is_noticed(keys_file: Path, clock: Clock) -> None:
    ring = KeyRing(keys_file=keys_file, clock=clock)
    write_keys(keys_file, [record(OTHER_KEY, "new")], mode=0o644)
    refresh(ring, clock)
    assert found(ring, OTHER_KEY) is None
    keys_file.chmod(0o600)
    refresh(ring, clock)
    assert found(ring, OTHER_KEY)


def test_requests_during_a_reload_are_answered_with_the_keys_of_before(
    keys_file: Path, clock: Clock
) -> None:
    ring = KeyRing(keys_file=keys_file, clock=clock)
    write_keys(keys_file, [record(OTHER_KEY, "new")])
    clock.now += CHECK_SECONDS

    async def both() -> None:
        first = asyncio.create_task(ring.refresh())
        await asyncio.sleep(0)
        await ring.refresh()
        assert len(ring) in (1, 3)
        await first

    asyncio.run(both())
    assert found(ring, OTHER_KEY)


def test_a_wrong_file_at_the_start_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        KeyRing(keys_file=tmp_path / "nowhere")
