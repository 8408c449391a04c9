"""Referrers are normalized."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.enrich.referrers import extract_host, normalize_own_hosts, normalize_referrer

OWN = normalize_own_hosts((" www.Own.example ", "data.own.example", "", "localhost"))
_labels = st.one_of(st.text(min_size=1, max_size=8), st.sampled_from(["www", "a", "example", "ÄÖ", "İ", "xn--a", "_x"]))
_hosts = st.one_of(st.lists(_labels, min_size=2, max_size=5).map(".".join), st.ip_addresses(v=6).map("[{}]".format))
_tails = st.one_of(
    st.text(max_size=20), st.sampled_from(["/", "//", "/a/", "/http://b.example/", "?q", "#f", "/ ", "."])
)
_urls = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["http://", "https://", "HTTP://", " http://", "//", "ftp://", "", "http://u:p@"]),
    _hosts,
    st.sampled_from(["", ":80", ":", ":x"]),
    _tails,
)


@pytest.mark.parametrize(
    ("url", "short"),
    [
        ("http://arcgis.com", "arcgis.com"),
        ("https://www.washingtonpost.com/articles/dc-news/", "washingtonpost.com/articles/dc-news"),
        ("HTTP://WWW.Example.COM/Path/", "example.com/Path"),
        ("http://example.com:8080/a", "example.com/a"),
        ("http://user:secret@example.com/a", "example.com/a"),
        ("http://example.com/a?b=c#d", "example.com/a"),
        ("http://example.com?b=c", "example.com"),
        ("http://example.com///", "example.com"),
        ("http://example.com/a//b//", "example.com/a//b"),
        ("http://example.com./a", "example.com/a"),
        ("http://example.com/%7Ea b", "example.com/~a%20b"),
        ("http://example.com/%e6%2f/100%", "example.com/%E6%2F/100%"),
        ("http://example.com/ä/%c3%a4", "example.com/%C3%A4/%C3%A4"),
        ("http://example.com/b/./c/../d/%2e%2E/e/", "example.com/b/e"),
        ("http://example.com/../../a/..", "example.com"),
        ("http://example.com/a\\b", "example.com/a/b"),
        ("http://b%75cher.example/", "bucher.example"),
        ("http://BÜCHER.example/", "xn--bcher-kva.example"),
        ("http://xn--bcher-kva.example/", "xn--bcher-kva.example"),
        ("http://bücher。example/", "xn--bcher-kva.example"),
        ("http://[2001:0db8:0000:0000:0000:0000:0000:0001]/a", "[2001:db8::1]/a"),
        ("http://0x7f.1/a", "127.0.0.1/a"),
        ("http://2130706433/a", "127.0.0.1/a"),
        ("http://www.www.example.com/", "example.com"),
        ("http://www.com/", "www.com"),
        ("http://" + "www." * 100_000 + "example.com/a", "example.com/a"),
        ("http://" + "www." * 100_000 + "com", "www.com"),
        ("http://www.intranet/", "www.intranet"),
        ("http://wwwexample.com", "wwwexample.com"),
        ("http://münchen.example/straße", "xn--mnchen-3ya.example/stra%C3%9Fe"),
        ("http://my_host.example/", "my_host.example"),
        ("http://[2001:DB8::1]:8080/a/", "[2001:db8::1]/a"),
        ("http://192.0.2.1/a", "192.0.2.1/a"),
        ("http://intranet/wiki/", "intranet/wiki"),
        ("https://web.example/web/2015/http://a.example/", "web.example/web/2015/http://a.example"),
        (r"http://\xe4.example/", r"\xe4.example"),
        (" http://example.com/", "example.com"),
        ("arcgis.com", "arcgis.com"),
        ("www.arcgis.com:443/home/", "arcgis.com/home"),
        ("münchen.example", "xn--mnchen-3ya.example"),
    ],
)
def test_normalizes_referrers(url: str, short: str) -> None:
    assert normalize_referrer(url, OWN) == short


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-",
        "/",
        "/a/b",
        "//example.com/a",
        "null",
        "n/a",
        "newsletter",
        "by word of mouth",
        "about:blank",
        "javascript:1",
        "mailto:a@example.com",
        "android-app://com.example/",
        "ftp://example.com/",
        "file:///etc/hosts",
        "http://",
        "http:///a",
        "http://?a",
        "http://.",
        "http://a b.example/",
        "http://a..example/",
        "http://[",
        "http://[1::2::3]/",
        "http://ex℀mple.com/",
    ],
)
def test_invalid_referrer_is_none(url: str) -> None:
    assert normalize_referrer(url, OWN) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://own.example",
        "https://WWW.OWN.example:8080/a",
        "own.example/b",
        "http://data.own.example",
        "http://localhost",
    ],
)
def test_own_host_is_none(url: str) -> None:
    assert normalize_referrer(url, OWN) is None


@pytest.mark.parametrize("url", ["http://notown.example", "http://sub.own.example", "http://own.example.org"])
def test_similar_hosts_are_not_own_hosts(url: str) -> None:
    assert normalize_referrer(url, OWN) is not None


def test_normalizes_own_hosts() -> None:
    assert normalize_own_hosts(("WWW.A.example", " b.example.", "", "  ")) == {"a.example", "b.example"}


@given(_urls)
def test_normalizing_is_idempotent(url: str) -> None:
    short = normalize_referrer(url, frozenset())
    if short is None:
        return
    assert not short.endswith("/")
    host = short.partition("/")[0]
    # A host that is a single word is taken for one only where the address says so.
    again = short if "." in host or ":" in host else f"http://{short}"
    assert normalize_referrer(again, frozenset()) == short


@given(st.text())
def test_any_text_has_a_normalized_form_or_none(url: str) -> None:
    short = normalize_referrer(url, frozenset())
    assert short is None or short


def test_long_urls_are_normalized_without_the_cache() -> None:
    path = "/a" * 1000
    assert normalize_referrer(f"https://www.example.com{path}/", OWN) == f"example.com{path}"


@pytest.mark.parametrize(
    ("referer", "host"),
    [
        ("example.com/a", "example.com"),
        ("https://user:secret@WWW.Example.com:8080/a?b#c", "example.com"),
        ("//example.com", "example.com"),
        ("example.com?a", "example.com"),
        ("android-app://com.linkedin.android/", "com.linkedin.android"),
        ("[2001:db8::1]/a", "[2001:db8::1]"),
        ("intranet/wiki", "intranet"),
        ("a.example" * 1000, ("a.example" * 1000)[:256]),
        ("example.com:8080/a", "example.com"),
        ("localhost:8080/a", "localhost"),
        ("http://bücher.example", "xn--bcher-kva.example"),
        ("http://", ""),
        ("https:///", ""),
        ("http:///a", ""),
        ("http:b.example/a", ""),
        ("ios-app://544007664/a", "544007664"),
        ("file:///home/x/y.html", ""),
        ("file://host/y.html", ""),
        ("data:text/html,x", ""),
        ("about:blank", ""),
        ("blob:https://example.com/1", ""),
        ("mailto:a@example.com", ""),
        ("javascript:void(0)", ""),
        ("chrome-extension://abcdef/page.html", ""),
        ("/a", ""),
        ("", ""),
        ("?a", ""),
    ],
)
def test_extracts_hosts(referer: str, host: str) -> None:
    assert extract_host(referer) == host


@given(_urls)
def test_normalized_referrer_has_the_same_host(url: str) -> None:
    short = normalize_referrer(url, frozenset())
    if short is not None and len(url) < 256:
        assert extract_host(short) == short.partition("/")[0]
