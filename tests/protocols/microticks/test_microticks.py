"""microticks: requests, the events of a session, and replies."""

from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import Forbidden, Malformed, MetronomeError, PayloadTooLarge, SpoolFull, Unauthorized
from metronome.event import DocumentContext, Event, build_document
from metronome.protocols.microticks.protocol import (
    INACTIVE_CONSUMER,
    INVALID_CONSUMER_KEY,
    MISSING_KEY,
    error_reply,
    parse_action,
    parse_consumer_key,
    parse_fields,
    parse_tick_timestamp,
    parse_token,
    success_reply,
)
from metronome.protocols.microticks.sessions import (
    Session,
    SessionAction,
    build_action_event,
    build_start_event,
    build_stop_event,
    check_not_stopped,
    decode_data,
    idempotent_event_id,
    new_token,
)

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
TS = "2017-08-25T17:09:19.438Z"
LATER = "2017-08-25T17:11:19.438Z"
TOKEN = "0123456789abcdef" * 2
SESSION = Session("table", TS)
CONTEXT = DocumentContext(received_at=LATER, min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z")


def document_of(event: Event) -> dict[str, object]:
    document: dict[str, object] = orjson.loads(build_document(event, CONTEXT, "spare"))
    return document


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"token=abc&action=click+it&data=%7B%7D&ts=1", FORM),
        (b"token=abc&action=click+it&data=%7B%7D&ts=1&action=second&token=", FORM),
        (b"token=abc&action=click+it&data=%7B%7D&ts=1", ""),
        (b'{"token":"abc","action":"click it","data":"{}","ts":"1"}', JSON),
        (b' {"token":"abc","action":"click it","data":"{}","ts":"1"}', FORM),
        (b'{"token":"abc","action":"click it","data":"{}","ts":"1"}', "text/plain"),
    ],
)
def test_parses_a_form_or_json_and_takes_the_first_value_of_a_name(body: bytes, content_type: str) -> None:
    assert parse_fields(body, content_type) == {"token": "abc", "action": "click it", "data": "{}", "ts": "1"}


@pytest.mark.parametrize(
    ("body", "content_type", "error"),
    [
        (b"[]", JSON, Malformed),
        (b"", JSON, Malformed),
        (b'{"a":', FORM, Malformed),
        (b'{"a":NaN}', JSON, Malformed),
        (b"a=1&" * 1001, FORM, PayloadTooLarge),
    ],
)
def test_rejects_other_bodies(body: bytes, content_type: str, error: type[MetronomeError]) -> None:
    with pytest.raises(error):
        parse_fields(body, content_type)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token": None}, 'No "token" parameter provided'),
        ({"token": ""}, "Could not find session"),
        ({"token": "ABCDEF"}, "Could not find session"),
        ({"token": 5}, "Could not find session"),
        ({"action": None}, 'No "action" parameter provided'),
        ({"action": ""}, 'No "action" parameter provided'),
        ({"action": 5}, 'invalid "action": expected a string such as click'),
        ({"data": None}, 'No "data" parameter provided'),
        ({"ts": None}, 'No "ts" parameter provided'),
        ({"ts": ""}, 'No "ts" parameter provided'),
    ],
)
def test_rejects_missing_and_invalid_fields_with_microticks_messages(changes: dict[str, object], message: str) -> None:
    fields = {"token": TOKEN, "action": "click", "data": "{}", "ts": TS, **changes}
    with pytest.raises(Malformed) as caught:
        _ = (parse_action(fields), parse_token(fields))
    assert str(caught.value) == message


@pytest.mark.parametrize("ts", ["yesterday", "2017-13-25", True, [], {}, "1969-01-01", float(2**80)])
def test_rejects_an_invalid_time(ts: object) -> None:
    with pytest.raises(Malformed, match='invalid "ts": '):
        parse_tick_timestamp({"ts": ts})


@pytest.mark.parametrize("ts", [TS, "2017-08-25T19:09:19.438+02:00", "1503680959438", 1503680959438])
def test_parses_times_in_any_zone(ts: object) -> None:
    assert parse_tick_timestamp({"ts": ts}) == TS


@pytest.mark.parametrize("key", [None, "", 5, ["a"]])
def test_a_consumer_needs_a_key(key: object) -> None:
    with pytest.raises(Unauthorized, match=r"^Invalid consumer_key$"):
        parse_consumer_key({"consumer_key": key})


def test_stores_data_as_text() -> None:
    fields = {"action": "click", "ts": TS}
    assert parse_action({**fields, "data": '{"a": 1}'}) == ("click", '{"a": 1}', TS)
    assert parse_action({**fields, "data": {"a": 1}}) == ("click", '{"a":1}', TS)
    assert parse_action({**fields, "data": ""}) == ("click", "", TS)


def test_top_level_fields_of_the_data_are_fields_of_the_event() -> None:
    data = '{"id":"moa","clickX":406,"on":true,"deep":{"a":1},"a.b":1,"none":null,"@timestamp":"x","session":"y"}'
    assert document_of(build_action_event(TOKEN, SESSION, SessionAction("open", data, LATER), "e1")) == {
        "@timestamp": LATER,
        "event_id": "e1",
        "@version": "1",
        "event": "open",
        "session": TOKEN,
        "consumer": "table",
        "session_started": TS,
        "protocol": "microticks",
        "action": "open",
        "data": data,
        "id": "moa",
        "clickX": 406,
        "on": True,
    }


@pytest.mark.parametrize(
    "data",
    [
        "",
        "book 5",
        "5",
        "[1]",
        "null",
        '{"id":[]}',
        orjson.dumps({"id": "x" * 1025}).decode(),
        orjson.dumps({f"f{number}": number for number in range(200)}).decode(),
        '{"huge":123456789012345678901234567890,"tiny":1e-300}',
    ],
)
def test_stores_any_data_unchanged(data: str) -> None:
    document = document_of(build_action_event(TOKEN, SESSION, SessionAction("open", data, LATER), "e1"))
    assert document["data"] == data
    assert not {"params", "event.original"} & document.keys()


