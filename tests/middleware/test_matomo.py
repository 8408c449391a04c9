"""Events in the form of Matomo's Tracking API, as Matomo and Metronome read them."""

import math
from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metronome.event import Event
from metronome.matomo_parameters import PARAMETERS, Parameter
from metronome.middleware import events
from metronome.middleware.config import ClientConfig
from metronome.middleware.events import EventBuilder
from metronome.middleware.matomo import SENT_PARAMETERS, SPECIAL_FIELDS, MatomoProtocol, visitor_id
from metronome.middleware.transport import SendOutcome, TargetResponse
from metronome.protocol import Request
from metronome.protocols.matomo import tracker
from tests.middleware.records import AGENT, record

CONFIG = ClientConfig(url="https://matomo.example.org", protocol="matomo", key="t0ken", site=7, dimensions={"plan": 2})
REQUIRED_PARAMETERS = (
    *("action_name", "url", "_id", "urlref", "ua", "lang", "cdt", "pf_srv", "rand", "apiv", "rec", "send_image"),
    *("idsite", "cip"),
)
"""The parameters that each request of the protocol has; `token_auth` is given once for the whole bulk request."""


def parameters(event: dict[str, Any], config: ClientConfig = CONFIG) -> dict[str, str]:
    query = orjson.loads(MatomoProtocol(config).encode(event, "r4nd"))
    assert query.startswith("?idsite=")
    return dict(parse_qsl(query[1:], keep_blank_values=True))


def request_parameters(config: ClientConfig = CONFIG, **changes: Any) -> dict[str, str]:
    return parameters(EventBuilder(config).build_event(record(**changes)), config)


def read(*events: dict[str, Any]) -> list[Any]:
    """Return events as Metronome parses them from a bulk request."""
    protocol = MatomoProtocol(CONFIG)
    body = (
        protocol.body_prefix
        + protocol.separator.join(protocol.encode(event, f"e{n}") for n, event in enumerate(events))
        + protocol.body_suffix
    )
    request = Request(
        body, "application/json", 1000, "POST", "/matomo.php", received_at="2026-01-22T12:00:00.000Z", is_trusted=True
    )
    return [event.fields if isinstance(event, Event) else event for event in tracker.parse(request).events]


def test_a_request_has_every_parameter_of_the_protocol() -> None:
    found = request_parameters()
    assert found == {
        "idsite": "7",
        "rec": "1",
        "apiv": "1",
        "send_image": "0",
        "action_name": "GET /datasets/:name",
        "url": "https://data.example.org/datasets/caf%C3%A9s?as=csv&x=1",
        "urlref": "https://www.example.net/links/",
        "ua": AGENT,
        "lang": "de, en;q=0.5",
        "_id": visitor_id("203.0.113.77", AGENT),
        "cip": "203.0.113.77",
        "cdt": "1769083200",
        "pf_srv": "12",
        "rand": "r4nd",
        "http_status": "200",
    }
    assert set(REQUIRED_PARAMETERS) == found.keys() - {"http_status"}


def test_the_token_is_given_once_and_without_one_no_address_is_sent() -> None:
    assert MatomoProtocol(CONFIG).body_suffix == b'],"token_auth":"t0ken"}'
    found = request_parameters(ClientConfig(url="https://matomo.example.org", protocol="matomo"))
    assert "cip" not in found
    assert found["_id"] == visitor_id("203.0.113.77", AGENT)


def test_a_request_reported_at_its_start_has_no_server_time() -> None:
    assert "pf_srv" not in request_parameters(duration_ms=None)


def test_a_privacy_signal_removes_identifying_parameters() -> None:
    assert not {"_id", "cip", "ua", "uid"} & request_parameters(opted_out=True, extra_fields={"user": "u"}).keys()


def test_a_download_has_its_url_as_download() -> None:
    found = request_parameters(extra_fields={"id": "rivers", "format": "csv"})
    assert found["download"] == found["url"]


def test_each_field_and_each_parameter_occurs_once() -> None:
    fields = [parameter.field for parameter in PARAMETERS]
    names = [parameter.name for parameter in PARAMETERS]
    assert len(set(fields)) == len(fields)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "parameter", [parameter for parameter in PARAMETERS if parameter.is_sent], ids=lambda parameter: parameter.name
)
def test_each_field_that_is_sent_is_read_back_by_the_server(parameter: Parameter) -> None:
    value = 4.5 if parameter.is_number else "7"
    (event,) = read({"event": "event", "ts": 1_769_083_200_000, parameter.field: value})
    assert event[parameter.field] == value


