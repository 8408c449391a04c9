"""Properties of all events: every store accepts their documents, and nothing is lost."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from metronome.enrich.addresses import AddressRole, anonymize_address, anonymize_text
from metronome.enrich.countries import open_countries
from metronome.enrich.enrichment import Enrichment
from metronome.errors import Malformed, PayloadTooLarge
from metronome.event import DOCUMENT_HEAD_PATTERN, DocumentContext, Event, IngestConfig, build_document
from metronome.fields import REFERRER_FIELDS, TIMESTAMP_FIELDS
from metronome.protocol import Request
from metronome.protocols.native import tick
from metronome.times import parse_timestamp

CONTEXT = DocumentContext(
    received_at="2026-01-22T12:00:00.000Z",
    min_timestamp=None,
    max_timestamp="2026-01-23T12:00:00.000Z",
    config=IngestConfig(own_hosts=frozenset({"own.example"})),
)
ENRICHING = replace(
    CONTEXT,
    config=replace(
        CONTEXT.config,
        enrichment=Enrichment(open_countries("built-in"), frozenset({"a.example"}), CONTEXT.config.own_hosts),
    ),
    salts={"2026-01-22": b"s" * 32},
)
HERE = Path(__file__).parent
OUR_HOSTILE = HERE / "data" / "hostile.ndjson"
SHARED_HOSTILE = HERE.parent.parent / "shared" / "data" / "hostile-events.ndjson"
NOTHING = (None, "")

_texts = st.one_of(st.text(max_size=30), st.sampled_from(["", " ", "\0", "a.b", "é" * 600, "x" * 1025]))
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    _texts,
)
_values = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3))
_hosts = st.sampled_from(["localhost", "www.a.example", "www.www.b.example", "münchen.example", "own.example", "[::1]"])
_referers = st.one_of(
    st.builds("{}://{}/{}".format, st.sampled_from(["http", "https", "ftp"]), _hosts, st.text(max_size=20)),
    _hosts,
    _scalars,
)
_times = st.one_of(
    st.datetimes().map(str),
    st.integers(0, 1_769_000_000_000),
    st.floats(0, 1_769_000_000),
    st.none(),
    _values,
)
_known = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("id", "event", "format", "event_id", "session", "visitor", "bot", "referer_url"), _values),
        **dict.fromkeys(TIMESTAMP_FIELDS, _times),
        **dict.fromkeys(REFERRER_FIELDS, _referers),
        **dict.fromkeys(("duration", "value"), st.one_of(_values, st.floats().map(str))),
        "clientip": st.one_of(st.ip_addresses().map(str), _scalars),
        "@version": st.sampled_from(["1", "2", 1]),
        "params": _values,
        "event.original": _values,
        "_doc_count": _values,
    },
)
_names = st.one_of(_texts, st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,10}", fullmatch=True))
_telling = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("agent", "user_agent", "ua", "message", "country", "browser", "enrich_kept"), _values),
        "agent": st.sampled_from(
            ["Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "curl/8.5"]
        ),
        "url": st.sampled_from(["https://www.b.example/a?utm_source=s&utm_medium=email", "/a#pk_kwd=x", "http://["]),
        "event": st.sampled_from(["view", "download", "error", "rated"]),
        "status": st.sampled_from([200, 404, "503", True]),
        "clientip": st.ip_addresses(network="8.8.0.0/16").map(str) | st.ip_addresses(v=6).map(str),
    },
)
_events = st.builds(
    lambda known, other, many: {**other, **known, **{f"n{number}": number for number in range(many)}},
    _known,
    st.dictionaries(_names, _values, max_size=6),
    st.sampled_from([0, 0, 0, 99, 150]),
)


def read(body: bytes) -> Event | None:
    """Parse a body as one event; None if it is rejected."""
    try:
        (event,) = tick.parse(Request(body, "application/json", 10)).events
    except (Malformed, PayloadTooLarge):
        return None
    return event if isinstance(event, Event) else None


def encode(event: Event, spare: str = "spare", door: DocumentContext = CONTEXT) -> dict[str, Any] | None:
    """Return an event's document, after checking its form; None if it is rejected."""
    try:
        line = build_document(event, door, spare)
    except Malformed:
        return None
    head = re.match(DOCUMENT_HEAD_PATTERN, line)
    assert head
    doc: dict[str, Any] = orjson.loads(line)
    assert "-".join(part.decode() for part in head.groups()[:3]) == doc["@timestamp"][:10]
    assert orjson.loads(head[4]) == doc["event_id"]
    check_is_taken_by_any_mapping(line, doc)
    return doc


def check_is_taken_by_any_mapping(line: bytes, doc: dict[str, Any]) -> None:
    pairs = json.loads(line, object_pairs_hook=lambda pairs: pairs)
    assert len(pairs) == len(doc)
    assert len(doc) <= 125
    assert not any(character in line for character in b"\n\r\0")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", doc["@timestamp"])
    for name, value in doc.items():
        if name in {"params", "@timestamp", "@version", "event.original"}:
            continue
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,99}", name)
        assert value is None or type(value) in (str, bool, int, float)
        assert type(value) is not int or -(2**63) < value < 2**63
    assert doc["@version"] == "1"
    assert doc["event"]
    assert 0 < len(doc["event_id"].encode()) <= 512
    assert all(len(doc.get(name, "").encode()) <= 1024 for name in ("id", "event", "format", "bot"))
    assert len(doc.get("referer", "")) <= 1024
    assert ("params" in doc) == ("event.original" in doc)
    for name, value in doc.get("params", {}).items():
        assert type(value) is str
        assert name.strip()
        assert len(name) <= 257
        assert len(value) <= 1024
        assert "\0" not in name + value


