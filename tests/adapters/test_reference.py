import string
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.reference import Reference, check_alias, check_name, check_version, parse_reference
from propulsion.errors import ConfigError
from tests.adapters.properties import untimed

FIRST = string.ascii_letters + string.digits
names = st.builds(
    str.__add__, st.sampled_from(FIRST), st.text(alphabet=FIRST + "._-", max_size=127)
)
versions = st.integers(1, 999_999_999).map("v{}".format)
# Text near the grammar finds more than arbitrary text does.
near_references = st.text(alphabet="av0129._-@/\\ \n\0é", max_size=12)


@untimed
@given(name=names)
def test_bare_name_means_latest(name: str) -> None:
    assert parse_reference(name) == Reference(name, "latest")


@untimed
@given(name=names, version=versions)
def test_version_is_told_from_alias(name: str, version: str) -> None:
    assert parse_reference(f"{name}@{version}") == Reference(name, version)
    assert parse_reference(f"{name}@{version}").is_version
    assert not parse_reference(f"{name}@prod").is_version


@untimed
@given(text=st.one_of(near_references, st.text()))
def test_any_text_is_refused_or_gives_single_path_parts(text: str) -> None:
    try:
        reference = parse_reference(text)
    except ConfigError:
        return
    for part in (reference.name, reference.selector):
        assert PurePosixPath("/store", part).parts == ("/", "store", part)
        assert part != ".."
        assert part.isascii()
        assert part.isprintable()
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@v1",
        "a@",
        "a@v1@v2",
        "..",
        ".hidden",
        "-flag",
        "_private",
        "a/b",
        "../a",
        "/etc/passwd",
        "a\\b",
        "a b",
        "a\n",
        "a\0",
        "é",
        "a" * 129,
        "a@..",
        "a@../v1",
        "a@v0",
        "a@v01",
        "a@V1",
        "a@v1\n",
        "a@v1234567890",
        "a@v١",
    ],
)
def test_malformed_reference_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_reference(text)


@pytest.mark.parametrize("alias", ["v1", "v01", "V12", "v0", "v12345678901"])
def test_alias_may_not_look_like_a_version(alias: str) -> None:
    with pytest.raises(ConfigError, match="does not look like a version"):
        check_alias(alias)


@pytest.mark.parametrize("alias", ["latest", "prod", "v1.2", "v", "v1-rc", "2024-01-01"])
def test_alias_may_be_any_other_name(alias: str) -> None:
    assert check_alias(alias) == alias


def test_message_quotes_no_more_than_a_line_of_a_hostile_name() -> None:
    with pytest.raises(ConfigError) as error:
        check_name("x\n" * 100_000)
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


def test_version_is_refused_unless_numbered() -> None:
    assert check_version("v10") == "v10"
    with pytest.raises(ConfigError, match="versions are v1"):
        check_version("latest")