EVENTS = [
    events.page_view("Rivers", url="https://data.example.org/rivers"),
    events.download("https://data.example.org/rivers.csv"),
    events.outlink("https://example.net/"),
    events.event("video", "play", "intro", 2.5),
    events.site_search("rivers", category="data", count=3),
    events.goal(4, revenue=2.0),
    events.content("banner", piece="a.png", target="https://example.net/"),
    events.content("banner", interaction="click"),
    {
        "event": "order",
        "goal": "0",
        "order": "A-1",
        "revenue": 12.5,
        "items": '[["s-1","Map","Maps",9.5,2]]',
        "tax": 1.5,
    },
    {"event": "cart", "goal": "0", "revenue": 19.0, "items": '[["s-1","Map","Maps",9.5,2]]'},
    {"event": "view", "product": "s-1", "product_name": "Map", "product_price": 9.5},
    events.exception(ValueError("no")),
]


@pytest.mark.parametrize("sent", EVENTS, ids=lambda sent: f"{sent['event']} {len(sent)}")
def test_an_event_sent_as_matomo_s_arrives_unchanged_at_metronome(sent: dict[str, Any]) -> None:
    visit = {"agent": AGENT, "lang": "de", "clientip": "203.0.113.77", "dimension3": "x"}
    (event,) = read({"ts": 1_769_083_200_000, **visit, **sent})
    common = {
        "idsite": 7,
        "visitor": visitor_id("203.0.113.77", AGENT),
        "@timestamp": "2026-01-22T12:00:00.000Z",
        **visit,
    }
    derived = {"id", "format"}  # Derived by Metronome from the URL of a page or file.
    own = {name: value for name, value in event.items() if name not in {*common, *derived, "ca"}}
    assert own == sent
    assert {name: event[name] for name in common} == common


def test_a_request_sent_as_matomo_s_keeps_what_matomo_has_parameters_for() -> None:
    (event,) = read(EventBuilder(CONFIG).build_event(record(status=404)))
    assert (event["event"], event["status"], event["pf_srv"]) == ("error", 404, 12)
    assert (event["title"], event["referer"]) == ("GET /datasets/:name", "https://www.example.net/links/")


def test_a_custom_event_is_a_matomo_event_with_its_custom_dimension() -> None:
    found = parameters({"ts": 0, "event": "shared", "id": "rivers", "value": 2, "plan": "free"})
    assert (found["e_c"], found["e_a"], found["e_n"], found["e_v"]) == ("shared", "shared", "rivers", "2")
    assert found["dimension2"] == "free"


def test_a_log_record_is_an_event_and_an_error_is_a_crash() -> None:
    found = parameters({"event": "log", "message": "it rains", "level": "INFO"})
    assert (found["e_c"], found["e_n"]) == ("log", "it rains")
    crash = parameters({"event": "error", "message": "it broke", "error_type": "KeyError", "error_stack": "at"})
    assert (crash["cra"], crash["cra_tp"], crash["cra_st"], crash["ca"]) == ("it broke", "KeyError", "at", "1")


@given(
    st.dictionaries(
        st.sampled_from([*SENT_PARAMETERS, *SPECIAL_FIELDS - {"ts"}, "clientip", "plan", "other"]),
        st.text(min_size=1, max_size=20) | st.integers() | st.floats(allow_nan=False) | st.booleans(),
        max_size=8,
    )
)
@example({"event": "view", "duration": math.inf})
def test_any_fields_can_be_parsed(fields: dict[str, Any]) -> None:
    found = parameters(fields)
    assert (found["idsite"], found["rec"]) == ("7", "1")
    (event,) = read({"ts": 1_769_083_200_000, **fields})
    assert not isinstance(event, Exception)
    for field, parameter in SENT_PARAMETERS.items():
        if isinstance(fields.get(field), str) and field not in {"download", "title", "category"}:
            assert found[parameter] == fields[field].encode(errors="replace").decode()


def evaluate(status: int, body: bytes = b"", count: int = 3) -> SendOutcome:
    return MatomoProtocol(CONFIG).evaluate_response(TargetResponse(status, {}, body), count)


def test_responses_are_evaluated() -> None:
    assert evaluate(200, b'{"status":"success","tracked":3,"invalid":0}') == SendOutcome(sent=3)
    assert evaluate(204) == SendOutcome(sent=3)
    for status in (200, 400):
        partial = evaluate(status, b'{"status":"success","tracked":2,"invalid":1}')
        assert (partial.sent, partial.rejected, partial.retry) == (2, 1, False)
    assert evaluate(200, b"<html>") == SendOutcome(rejected=3, reason=evaluate(200).reason)
    assert evaluate(503).retry
    assert evaluate(401).rejected == 3
    assert evaluate(413).split


@given(st.integers(100, 599), st.binary(max_size=60))
def test_any_answer_is_evaluate(status: int, body: bytes) -> None:
    outcome = evaluate(status, body)
    assert outcome.retry or outcome.split or outcome.rejected or outcome.sent
