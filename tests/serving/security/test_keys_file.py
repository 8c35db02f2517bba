"""What a keys file may hold, and how a wrong one is refused."""

import logging
from pathlib import Path

import pytest

from propulsion.errors import ConfigError
from serving.security.keys_file import read_keys_file
from tests.serving.security.apps import ADMIN_KEY, INFERENCE_KEY, record, write_keys


def test_a_record_is_read_with_its_defaults(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys", [record(INFERENCE_KEY, "one")])
    (only,), _ = read_keys_file(path)
    assert (only.id, only.tenant, only.role, only.adapters) == (
        "one",
        "acme",
        "inference",
        ("acme-*",),
    )
    assert only.base
    assert only.expires is None
    assert only.requests_per_minute is None


def test_an_empty_file_holds_no_keys(tmp_path: Path) -> None:
    assert read_keys_file(write_keys(tmp_path / "keys", ""))[0] == ()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sha256": "abc"}, "sha256"),
        ({"role": "root"}, "role"),
        ({"adapters": "acme-*"}, "adapters"),
        ({"adapters": ["../x"]}, "adapters.0"),
        ({"id": "a\nb"}, "id"),
        ({"tenant": ""}, "tenant"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"tokens_per_day": -1}, "tokens_per_day"),
        ({"expires": "2030-01-01T00:00:00"}, "expires"),
        ({"expires": "soon"}, "expires"),
        ({"tokens": 5}, "tokens"),
    ],
)
def test_a_malformed_record_is_refused_with_file_number_and_field(
    tmp_path: Path, change: dict, field: str
) -> None:
    records = [record(ADMIN_KEY, "fine"), record(INFERENCE_KEY, "bad") | change]
    path = write_keys(tmp_path / "keys", records)
    with pytest.raises(ConfigError) as error:
        read_keys_file(path)
    assert f"keys file {path}: record 2" in str(error.value)
    assert f", {field}:" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("missing", ["id", "sha256", "tenant", "role", "adapters"])
def test_what_decides_who_may_do_what_has_no_default(tmp_path: Path, missing: str) -> None:
    fields = record(INFERENCE_KEY, "one")
    del fields[missing]
    with pytest.raises(ConfigError, match=f"record 1.*, {missing}: "):
        read_keys_file(write_keys(tmp_path / "keys", [fields]))


@pytest.mark.parametrize("twice", ["id", "sha256"])
def test_a_key_given_twice_is_refused(tmp_path: Path, twice: str) -> None:
    first, second = record(INFERENCE_KEY, "one"), record(ADMIN_KEY, "two")
    second[twice] = first[twice]
    with pytest.raises(ConfigError, match=rf"record 2 \(.*\): its {twice} stands"):
        read_keys_file(write_keys(tmp_path / "keys", [first, second]))


@pytest.mark.parametrize(
    "text",
    [
        "keys: []",
        "hello",
        "7",
        "- 3",
        "- [1, 2]",
        "- id: [unclosed",
        "\x00",
        "- !!python/object:os.system x",
        "- {id: a, expires: 2026-13-45}",
    ],
)
def test_what_is_no_list_of_records_is_refused_by_a_single_line(tmp_path: Path, text: str) -> None:
    path = write_keys(tmp_path / "keys", text)
    with pytest.raises(ConfigError) as error:
        read_keys_file(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        f"- id: one\n  key: {INFERENCE_KEY}\n",
        f"- id: one\n  {INFERENCE_KEY}: x\n",
        f"- id: {INFERENCE_KEY}\n",
        f"- id: one\n  sha256: {INFERENCE_KEY}\n",
        f"- id: one\n  adapters: [{INFERENCE_KEY}/]\n",
        f"- id: one\n {INFERENCE_KEY}: [\n",
        f"- *{INFERENCE_KEY}\n",
        f"{INFERENCE_KEY}: 1\n",
    ],
)
def test_a_key_pasted_in_the_wrong_place_is_not_repeated(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_keys_file(write_keys(tmp_path / "keys", text))
    assert INFERENCE_KEY not in str(error.value)
    assert error.value.__cause__ is None


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o620, 0o666])
def test_a_file_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        read_keys_file(write_keys(tmp_path / "keys", mode=mode))


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o400, False), (0o640, True)])
def test_a_file_that_its_group_may_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warns: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        read_keys_file(write_keys(tmp_path / "keys", mode=mode))
    assert ("may be read by its group" in caplog.text) == warns


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere cannot be read: No such file"):
        read_keys_file(tmp_path / "nowhere")
