"""`propulsion keys` on the command line."""

import json
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from propulsion.errors import ConfigError
from serving.security.cli import app
from serving.security.editing import add_key, remove_key
from serving.security.keys import KeyRing
from serving.security.keys_file import read_keys_file

runner = CliRunner()


def keys(*arguments: str, **options):
    return runner.invoke(app, list(arguments), **options)


def create(path: Path, *arguments: str, id: str = "one", tenant: str = "acme") -> str:
    result = keys("create", "--file", str(path), "--id", id, "--tenant", tenant, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def test_a_new_key_is_printed_alone_and_only_its_digest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    key = create(path, "--adapter", "acme-*", "--adapter", "shared", "--requests-per-minute", "60")
    assert re.fullmatch(r"pk-[A-Za-z0-9_-]{43}", key)
    assert key not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = KeyRing(keys_file=path).find(key.encode())
    assert found.principal.adapters == ("acme-*", "shared")
    assert not found.principal.is_admin
    assert found.limits.requests_per_minute == 60


def test_no_two_keys_are_alike(tmp_path: Path) -> None:
    made = {create(tmp_path / "keys", id=f"key-{i}") for i in range(5)}
    assert len(made) == 5
    assert len(read_keys_file(tmp_path / "keys")[0]) == 5


def test_adapters_are_none_for_inference_and_all_for_admins_unless_said(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    create(path, id="reader")
    create(path, "--role", "admin", "--no-base", id="operator")
    reader, operator = read_keys_file(path)[0]
    assert (reader.role, reader.adapters, reader.base) == ("inference", (), True)
    assert (operator.role, operator.adapters, operator.base) == ("admin", ("*",), False)


def test_an_end_is_a_moment_or_a_number_of_days(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    create(path, "--expires", "2031-01-31T12:00:00+02:00", id="moment")
    create(path, "--expires", "90d", id="days")
    moment, days = read_keys_file(path)[0]
    assert moment.expires == datetime(2031, 1, 31, 10, tzinfo=UTC)
    left = days.expires - datetime.now(UTC)
    assert timedelta(days=89) < left <= timedelta(days=90)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--expires", "2031-01-31T12:00:00"], "expires"),
        (["--expires", "soon"], "expires"),
        (["--adapter", "../*"], "adapters.0"),
        (["--requests-per-minute", "0"], "requests_per_minute"),
        (["--id", "a b"], "id"),
    ],
)
def test_a_wrong_option_is_named_and_changes_nothing(
    tmp_path: Path, arguments: list[str], problem: str
) -> None:
    path = tmp_path / "keys"
    result = keys("create", "--file", str(path), "--id", "x", "--tenant", "t", *arguments)
    assert isinstance(result.exception, ConfigError)
    assert f"key option {problem}:" in str(result.exception)
    assert not path.exists()


def test_an_id_is_given_once(tmp_path: Path) -> None:
    create(tmp_path / "keys")
    before = (tmp_path / "keys").read_text()
    with pytest.raises(ConfigError, match="has a key one"):
        add_key(tmp_path / "keys", id="one", tenant="t", role="admin", adapters=())
    assert (tmp_path / "keys").read_text() == before


def test_a_revoked_key_is_gone_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    gone, stays = create(path, id="gone"), create(path, id="stays")
    assert keys("revoke", "gone", "--file", str(path)).exit_code == 0
    ring = KeyRing(keys_file=path)
    assert ring.find(gone.encode()) is None
    assert ring.find(stays.encode())
    with pytest.raises(ConfigError, match="no key 'gone'"):
        remove_key(path, "gone")


def test_keys_are_listed_without_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key = create(path, "--adapter", "acme-*", "--tokens-per-day", "1000", "--expires", "1d")
    digest = read_keys_file(path)[0][0].sha256
    for arguments in ([], ["--json"]):
        result = keys("list", *arguments, env={"PROPULSION_KEYS_FILE": str(path), "COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        assert "acme-*" in result.stdout
        assert "1000" in result.stdout
        assert key not in result.output
        assert digest not in result.output
    assert json.loads(result.stdout)[0]["id"] == "one"


def test_a_missing_file_cannot_be_listed_or_revoked_from(tmp_path: Path) -> None:
    for command in (["list"], ["revoke", "x"]):
        result = keys(*command, "--file", str(tmp_path / "nowhere"))
        assert isinstance(result.exception, ConfigError)
    result = keys("create", "--file", str(tmp_path / "no" / "folder"), "--id", "x", "--tenant", "t")
    assert isinstance(result.exception, ConfigError)


def test_a_broken_or_open_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    for content, mode in (("- [", 0o600), ("[]", 0o644)):
        path.write_text(content)
        path.chmod(mode)
        with pytest.raises(ConfigError):
            add_key(path, id="x", tenant="t", role="admin", adapters=())
        assert path.read_text() == content


def test_a_mode_for_the_servers_group_is_kept_and_a_link_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    create(path)
    path.chmod(0o640)
    (tmp_path / "link").symlink_to(path)
    create(tmp_path / "link", id="two")
    assert (tmp_path / "link").is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert len(read_keys_file(path)[0]) == 2


def test_editors_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with ThreadPoolExecutor(4) as pool:
        options = {"tenant": "t", "role": "inference", "adapters": ()}
        list(pool.map(lambda i: add_key(path, id=f"k{i}", **options), range(12)))
    assert {record.id for record in read_keys_file(path)[0]} == {f"k{i}" for i in range(12)}
    assert {entry.name for entry in tmp_path.iterdir()} == {"keys", ".keys.lock"}
