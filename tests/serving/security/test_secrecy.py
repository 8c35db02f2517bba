"""Keys show up nowhere, and nothing from a client is a path."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.testclient import TestClient

from adapters.reference import parse_reference
from propulsion.errors import ConfigError
from serving.security.config import SecurityConfig
from serving.security.key_text import digest_of, loggable, new_key
from serving.security.keys import KeyRing
from serving.security.keys_file import KeyRecord
from serving.security.stack import secure
from tests.serving.security import apps
from tests.serving.security.apps import ADMIN_KEY, ALL_KEYS, INFERENCE_KEY, bearer, record

STORE = Path("/srv/store")
FOLDERS = ("adapters", "v1", "..", "%2e%2e", "", ".", "~", "C:", "\\\\host", "a@v1", "\0", "é")


@given(
    st.one_of(
        st.text(max_size=40),
        st.text(alphabet="av1._-@/\\%2e\0~:", max_size=24),
        st.lists(st.sampled_from(FOLDERS), max_size=6).map("/".join),
        st.lists(st.sampled_from(FOLDERS), max_size=4).map("@".join),
    )
)
def test_no_reference_that_is_accepted_leaves_the_store(text: str) -> None:
    try:
        reference = parse_reference(text)
    except ConfigError:
        return
    for path in (STORE / reference.name, STORE / reference.name / reference.selector):
        assert path.resolve().is_relative_to(STORE)
        assert path.resolve() == path
        assert path != STORE


@given(st.text(max_size=200))
def test_whatever_is_logged_is_one_printable_line_without_a_key(text: str) -> None:
    key = new_key()
    line = loggable(text + key + "\r\n" + text)
    assert line.isprintable()
    assert key not in line


def test_keys_do_not_show_in_any_object(keys_file: Path, tmp_path: Path) -> None:
    option = "correct-horse-battery"
    config = SecurityConfig(api_keys=(option,), keys_file=keys_file, audit_log=tmp_path / "audit")
    ring = KeyRing([SecretStr(option)], keys_file)
    secured = secure(apps.app(), config)
    entry = KeyRecord(**record(INFERENCE_KEY, "one"))
    shown = "".join(
        f"{thing!r} {thing!s}"
        for thing in (config, ring, ring._keys, secured, secured.limits, entry)
    )
    digests = [digest_of(key.encode()) for key in (option, *ALL_KEYS)]
    for secret in (option, *ALL_KEYS, *(repr(d) for d in digests), *(d.hex() for d in digests)):
        assert secret not in shown
    assert option not in config.model_dump_json()


def test_keys_and_line_breaks_of_clients_reach_no_log(
    client: TestClient,
    tmp_path: Path,
    keys_file: Path,
    clock: apps.Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    headers = {"X-Request-Id": "a\u2028b", "User-Agent": f"{ADMIN_KEY}", "X-Forwarded-For": "\t1"}
    headers = {name: value.encode() for name, value in headers.items()}
    with caplog.at_level(logging.DEBUG):
        for key in (*ALL_KEYS, None):
            for path in (f"/admin/{INFERENCE_KEY}", "/v1/models", f"/v1/{ADMIN_KEY}%0d%0aforged"):
                client.get(path, headers={**headers, **bearer(key)}, params={"key": INFERENCE_KEY})
        apps.write_keys(keys_file, f"- id: {INFERENCE_KEY}\n  {ADMIN_KEY}: x\n")
        clock.now += 1
        client.get("/v1/models", headers=bearer(INFERENCE_KEY))
    ours = [entry for entry in caplog.records if not entry.name.startswith(("httpx", "asyncio"))]
    assert any("stay in force" in entry.getMessage() for entry in ours)
    text = "\n".join(entry.getMessage() for entry in ours) + (tmp_path / "audit.jsonl").read_text()
    assert not any(key in text for key in ALL_KEYS)
    assert not any(line.startswith("forged") for line in text.splitlines())


@pytest.mark.parametrize("path", ["/v1/models", "/admin/v1/x", "/v1//x"])
def test_refusals_do_not_repeat_what_was_sent(client: TestClient, path: str) -> None:
    for key in ALL_KEYS:
        answer = client.get(path, headers=bearer(key), params={"key": key})
        assert key not in answer.text
        assert key not in str(answer.headers)
