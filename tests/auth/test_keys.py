"""Keys: what they allow, how long, and that only their own secret finds them."""

import string
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metronome.auth.keys import (
    build_key,
    find_key,
    generate_token,
    is_token,
    key_from_record,
    normalize_origin,
    validate_key_name,
)
from metronome.errors import Malformed
from metronome.scopes import Scope, expand_scopes

NOW = "2026-03-01T12:00:00.000Z"
TICK, IMPORT, TOCK, QUERY, ADMIN = Scope


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ([], []),
        ([TICK], [TICK]),
        ([IMPORT], [IMPORT, TICK]),
        ([TOCK], [TOCK]),
        ([QUERY], [QUERY, TOCK]),
        ([TICK, QUERY], [TICK, TOCK, QUERY]),
        ([ADMIN], [TICK, IMPORT, TOCK, QUERY, ADMIN]),
    ],
)
def test_a_scope_allows_exactly_what_it_implies(scopes: list[Scope], allowed: list[Scope]) -> None:
    assert expand_scopes(scopes) == set(allowed)


@pytest.mark.parametrize(
    ("more", "active"),
    [
        ({}, True),
        ({"expires": "2026-03-01T12:00:00.001Z"}, True),
        ({"expires": NOW}, False),
        ({"expires": "2026-03-01T11:59:59.999Z"}, False),
        ({"revoked": "2026-01-01T00:00:00.000Z"}, False),
        ({"revoked": "2026-01-01T00:00:00.000Z", "expires": "2027-01-01T00:00:00.000Z"}, False),
    ],
)
def test_a_key_is_active_until_it_expires_or_is_revoked(more: dict[str, Any], *, active: bool) -> None:
    assert build_key("a", (TICK,), generate_token(), NOW, **more).is_active(NOW) is active


def test_tokens_are_unique_and_never_stored() -> None:
    tokens = {generate_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert all(map(is_token, tokens))
    token = generate_token()
    assert token not in str(build_key("a", (TICK,), token, NOW).to_record())
    assert token[8:16] not in str(build_key("a", (TICK,), token, NOW).to_record())


DIGITS = "0123456789abcdef0123456789abcdef01234567"
TWIN = "01234567" + "f" * 32


def test_keys_with_the_same_id_are_found_by_their_own_tokens() -> None:
    key, twin = build_key("a", (TICK,), DIGITS, NOW), build_key("b", (TICK,), TWIN, NOW)
    keys = {key.id: (key, twin)}
    assert (find_key(keys, DIGITS), find_key(keys, TWIN)) == (key, twin)


@example(DIGITS[:8])
@example(DIGITS[:-1])
@example(DIGITS[:-1] + "8")
@example(DIGITS + "0")
@example(DIGITS + "\n")
@example(DIGITS.upper())
@example(DIGITS[:-1] + "\u0667")
@example("\ud800" * 40)
@given(st.text() | st.text(string.hexdigits, min_size=38, max_size=42))
def test_other_texts_do_not_find_a_key(text: str) -> None:
    key = build_key("a", (TICK,), DIGITS, NOW)
    assert find_key({key.id: (key,)}, text) is None


@given(
    name=st.text(),
    scopes=st.lists(st.sampled_from(Scope), unique=True).map(tuple),
    origins=st.lists(st.text()).map(tuple),
    expires=st.text(),
    revoked=st.text(),
)
def test_a_key_round_trips_through_its_record(name: str, scopes: tuple[Scope, ...], **more: Any) -> None:
    key = build_key(name, scopes, generate_token(), NOW, **more)
    assert key_from_record(name, key.to_record()) == key


@pytest.mark.parametrize(
    "change", [{"scopes": ["everything"]}, {"scopes": None}, {"origins": 5}, {"digest": ...}, {"revoked": ...}]
)
def test_rejects_an_invalid_record(change: dict[str, Any]) -> None:
    record = {**build_key("old", (TICK,), generate_token(), NOW).to_record(), **change}
    record = {name: value for name, value in record.items() if value is not ...}
    with pytest.raises(Malformed, match="'old' cannot be read"):
        key_from_record("old", record)


@pytest.mark.parametrize("name", ["a", "Dashboard of the library", "-x", "ünï 👍", "x" * 100, "a/b.c@d"])
def test_accepts_readable_names(name: str) -> None:
    assert validate_key_name(name) == name


@pytest.mark.parametrize(
    "name", ["", " ", " a", "a ", "a\tb", "a\nb", "\x1b[2J", "a\u202eb", "\ud800", "x" * 101, "\u2028"]
)
def test_rejects_unreadable_names(name: str) -> None:
    with pytest.raises(Malformed, match="invalid key name"):
        validate_key_name(name)


ORIGINS = [
    ("https://example.org", "https://example.org"),
    ("https://example.org/", "https://example.org"),
    ("HTTPS://Example.ORG:443", "https://example.org"),
    ("http://example.org:80", "http://example.org"),
    ("http://example.org:443", "http://example.org:443"),
    ("http://localhost:3000", "http://localhost:3000"),
    ("https://bücher.example", "https://xn--bcher-kva.example"),
    ("http://[2001:DB8::1]:8080", "http://[2001:db8::1]:8080"),
    ("http://192.0.2.1", "http://192.0.2.1"),
]


@pytest.mark.parametrize(("text", "origin"), ORIGINS)
def test_normalizes_origins_as_browsers_send_them(text: str, origin: str) -> None:
    assert normalize_origin(text) == origin
    assert normalize_origin(origin) == origin


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "*",
        "example.org",
        "//example.org",
        "https://",
        "https://*.example.org",
        "https://example.org/page",
        "https://example.org?x",
        "https://example.org#x",
        "https://me:secret@example.org",
        "https://example.org:port",
        "https://example.org:70000",
        "https://exa mple.org",
        "https://[::1",
        "https://example.org,https://example.com",
        "file:///home",
        "chrome-extension://abc",
        "https://" + "a" * 300,
        "https://a..b",
    ],
)
def test_rejects_invalid_origins_with_an_example(text: str) -> None:
    with pytest.raises(Malformed, match=r"https://example\.org, and a port"):
        normalize_origin(text)


@given(st.text() | st.text().map("https://".__add__) | st.from_regex(r"https?://[a-z\[\]:@/.]{0,30}", fullmatch=True))
def test_any_text_is_normalized_or_rejected_as_an_origin(text: str) -> None:
    try:
        origin = normalize_origin(text)
    except Malformed:
        return
    assert normalize_origin(origin) == origin
