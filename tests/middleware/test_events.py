"""Events of requests and of the host's own code."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.items import ItemPattern, compile_item_pattern
from metronome.middleware.config import ClientConfig
from metronome.middleware.current_request import RequestRecord, TrackedEvent
from metronome.middleware.events import REQUEST_FIELDS, EventBuilder, PathItem, classify_request
from tests.middleware.records import AGENT, record

METHODS = st.sampled_from(["GET", "HEAD", "POST", "get"])
STATUSES = st.none() | st.integers(100, 599)
PATTERN = r"^/datasets/(?P<id>[^/.]+)(?:\.(?P<format>\w+))?$"
SEGMENTS = st.sampled_from(["datasets", "a", "b.CSV", "caf%C3%A9s", "%zz", "x" * 1100, ""])


def build_event(source: RequestRecord | TrackedEvent, **config: Any) -> dict[str, Any]:
    return EventBuilder(ClientConfig(url="http://localhost:8080", **config)).build_event(source)


def test_a_request_has_all_its_fields() -> None:
    event = build_event(record())
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


def test_the_query_can_be_omitted() -> None:
    assert build_event(record(), keep_query=False)["url"] == "https://data.example.org/datasets/caf%C3%A9s"


@pytest.mark.parametrize(
    ("extra_fields", "expected"),
    [
        ({"id": "rivers"}, ("view", "rivers", None)),
        ({"id": "rivers", "format": "csv"}, ("download", "rivers", "csv")),
        ({"id": "rivers", "event": "preview"}, ("preview", "rivers", None)),
        ({"format": "csv"}, ("request", None, None)),
        ({"id": "rivers", "event": "download", "format": "csv"}, ("download", "rivers", "csv")),
    ],
)
def test_fields_of_the_host_take_precedence(extra_fields: dict[str, Any], expected: tuple[Any, ...]) -> None:
    event = build_event(record(extra_fields=extra_fields))
    assert (event["event"], event.get("id"), event.get("format")) == expected


def test_a_failed_request_for_an_item_is_an_error_of_the_item() -> None:
    event = build_event(record(extra_fields={"id": "rivers", "format": "csv"}, status=404))
    assert (event["event"], event["id"], event.get("format")) == ("error", "rivers", None)


def test_the_forwarded_scheme_of_a_trusted_proxy_is_used() -> None:
    proxied = record(scheme="http", forwarded_proto="https", forwarded_for="198.51.100.7")
    assert build_event(proxied)["url"].startswith("http://")
    trusted = build_event(proxied, trusted_proxies=("203.0.113.0/24",))
    assert (trusted["url"][:8], trusted["clientip"]) == ("https://", "198.51.100.7")


def test_unusual_methods_of_unmatched_requests_share_one_action() -> None:
    assert build_event(record(method="BREW", route="(unmatched)"))["action"] == "(other) (unmatched)"
    assert build_event(record(method="PROPFIND"))["action"] == "PROPFIND /datasets/:name"


def test_websocket_urls_are_reported_as_http_urls() -> None:
    assert build_event(record(scheme="wss"))["url"].startswith("https://")


@pytest.mark.parametrize(("protocol", "agent"), [("metronome", AGENT), ("matomo", None)])
def test_a_privacy_signal_removes_identifying_fields(protocol: Any, agent: str | None) -> None:
    event = build_event(
        record(opted_out=True, extra_fields={"user": "u", "visitor": "v", "session": "s"}), protocol=protocol
    )
    assert not {"clientip", "user", "visitor", "session"} & event.keys()
    assert event.get("agent") == agent
    assert "clientip" in build_event(record(opted_out=True), honour_privacy_signals=False)


def test_an_event_tracked_during_a_request_has_its_visitor() -> None:
    event = build_event(TrackedEvent(1_769_083_201.5, {"event": "shared", "agent": "mine"}, record()))
    assert event["ts"] == 1_769_083_201_500
    assert (event["agent"], event["clientip"], event["lang"]) == ("mine", "203.0.113.77", "de, en;q=0.5")
    assert "duration" not in event
    assert "clientip" not in build_event(TrackedEvent(1.0, {"event": "shared"}, record(opted_out=True)))


@given(METHODS, STATUSES, st.lists(SEGMENTS, max_size=4).map(lambda parts: "/" + "/".join(parts)))
def test_item_patterns_match_as_in_access_logs(method: str, status: int | None, path: str) -> None:
    event = build_event(record(method=method, status=status, path=path), item_pattern=PATTERN)
    rule = compile_item_pattern(PATTERN).classify(method, status, path)
    assert (event["event"], event.get("id"), event.get("format")) == tuple(rule)


@given(METHODS, STATUSES, st.sampled_from(["/a", "/a.csv"]))
def test_requests_are_classified_as_in_access_logs(method: str, status: int | None, path: str) -> None:
    rule = ItemPattern().classify(method, status, path)
    assert classify_request(method, status, PathItem("a", "csv" if path.endswith("csv") else None)) == rule.event
