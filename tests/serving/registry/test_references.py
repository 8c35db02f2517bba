import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.reference import Reference
from propulsion.errors import AdapterNotFoundError, ConfigError
from serving.registry.references import MAX_PARTS, ModelReference, Part, canonical, parse_model

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True)
VERSIONS = st.integers(1, 999_999_999).map("v{}".format)
WEIGHTS = st.floats(allow_nan=False, allow_infinity=False).filter(bool)


def part(text: str, weight: float = 1.0) -> Part:
    name, _, selector = text.partition("@")
    return Part(Reference(name, selector or "latest"), weight)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", [part("a")]),
        ("a@v3", [part("a@v3")]),
        ("a@prod", [part("a@prod")]),
        ("a:0.7+b@prod:0.3", [part("a", 0.7), part("b@prod", 0.3)]),
        ("a+b@v2", [part("a"), part("b@v2")]),
        ("a:-1", [part("a", -1.0)]),
        ("a:.5+1.2:2.", [part("a", 0.5), part("1.2", 2.0)]),
        ("a:1e-3+b:2E2", [part("a", 1e-3), part("b", 200.0)]),
    ],
)
def test_what_a_model_may_say(text, parts):
    assert parse_model(text) == ModelReference(tuple(parts))


@pytest.mark.parametrize(
    "text", ["", "@", "a@", "a@V3", "../a", "a/b", "a+", "+a", ":1", "a::1+", "ä", "a" * 129, "a b"]
)
def test_what_cannot_name_an_adapter_is_not_found(text):
    with pytest.raises(AdapterNotFoundError):
        parse_model(text)


@pytest.mark.parametrize(
    "weight",
    [
        "",
        "0",
        "-0.0",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "1e-999",
        "1_0",
        " 1",
        "١",
        "0x1",
        "1:2",
        "--1",
    ],
)
def test_a_weight_is_a_finite_number_other_than_zero(weight):
    with pytest.raises(ConfigError, match="finite number other than 0"):
        parse_model(f"a:{weight}+b")


def test_a_blend_has_a_limited_number_of_parts():
    assert len(parse_model("+".join(["a"] * MAX_PARTS)).parts) == MAX_PARTS
    with pytest.raises(ConfigError, match=f"at most {MAX_PARTS}"):
        parse_model("+".join(["a"] * (MAX_PARTS + 1)))


def test_a_text_of_any_length_is_answered_at_once():
    with pytest.raises(AdapterNotFoundError, match="too long"):
        parse_model("a+" * 1_000_000)


def test_a_plain_adapter_is_its_own_canonical_text():
    assert canonical([("a", "v3", 1.0)]) == "a@v3"
    assert canonical([("a", "v3", 0.5)]) == "a@v3:0.5"


def test_canonical_parts_are_sorted_by_name_and_version_number():
    parts = [("b", "v1", 1.0), ("a", "v10", 0.1), ("a", "v9", 1e22)]
    assert canonical(parts) == "a@v9:1e22+a@v10:0.1+b@v1:1"


PARTS = st.lists(
    st.tuples(NAMES, VERSIONS, WEIGHTS),
    min_size=1,
    max_size=MAX_PARTS,
    unique_by=lambda found: found[:2],
)


@given(PARTS)
def test_canonical_text_reads_back_as_the_same_parts_whatever_their_order(parts):
    text = canonical(parts)
    read = [(p.reference.name, p.reference.selector, p.weight) for p in parse_model(text).parts]
    assert sorted(read) == sorted(parts)
    assert canonical(read) == text == canonical(reversed(parts))
    assert text.isascii()
    assert text.isprintable()


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused_by_one_of_two_errors(text):
    try:
        parsed = parse_model(text)
    except (AdapterNotFoundError, ConfigError):
        return
    assert all(math.isfinite(p.weight) and p.weight for p in parsed.parts)
