"""Requests are classified as views and downloads of items."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import ConfigurationError
from metronome.items import (
    DOWNLOAD_FORMATS,
    HitClassification,
    ItemMatch,
    ItemPattern,
    compile_item_pattern,
    request_path,
    url_path,
)

PATTERN = r"^/(?:files|projects)/(?P<id>[^/]+?)(?:/.*?)?(?:\.(?P<format>pdf|zip|tar\.gz|KML))?$"


@pytest.mark.parametrize(
    ("path", "item", "form"),
    [
        ("/files/rivers", "rivers", None),
        ("/files/rivers/", "rivers", None),
        ("/files/rivers.pdf", "rivers", "pdf"),
        ("/files/rivers/all.tar.gz", "rivers", "tar.gz"),
        ("/files/rivers/all.KML", "rivers", "kml"),
        ("/files/caf%C3%A9s.zip", "cafés", "zip"),
        ("/files/a%2Fb", "a/b", None),
        ("/files/%FF", "%FF", None),
        ("/files/100%", "100%", None),
    ],
)
def test_pattern_names_the_item_and_its_format(path: str, item: str, form: str | None) -> None:
    assert compile_item_pattern(PATTERN).classify("GET", 200, path) == HitClassification(
        "download" if form else "view", item, form
    )


@pytest.mark.parametrize(
    ("method", "status", "event"),
    [
        ("GET", 200, "download"),
        ("GET", 206, "download"),
        ("GET", 304, "download"),
        ("GET", 204, "request"),
        ("GET", 301, "request"),
        ("GET", 399, "request"),
        ("GET", 400, "error"),
        ("GET", 503, "error"),
        ("HEAD", 200, "request"),
        ("POST", 200, "request"),
        ("POST", 500, "error"),
        ("get", 200, "request"),
        (None, 408, "error"),
        (None, 200, "request"),
        ("GET", None, "request"),
    ],
)
def test_only_a_get_that_showed_the_item_counts(method: str | None, status: int | None, event: str) -> None:
    form = "pdf" if event == "download" else None
    assert compile_item_pattern(PATTERN).classify(method, status, "/files/a.pdf") == HitClassification(event, "a", form)


@pytest.mark.parametrize(("status", "event"), [(200, "request"), (404, "error")])
def test_a_path_outside_the_pattern_has_no_item(status: int, event: str) -> None:
    assert compile_item_pattern(PATTERN).classify("GET", status, "/style/main.css") == HitClassification(
        event, None, None
    )


@pytest.mark.parametrize("path", ["/x", "/x/"])
def test_an_id_group_that_did_not_match_or_is_empty_is_no_item(path: str) -> None:
    assert compile_item_pattern("^/x(?:/(?P<id>.*))?").classify("GET", 200, path) == HitClassification(
        "request", None, None
    )


def test_pattern_is_searched_not_matched() -> None:
    assert compile_item_pattern("(?P<id>[0-9]+)").classify("GET", 200, "/a/b/42/c") == HitClassification(
        "view", "42", None
    )


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/", None),
        ("/about.html", None),
        ("/index.php", None),
        ("/a.csv/", None),
        ("/a.d/readme", None),
        ("/csv", None),
        ("/report.PDF", "pdf"),
        ("/a/all.tar.gz", "tar.gz"),
        ("/a/all.json.gz", "gz"),
        ("/a/all.GeoJSON", "geojson"),
        ("/.zip", "zip"),
    ],
)
def test_without_a_pattern_the_path_is_the_item(path: str, form: str | None) -> None:
    assert ItemPattern().classify("GET", 200, path) == HitClassification("download" if form else "view", path, form)


def test_without_a_pattern_the_path_is_decoded() -> None:
    assert ItemPattern().classify("GET", 404, "/caf%C3%A9s.csv") == HitClassification("error", "/cafés.csv", None)


def test_a_request_for_no_path_has_no_item() -> None:
    assert ItemPattern().classify("OPTIONS", 200, "") == HitClassification("request", None, None)


def test_an_id_longer_than_the_server_takes_is_no_item() -> None:
    assert ItemPattern().classify("GET", 200, "/" + "é" * 512) == HitClassification("request", None, None)
    assert ItemPattern().classify("GET", 200, "/" + "é" * 511).event == "view"


@pytest.mark.parametrize("path", [None, ""])
def test_no_setting_is_no_pattern(path: str | None) -> None:
    assert compile_item_pattern(path).regex is None


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("^/(?P<id>", "METRONOME_ITEM_PATTERN is not a valid regular expression"),
        ("*", "METRONOME_ITEM_PATTERN is not a valid regular expression"),
        ("^/files/([^/]+)", "METRONOME_ITEM_PATTERN needs a group named id"),
        ("(?P<format>pdf)", "METRONOME_ITEM_PATTERN needs a group named id"),
    ],
)
def test_a_wrong_pattern_is_refused_by_its_setting(pattern: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        compile_item_pattern(pattern)


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("/files/rivers.pdf", ItemMatch("rivers", "pdf")),
        ("/files/rivers", ItemMatch("rivers", None)),
        ("/style/main.css", ItemMatch(None, None)),
        ("", ItemMatch(None, None)),
    ],
)
def test_match_returns_the_item_of_a_path(path: str, match: ItemMatch) -> None:
    assert compile_item_pattern(PATTERN).match(path) == match


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://example.org/a%20b?x=1#top", "/a%20b"),
        ("https://example.org", "/"),
        ("https://example.org#top", "/"),
        ("/a/b?x=/c", "/a/b"),
        ("//host/a", "//host/a"),
        ("a/b", ""),
        ("*", ""),
        ("host:443", ""),
        ("", ""),
    ],
)
def test_url_path_returns_the_path_of_a_url(url: str, path: str) -> None:
    assert url_path(url) == path


def test_a_request_target_has_no_fragment() -> None:
    assert request_path("/a#b?c") == "/a#b"


@given(st.text(), st.sampled_from(DOWNLOAD_FORMATS))
def test_every_known_extension_is_a_download_of_the_whole_path(stem: str, form: str) -> None:
    path = "/" + stem.replace("%", "").encode(errors="replace").decode() + "x." + form.upper()
    event, item, found = ItemPattern().classify("GET", 200, path)
    assert (event, item) == ("download", path)
    assert found == form or (found is not None and found.endswith("." + form))


@pytest.mark.parametrize(
    "path", ["/style.css", "/a/app.JS", "/logo.png", "/favicon.ico", "/robots.txt", "/sitemap.xml"]
)
def test_static_files_are_requests_unless_they_are_asked_for(path: str) -> None:
    assert ItemPattern().classify("GET", 200, path) == HitClassification("request", path, None)
    assert ItemPattern(count_static=True).classify("GET", 200, path).event in {"view", "download"}
    assert compile_item_pattern("(?P<id>.*)").classify("GET", 200, path).event == "view"


def test_excluded_requests_are_not_counted() -> None:
    pattern = compile_item_pattern("^/(?P<id>[^/]+)", exclude="^/health")
    assert [pattern.classify("GET", status, "/health").event for status in (200, 500)] == ["request", "error"]
    assert pattern.classify("GET", 200, "/a").event == "view"


@pytest.mark.parametrize(
    ("url", "host", "target"),
    [
        ("/a?b=1", "data.example.org", "data.example.org/a?b=1"),
        ("/a", "", "/a"),
        ("https://Data.example.org:443/a?b#c", "other.example", "data.example.org/a?b"),
        ("*", "data.example.org", ""),
    ],
)
def test_a_pattern_may_match_host_path_and_query(url: str, host: str, target: str) -> None:
    assert ItemPattern(match_url=True).target(url, host) == target


@pytest.mark.parametrize("status", [302, 303, 307])
def test_redirects_to_downloads_count_if_asked_for(status: int) -> None:
    counting = ItemPattern(count_redirects=True)
    assert counting.classify("GET", status, "/a.csv") == HitClassification("download", "/a.csv", "csv")
    assert counting.classify("GET", status, "/a").event == "request"
    assert ItemPattern().classify("GET", status, "/a.csv").event == "request"
