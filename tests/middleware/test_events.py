"""What is reported of a request."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.items import ItemPattern, compile_item_pattern
from metronome.middleware.config import ClientConfig
from metronome.middleware.current_request import RequestRecord, TrackedEvent
from metronome.middleware.events import REQUEST_FIELDS, EventBuilder, PathItem, classify_request
from tests.middleware.records import AGENT, hit

METHODS = st.sampled_from(["GET", "HEAD", "POST", "get"])
STATUSES = st.none() | st.integers(100, 599)
PATTERN = r"^/datasets/(?P<id>[^/.]+)(?:\.(?P<format>\w+))?$"
SEGMENTS = st.sampled_from(["datasets", "a", "b.CSV", "caf%C3%A9s", "%zz", "x" * 1100, ""])


def report(seen: RequestRecord | TrackedEvent, **config: Any) -> dict[str, Any]:
    return EventBuilder(ClientConfig(url="http://localhost:8080", **config)).build_event(seen)


def test_a_request_is_reported_with_all_that_is_known() -> None:
    event = report(hit())
    assert event == {
        "ts": 1_769_083_200_250,
        "event": "request",
        "action": "GET /datasets/:name",
        "method": "GET",
        "url": "https://data.example.org/datasets/caf%C3%A9s?as=csv&x=1",
        "status": 200,
        "duration": 12.346,
        "referer": "https://www.example.net/links/",
        "agent": AGENT,
        "lang": "de, en;q=0.5",
        "clientip": "203.0.113.77",
    }
    assert set(REQUEST_FIELDS) == event.keys() | {"id", "format"}


def test_the_query_may_be_left_out() -> None:
    assert report(hit(), keep_query=False)["url"] == "https://data.example.org/datasets/caf%C3%A9s"


@pytest.mark.parametrize(
    ("described", "counts"),
    [
        ({"id": "rivers"}, ("view", "rivers", None)),
        ({"id": "rivers", "format": "csv"}, ("download", "rivers", "csv")),
        ({"id": "rivers", "event": "preview"}, ("preview", "rivers", None)),
        ({"format": "csv"}, ("request", None, None)),
        ({"id": "rivers", "event": "download", "format": "csv"}, ("download", "rivers", "csv")),
    ],
)
def test_what_the_host_says_counts(described: dict[str, Any], counts: tuple[Any, ...]) -> None:
    event = report(hit(described=described))
    assert (event["event"], event.get("id"), event.get("format")) == counts


def test_a_failed_request_for_an_item_is_an_error_of_the_item() -> None:
    event = report(hit(described={"id": "rivers", "format": "csv"}, status=404))
    assert (event["event"], event["id"], event.get("format")) == ("error", "rivers", None)


def test_the_scheme_that_a_trusted_proxy_tells_counts() -> None:
    told = hit(scheme="http", forwarded_scheme="https", forwarded="198.51.100.7")
    assert report(told)["url"].startswith("http://")
    trusted = report(told, trusted_proxies=("203.0.113.0/24",))
    assert (trusted["url"][:8], trusted["clientip"]) == ("https://", "198.51.100.7")


def test_what_is_not_there_has_no_name_that_a_stranger_chooses() -> None:
    assert report(hit(method="BREW", route="(unmatched)"))["action"] == "(other) (unmatched)"
    assert report(hit(method="PROPFIND"))["action"] == "PROPFIND /datasets/:name"


def test_websockets_have_the_addresses_of_their_pages() -> None:
    assert report(hit(scheme="wss"))["url"].startswith("https://")


@pytest.mark.parametrize(("protocol", "agent"), [("metronome", AGENT), ("matomo", None)])
def test_of_a_request_with_a_signal_nothing_is_told_that_identifies(protocol: Any, agent: str | None) -> None:
    event = report(hit(signalled=True, described={"user": "u", "visitor": "v", "session": "s"}), protocol=protocol)
    assert not {"clientip", "user", "visitor", "session"} & event.keys()
    assert event.get("agent") == agent
    assert "clientip" in report(hit(signalled=True), honour_privacy_signals=False)


def test_what_is_tracked_in_a_request_is_of_its_visitor() -> None:
    event = report(TrackedEvent(1_769_083_201.5, {"event": "shared", "agent": "mine"}, hit()))
    assert event["ts"] == 1_769_083_201_500
    assert (event["agent"], event["clientip"], event["lang"]) == ("mine", "203.0.113.77", "de, en;q=0.5")
    assert "duration" not in event
    assert "clientip" not in report(TrackedEvent(1.0, {"event": "shared"}, hit(signalled=True)))


@given(METHODS, STATUSES, st.lists(SEGMENTS, max_size=4).map(lambda parts: "/" + "/".join(parts)))
def test_items_and_events_are_those_of_access_logs(method: str, status: int | None, path: str) -> None:
    event = report(hit(method=method, status=status, path=path), item_pattern=PATTERN)
    rule = compile_item_pattern(PATTERN).classify(method, status, path)
    assert (event["event"], event.get("id"), event.get("format")) == tuple(rule)


@given(METHODS, STATUSES, st.sampled_from(["/a", "/a.csv"]))
def test_the_rule_is_that_of_access_logs(method: str, status: int | None, path: str) -> None:
    rule = ItemPattern().classify(method, status, path)
    assert classify_request(method, status, PathItem("a", "csv" if path.endswith("csv") else None)) == rule.event
