"""Messages of the same error have the same fingerprint."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metronome.enrich.error_fingerprint import error_fingerprint


@pytest.mark.parametrize(
    ("message", "folded"),
    [
        ("TypeError: x is not a function", "TypeError: x is not a function"),
        ("timeout of 30000ms exceeded", "timeout of <n>ms exceeded"),
        ("line 12:34, column -5.3e-7 of 1,000.5", "line <n>:<n>, column <n> of <n>"),
        ("user 550e8400-e29b-41d4-a716-446655440000 is gone", "user <uuid> is gone"),
        ("Object 7f3a2b1c9d0e not found", "Object <id> not found"),
        ("commit 3f786850e387550fdab836ed7e6dc881de23001b", "commit <id>"),
        ("session a8Zk29xPq0LmN4vR7tYw closed", "session <id> closed"),
        ("net::ERR_HTTP2_PROTOCOL_ERROR", "net::ERR_HTTP<n>_PROTOCOL_ERROR"),
        ("the facade is defaced", "the facade is defaced"),
        ("Segfault at 0xdeadBEEF", "Segfault at <address>"),
        ("Cannot read properties of undefined (reading 'foo')", "Cannot read properties of undefined (reading <text>)"),
        ('no such file "a b.csv"', "no such file <text>"),
        ("no column `x` in “y”", "no column <text> in <text>"),
        ("can't open what isn't there", "can't open what isn't there"),
        ("GET https://api.example/items/1234/files?token=abc&x=1", "GET https://api.example/items/<n>/files?<query>"),
        ("(https://a.example/js/23.8f3a2b1c.js:1:2)", "(https://a.example/js/<n>.<id>.js:<n>:<n>)"),
        ("no module https://a.example/assets/index-DbQ2xY9p.js", "no module https://a.example/assets/index-<id>.js"),
        ("no module https://a.example/assets/index-BBD6f_fd.js", "no module https://a.example/assets/index-<id>.js"),
        ("no module https://a.example/assets/index-Kqzvwxyz.js", "no module https://a.example/assets/index-<id>.js"),
        ("at /assets/vendor-ui-BB-6f_fd.js:1:23", "at /assets/vendor-ui-<id>.js:<n>:<n>"),
        ("at /_nuxt/DlAUqK2U.js and /_nuxt/BxKqWvTz.js", "at /_nuxt/<id>.js and /_nuxt/<id>.js"),
        ("at /_nuxt/C3fhz-_q.js", "at /_nuxt/<id>.js"),
        ("at /_nuxt/entry.C3fhz-_q.css", "at /_nuxt/entry.<id>.css"),
        ("at /_app/immutable/nodes/0.BvTx5g6k.js", "at /_app/immutable/nodes/<n>.<id>.js"),
        ("at /_app/immutable/chunks/CwZ5ZXSP.js", "at /_app/immutable/chunks/<id>.js"),
        ("at /_astro/hoisted.BxYz12_a.js", "at /_astro/hoisted.<id>.js"),
        ("at chunk-FFHMD2TL.js and chunk-ABCDEFGH.js", "at chunk-<id>.js and chunk-<id>.js"),
        ("at main.3f2a1b9c.js and main.12345678.js", "at main.<id>.js and main.<id>.js"),
        (
            "Loading chunk 12 failed: /static/js/12.abcdefab.chunk.js",
            "Loading chunk <n> failed: /static/js/<n>.<id>.chunk.js",
        ),
        ("at /_next/static/chunks/pages/index-a1b2c3d4e5f60718.js", "at /_next/static/chunks/pages/index-<id>.js"),
        ("at /_next/static/vXyAbCdEfGhIjKlMnOpQr/_buildManifest.js", "at /_next/static/<id>/_buildManifest.js"),
        (
            "at application-0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0.js",
            "at application-<id>.js",
        ),
        ("at /assets/user-settings.js", "at /assets/user-settings.js"),
        ("at /src/UserSettings.vue and main.js", "at /src/UserSettings.vue and main.js"),
        ("at jquery-3.6.0.min.js", "at jquery-<n>.min.js"),
        ("bad image data:image/png;base64,AAAA", "bad image <url>"),
        ("is this right? yes = no", "is this right? yes = no"),
        ("at 2026-01-02T03:04:05.123Z and 2026-01-02 03:04:05+01:00", "at <time> and <time>"),
        ("on 2026-01-02, 12:30:45", "on <time>, <time>"),
        ("mail to first.last+tag@mail.example.org failed", "mail to <email> failed"),
        ("connect ECONNREFUSED 127.0.0.1:5432", "connect ECONNREFUSED <ip>"),
        ("no route to 2001:db8:0:1::5", "no route to <ip>"),
        ("Request failed with status code 404", "Request failed with status code 404"),
        ("HTTP 503 after 20 s", "HTTP 503 after <n> s"),
        ("  two\n\tlines\u00a0here ", "two lines here"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_variable_parts_become_placeholders(message: str, folded: str) -> None:
    assert error_fingerprint(message) == folded


def test_messages_of_the_same_error_have_the_same_fingerprint() -> None:
    messages = {error_fingerprint(f"Item {number} of user 'u{number}' took {number}.5 s") for number in (1, 23, 4567)}
    assert messages == {"Item <n> of user <text> took <n> s"}


def test_fingerprint_is_truncated() -> None:
    assert error_fingerprint("word " * 100) == ("word " * 100)[:256].strip()
    assert len(error_fingerprint("1 " * 200)) <= 256


_WORDS = [
    ".js",
    "/assets/a-",
    "/_nuxt/DlAUqK2U",
    "<n>",
    "<id>",
    "<te",
    "0x",
    "HTTP 404",
    "status",
    "https://",
    "data:",
    "2026-01-02",
    "T03:04",
    "  ",
    "550e8400-",
]
_parts = st.sampled_from([*"0123456789abcdefxz'\"`<>@.:-+?=/_ ,“”‘’«", *_WORDS])  # noqa: RUF001


@example("'<n>'1'")
@example("1" * 300)
@example("1 " * 300)
@example("x" * 250 + "'abc'")
@example("<" * 255 + "1")
@given(st.one_of(st.text(max_size=600), st.lists(_parts, max_size=400).map("".join)))
def test_fingerprint_of_a_fingerprint_is_the_same(message: str) -> None:
    folded = error_fingerprint(message)
    assert error_fingerprint(folded) == folded
    assert len(folded) <= 256
    assert folded == " ".join(folded.split())


_REPEATED = [
    "a.js",
    "a/",
    "a/b-DbQ2xY9p.js",
    "1",
    "'",
    '"a',
    "a@",
    "a",
    "0x",
    "1:",
    "?a=",
    "a-1",
    " 1",
    "f1",
    "a.a@a.a",
    "‘",  # noqa: RUF001
    "<n>",
]


@pytest.mark.parametrize("part", _REPEATED)
def test_long_messages_take_little_time(part: str) -> None:
    message = part * (1_000_000 // len(part))
    assert error_fingerprint(message) == error_fingerprint(message[:512])