def text_of(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def has_no_addresses(fields: dict[str, Any]) -> bool:
    """Return whether nothing but ``clientip`` may be truncated; tests of anonymization look at the others."""
    text = json.dumps({name: value for name, value in fields.items() if name != "clientip"})
    return anonymize_text(text, AddressRole.CLIENT) == text


def check_nothing_is_lost(body: bytes, doc: dict[str, Any]) -> None:
    fields = orjson.loads(body)
    address = fields.get("clientip")
    cut = anonymize_address(text_of(address)) if address is not None else None
    if "event.original" in doc:
        if cut is None or cut == address:
            assert doc["event.original"] == body.decode()
        else:
            assert orjson.loads(doc["event.original"]) == {**fields, "clientip": cut}
        return
    time = next((name for name in TIMESTAMP_FIELDS if fields.get(name) is not None), None)
    referer = next((name for name in REFERRER_FIELDS if fields.get(name) not in NOTHING), None)
    for name, value in fields.items():
        if name == time:
            assert doc["@timestamp"] == parse_timestamp(value)
        elif name == referer:
            assert text_of(value) in (doc.get("referer"), doc.get("referer_url"))
        elif name == "clientip" and cut is not None:
            assert doc[name] == cut
        elif name in {"id", "event_id", "event", "format", "bot"}:
            found = doc.get(name) or ""
            assert value in (*NOTHING, False, 0, "0", "false") or found in (text_of(value), text_of(value).lower())
        elif name in {"duration", "value"} and isinstance(value, str) and value != doc[name]:
            assert float(value) == doc[name]
        elif value not in NOTHING or name not in {"@timestamp", "clientip", "referer_url", *REFERRER_FIELDS}:
            assert name in doc
            assert doc[name] in (value, str(value)) or name in REFERRER_FIELDS


@settings(max_examples=4 * settings().max_examples)
@given(_events)
def test_any_event_is_rejected_or_stored_without_loss(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode()
    assume(has_no_addresses(fields))
    event = read(body)
    doc = encode(event) if event is not None else None
    if doc is not None:
        check_nothing_is_lost(body, doc)


@settings(max_examples=4 * settings().max_examples)
@given(_events)
def test_resent_documents_are_unchanged(fields: dict[str, Any]) -> None:
    assume(has_no_addresses(fields))
    event = read(json.dumps(fields).encode())
    doc = encode(event) if event is not None else None
    # A host without a dot is recognized by `referer_url`, unless the sender set that to something else.
    if doc is None or ("." not in doc.get("referer", ".").partition("/")[0] and "referer_url" in doc.get("params", ())):
        return
    body = orjson.dumps(doc)
    again = encode(Event(orjson.loads(body), body), "another")
    assert again is not None
    names = ("@timestamp", "event_id", "id", "event", "format", "referer", "bot", "duration", "value", "clientip")
    assert {name: again.get(name) for name in names} == {name: doc.get(name) for name in names}
    if "params" not in doc:
        assert again == doc


@pytest.mark.slow
@settings(max_examples=4 * settings().max_examples, deadline=None)  # The first agent has tables read for it.
@given(_events, _telling, st.sampled_from([ENRICHING, replace(ENRICHING, salts={})]))
@example({"referer": "localhost", **{f"n{number}": number for number in range(99)}}, {}, ENRICHING)
def test_resent_enriched_documents_are_unchanged(
    fields: dict[str, Any], telling: dict[str, Any], door: DocumentContext
) -> None:
    assume(has_no_addresses(fields))
    event = read(json.dumps({**fields, **telling}).encode())
    doc = encode(event, door=door) if event is not None else None
    if doc is None or "params" in doc:
        return
    body = orjson.dumps(doc)
    assert encode(Event(orjson.loads(body), body), "another", door) == doc


@given(st.dictionaries(_names, st.floats() | st.integers() | st.text(st.characters()), max_size=5))
def test_values_that_json_lacks_are_stored(fields: dict[str, Any]) -> None:
    encode(Event({name: value for name, value in fields.items() if name not in TIMESTAMP_FIELDS}))


def hostile(path: Path) -> list[Any]:
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    return [pytest.param(line["body"], id=line["name"]) for line in lines]


def run_the_gauntlet(text: str) -> None:
    body = text.encode(errors="surrogatepass")
    event = read(body)
    doc = encode(event) if event is not None else None
    if doc is not None:
        check_nothing_is_lost(body, doc)


@pytest.mark.parametrize("text", hostile(OUR_HOSTILE))
def test_hostile_events_do_no_harm(text: str) -> None:
    run_the_gauntlet(text)


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED_HOSTILE.exists(), reason="the shared data is not here")
@pytest.mark.parametrize("text", hostile(SHARED_HOSTILE))
def test_the_shared_hostile_events_do_no_harm(text: str) -> None:
    run_the_gauntlet(text)


REFUSED = {
    "NaN",
    "negative infinity",
    "number beyond doubles",
    "lone surrogate",
    "time of words",
    "time as object",
    "nested 2000 deep",
}


@pytest.mark.parametrize("text", hostile(OUR_HOSTILE))
def test_rejects_only_events_that_cannot_be_stored(request: pytest.FixtureRequest, text: str) -> None:
    event = read(text.encode())
    name = request.node.callspec.id
    assert (event is None or encode(event) is None) == (name in REFUSED), name