def test_a_click_has_a_count_and_its_time_in_milliseconds() -> None:
    click = document_of(build_action_event(TOKEN, SESSION, SessionAction("click", "{}", LATER), "e1"))
    assert (click["session_clicks"], click["session_clicked"]) == (1, 1503681079438)
    assert "session_clicks" not in document_of(
        build_action_event(TOKEN, SESSION, SessionAction("swipe", "{}", LATER), "e1")
    )


def test_an_action_named_session_start_is_distinguished_from_a_start() -> None:
    start = document_of(build_start_event(TOKEN, SESSION))
    other = document_of(build_action_event(TOKEN, SESSION, SessionAction("session_start", "{}", TS), "e1"))
    assert start["event"] == other["event"] == "session_start"
    assert "action" in other
    assert "action" not in start


def test_the_events_of_start_and_stop_are_always_the_same() -> None:
    stopped = SESSION.with_stop(LATER)
    assert build_start_event(TOKEN, SESSION) == build_start_event(TOKEN, stopped.as_closed("again"))
    assert build_stop_event(TOKEN, stopped) == build_stop_event(TOKEN, stopped.as_closed(""))
    assert document_of(build_stop_event(TOKEN, stopped))["duration"] == 120_000


def test_a_stop_before_the_start_has_no_duration() -> None:
    document = document_of(build_stop_event(TOKEN, Session("table", LATER, TS)))
    assert document["@timestamp"] == TS
    assert "duration" not in document


def test_restores_a_session_and_the_request_that_closed_it() -> None:
    closed = SESSION.with_stop(LATER).as_closed("once")
    assert Session.from_record(closed.to_record()) == closed
    assert [closed.was_closed_by(key) for key in ("once", "other", "")] == [True, False, False]
    assert not SESSION.with_stop(LATER).as_closed("").was_closed_by("")
    assert SESSION.with_stop(LATER).without_stop() == SESSION
    with pytest.raises(Malformed, match=r"^Could not find session$"):
        Session.from_record(None)


def test_a_stopped_session_accepts_no_events() -> None:
    check_not_stopped(SESSION)
    with pytest.raises(Malformed, match=r"^Session was already stopped\.$"):
        check_not_stopped(SESSION.with_stop(LATER))


def test_a_consumer_gets_the_same_token_only_for_the_same_idempotency_key() -> None:
    tokens = [new_token("a", "1"), new_token("a", "2"), new_token("b", "1"), new_token("a", ""), new_token("a", "")]
    assert len(set(tokens)) == 5
    assert new_token("a", "1") == tokens[0]
    assert [parse_token({"token": token}) for token in tokens] == tokens
    assert idempotent_event_id(TOKEN, "1") == idempotent_event_id(TOKEN, "1") != idempotent_event_id("f" * 32, "1")


@pytest.mark.parametrize(
    ("error", "status", "message", "description"),
    [
        (Unauthorized(INVALID_CONSUMER_KEY), 401, INVALID_CONSUMER_KEY, "`metronome keys create NAME` creates one"),
        (Unauthorized(INACTIVE_CONSUMER), 401, INACTIVE_CONSUMER, "has expired or was revoked"),
        (Unauthorized(MISSING_KEY), 401, MISSING_KEY, "METRONOME_MICROTICKS_KEY"),
        (Forbidden("the key 'x' lacks the scope tick"), 401, "the key 'x' lacks the scope tick", "scope"),
        (Malformed("Could not find session"), 400, "Could not find session", "Could not find session"),
        (SpoolFull("the spool is full"), 503, "the spool is full", "bring the store back"),
        (PayloadTooLarge("the \ud800 is too large"), 413, "the \\ud800 is too large", "is too large"),
    ],
)
def test_error_replies_have_status_error_and_description(
    error: MetronomeError, status: int, message: str, description: str
) -> None:
    reply = error_reply(error)
    body = orjson.loads(reply.body)
    assert (reply.status, body["status"], body["error"]) == (status, status, message)
    assert description in body["description"]
    assert ("Retry-After" in reply.headers) == error.retry


def test_a_success_reply_has_the_status_in_its_body() -> None:
    assert orjson.loads(success_reply(token=TOKEN).body) == {"status": 200, "token": TOKEN}


@given(st.binary(max_size=200), st.sampled_from([FORM, JSON, "", "text/plain"]))
def test_any_body_is_parsed_or_rejected(body: bytes, content_type: str) -> None:
    try:
        fields = parse_fields(body, content_type)
        build_action_event(TOKEN, SESSION, parse_action(fields), "e1")
    except (Malformed, PayloadTooLarge):
        pass


NAMES = st.sampled_from(
    ["id", "event", "session", "ts", "time", "format", "bot", "referer", "clientip", "value", "a.b"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200),
    st.dictionaries(NAMES, VALUES.filter(lambda value: not isinstance(value, int) or abs(value) < 2**63)),
)
def test_the_document_of_any_action_has_its_data(action: str, data: dict[str, object]) -> None:
    try:
        text = orjson.dumps(data).decode()
    except TypeError:
        return
    fields = parse_fields(urlencode({"action": action, "data": text, "ts": TS}).encode(), FORM)
    document = document_of(build_action_event(TOKEN, SESSION, parse_action(fields), "e1"))
    assert (document["event"], document["action"], document["@timestamp"]) == (action, action, TS)
    assert (document["session"], document["consumer"]) == (TOKEN, "table")
    assert decode_data(str(document["data"])) == orjson.loads(text)
