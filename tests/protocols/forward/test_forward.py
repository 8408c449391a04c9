"""Parsing messages of the forward protocol, converting their entries to events, and acknowledgements."""

import gzip
import json
import sys
from collections.abc import Mapping
from itertools import islice, pairwise
from typing import Any, Final

import msgpack
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgpack import ExtType, packb

from metronome.errors import Malformed, PayloadTooLarge, UnsupportedEncoding
from metronome.event import DocumentContext, Event, build_document
from metronome.protocols.forward.listener import decompress_message
from metronome.protocols.forward.messages import (
    ForwardMessage,
    encode_ack,
    merge_messages,
    parse_message,
    split_message,
)
from tests.protocols.forward.parsing import encode_packed_forward, parse_frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB: Final = 2**20
SECONDS: Final = 1421919000
STAMP: Final = "2015-01-22T09:30:00.000Z"
EVENT_TIME: Final = ExtType(0, SECONDS.to_bytes(4, "big") + (123_456_789).to_bytes(4, "big"))
CONTEXT: Final = DocumentContext(
    received_at="2015-01-23T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
RECORD: Final = {"id": "a", "event": "view", "n": 1}
ENTRIES: Final = ([EVENT_TIME, RECORD], [SECONDS, {"id": "b", "event": "download"}])
PACKED: Final = b"".join(map(packb, ENTRIES))
FIELDS: Final = [
    {"id": "a", "event": "view", "n": 1, "type": "site.hits", "@timestamp": "2015-01-22T09:30:00.123Z"},
    {"id": "b", "event": "download", "type": "site.hits", "@timestamp": STAMP},
]
CHUNKS: Final = (
    "p8n9gmxTQVC8/nh2wlKKeQ==",
    "p8n9gmxTQVC8/nh2wlKKeQ==\n",
    "ä" * 40,
    b"\xff\x00" * 8,
    b"x" * 300,
    7,
    "",
)


def packb_old(value: object) -> bytes:
    """Pack as old libraries do, which send bytes as text."""
    return bytes(packb(value, use_bin_type=False))


def frame(*values: object) -> bytes:
    return bytes(packb(values))


def parse(body: bytes, max_entries: int = 100) -> list[Any]:
    """Return the fields of each event, or the type of the error in its place."""
    return [dict(event.fields) if isinstance(event, Event) else type(event) for event in parse_frame(body, max_entries)]


def ack_of(body: bytes) -> bytes:
    return encode_ack(parse_message(body).chunk_id)


def parse_entry(entry: bytes) -> Any:
    (fields,) = parse(packb(["t", entry]))
    return fields


def document_of(entry: bytes) -> dict[str, Any]:
    """Return the document that an entry becomes."""
    (event,) = parse_frame(packb(["t", entry]))
    assert isinstance(event, Event)
    document: dict[str, Any] = orjson.loads(build_document(event, CONTEXT, "spare"))
    return document


MODES: Final[Mapping[str, bytes]] = {
    "Forward": frame("site.hits", ENTRIES),
    "Forward with nil for options": frame("site.hits", ENTRIES, None),
    "Forward with options": frame("site.hits", ENTRIES, {"size": 2, "chunk": "c"}),
    "PackedForward": frame("site.hits", PACKED),
    "PackedForward with options": frame("site.hits", PACKED, {"size": 2, "chunk": "c"}),
    "PackedForward in a text": packb_old(["site.hits", PACKED, {"size": 2, "chunk": "c", "compressed": "text"}]),
    "PackedForward in a text of 32 bits": b"\x93\xa9site.hits\xdb" + len(PACKED).to_bytes(4, "big") + PACKED + b"\x80",
    "PackedForward in an array of 32 bits": b"\xdd\0\0\0\2" + packb("site.hits") + packb(PACKED),
    "CompressedPackedForward": frame("site.hits", gzip.compress(PACKED), {"compressed": "gzip"}),
    "CompressedPackedForward in a text": packb_old(["site.hits", gzip.compress(PACKED), {"compressed": "gzip"}]),
    "CompressedPackedForward in parts": frame(
        "site.hits", b"".join(gzip.compress(packb(entry)) for entry in ENTRIES), {"compressed": "gzip"}
    ),
    "CompressedPackedForward with zstd": frame("site.hits", zstd.compress(PACKED), {"compressed": "zstd"}),
    "a tag of bytes": frame(b"site.hits", PACKED),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_the_same_events(mode: str) -> None:
    assert parse(MODES[mode]) == FIELDS


@pytest.mark.parametrize("options", [(), (None,), ({},), ({"chunk": "c"},)])
def test_message_mode_gives_one_event(options: tuple[Any, ...]) -> None:
    assert parse(frame("site.hits", EVENT_TIME, RECORD, *options)) == FIELDS[:1]
    assert parse(frame("site.hits", SECONDS, ENTRIES[1][1], *options)) == FIELDS[1:]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("pack", [packb, packb_old])
@pytest.mark.parametrize(
    "values",
    [
        ["t", SECONDS, RECORD],
        ["t", ENTRIES],
        ["t", PACKED],
        ["t", gzip.compress(PACKED), {"compressed": "gzip"}],
        ["t", PACKED, {"compressed": "text", "size": 2}],
        ["t", []],
    ],
    ids=["Message", "Forward", "PackedForward", "CompressedPackedForward", "text", "heartbeat"],
)
def test_acknowledges_the_chunk_id_byte_for_byte(values: list[Any], pack: Any, chunk: object) -> None:
    options = values[-1] if isinstance(values[-1], dict) and values[-1] is not RECORD else {}
    mode = values[:-1] if options else values
    assert ack_of(pack([*mode, {**options, "chunk": chunk}])) == b"\x81\xa3ack" + pack(chunk)
    assert ack_of(pack([*mode, {"chunk": chunk, **options, "unknown": {"a": [1, {}]}}])) == b"\x81\xa3ack" + pack(chunk)


@pytest.mark.parametrize("options", [[], [None], [{}], [{"size": 1}], [{"chunk": None}], [7], [{1: 2, None: 3}]])
def test_a_message_without_a_chunk_id_is_not_acknowledged(options: list[Any]) -> None:
    assert ack_of(frame("t", PACKED, *options)) == b""
    assert ack_of(frame("t", SECONDS, RECORD, *options)) == b""


@pytest.mark.parametrize(
    ("time", "stamp"),
    [
        (packb(EVENT_TIME), "2015-01-22T09:30:00.123Z"),
        (b"\xc7\x08\x00" + EVENT_TIME.data, "2015-01-22T09:30:00.123Z"),
        (packb(SECONDS), STAMP),
        (b"\xcf" + SECONDS.to_bytes(8, "big"), STAMP),
        (b"\xd3" + SECONDS.to_bytes(8, "big"), STAMP),
        (packb(SECONDS + 0.25), "2015-01-22T09:30:00.250Z"),
        (packb(SECONDS * 1000 + 7), "2015-01-22T09:30:00.007Z"),
        (packb("2015-01-22T10:30:00+01:00"), STAMP),
        (packb(msgpack.Timestamp(SECONDS, 5_000_000)), "2015-01-22T09:30:00.005Z"),
        (packb(ExtType(0, SECONDS.to_bytes(4, "big") + b"\xff\xff\xff\xff")), "2015-01-22T09:30:04.294Z"),
        (packb([EVENT_TIME, {}]), "2015-01-22T09:30:00.123Z"),
        (packb([SECONDS]), STAMP),
        (packb(0), None),
        (packb(0.0), None),
        (packb(None), None),
        (packb(ExtType(0, bytes(8))), None),
        (packb(ExtType(0, bytes(7) + b"\1")), None),
        (b"\xc7\x08\x00" + bytes(8), None),
    ],
)
def test_an_event_has_the_time_of_its_entry(time: bytes, stamp: str | None) -> None:
    wanted = {"id": "a", "event": "view", "type": "t"}
    assert parse_entry(b"\x92" + time + packb({"id": "a", "event": "view"})) == (
        {**wanted, "@timestamp": stamp} if stamp else wanted
    )


@pytest.mark.parametrize(
    "time",
    ["yesterday", True, {}, [], -5, 1e300, float("nan"), 10**15 - 1, b"\xff", ExtType(0, b"1"), ExtType(5, b"x")],
)
def test_an_entry_with_an_invalid_time_is_rejected_alone(time: object) -> None:
    entries = packb(ENTRIES[0]) + packb([time, RECORD]) + packb(ENTRIES[1])
    assert parse(frame("site.hits", entries)) == [FIELDS[0], Malformed, FIELDS[1]]


@pytest.mark.parametrize(
    ("own", "stamp"),
    [
        ({"@timestamp": "2015-01-20T00:00:00Z"}, "2015-01-20T00:00:00.000Z"),
        ({"ts": 1421712000}, "2015-01-20T00:00:00.000Z"),
        ({"time": "0.012"}, STAMP),
        ({"time": 5}, STAMP),
        ({"timestamp": "soon"}, STAMP),
        ({"@timestamp": None}, STAMP),
        ({"time": {"at": 1}}, STAMP),
    ],
)
@pytest.mark.parametrize("kind", [{"id": "a", "event": "view"}, {"id": "a"}, {"level": "info", "message": "hello"}])
def test_a_valid_time_in_the_record_takes_precedence(kind: dict[str, Any], own: dict[str, Any], stamp: str) -> None:
    assert document_of(packb([SECONDS, {**kind, **own}]))["@timestamp"] == stamp


def test_an_access_log_line_has_the_time_in_the_line() -> None:
    line = '1.2.3.4 - - [20/Jan/2015:10:00:00 +0000] "GET /items/7 HTTP/1.1" 200 5 "-" "curl/8"'
    for name in ("log", "message"):
        document = document_of(packb([EVENT_TIME, {name: line, "stream": "stdout"}]))
        assert (document["@timestamp"], document["type"], document["stream"]) == (
            "2015-01-20T10:00:00.000Z",
            "t",
            "stdout",
        )
        assert (document["event"], document["id"], document["status"]) == ("view", "/items/7", 200)
        assert "1.2.3.4" not in str(document)


def test_a_log_record_is_not_a_view() -> None:
    document = document_of(packb([EVENT_TIME, {"log": "started", "container_name": "/web"}]))
    assert (document["event"], document["message"], document["type"]) == ("log", "started", "t")


def test_the_tag_becomes_the_type_of_events_without_one() -> None:
    assert parse_entry(packb([SECONDS, {"id": "a", "type": "own"}]))["type"] == "own"
    assert parse(frame("äö", PACKED))[0]["type"] == "äö"
    assert parse(packb_old([b"\xff.hits", PACKED]))[0]["type"] == "\\xff.hits"
    assert "type" not in parse(frame("", PACKED))[0]


def test_keeps_the_metadata_of_fluent_bit() -> None:
    document = document_of(
        packb([[EVENT_TIME, {"schema": "otlp", "n": float("inf")}], {"level": "info", "message": "m"}])
    )
    assert document["params"] == {"metadata.schema": "otlp", "metadata.n": "inf"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"caf\xc3\xa9", "café"),
        (b"\xff\x00a", "\\xff\0a"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (2.5, 2.5),
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
        (EVENT_TIME, "2015-01-22T09:30:00.123Z"),
        (ExtType(0, bytes(8)), "1970-01-01T00:00:00.000Z"),
        (ExtType(5, b"\1\xff"), "ext 5: 01ff"),
        (ExtType(0, b"short"), "ext 0: 73686f7274"),
        (msgpack.Timestamp(SECONDS, 0), STAMP),
        (msgpack.Timestamp(2**60, 5), "1152921504606846976.000000005"),
        ([1, [b"x", float("nan")]], [1, ["x", "nan"]]),
        ({"a": {b"b": b"c"}, 1: None, None: True, 2.5: "f"}, {"a": {"b": "c"}, "1": None, "null": True, "2.5": "f"}),
        ({1: "a", "1": "b", b"1": "c"}, {"1": "a", "1_": "b", "1__": "c"}),
    ],
)
def test_converts_every_value_of_a_record_to_json(value: object, expected: object) -> None:
    assert parse_entry(packb([SECONDS, {"id": "a", "event": "view", "v": value}]))["v"] == expected
    assert json.loads(json.dumps(expected)) == expected
    assert document_of(packb([SECONDS, {"id": "a", "event": "view", "v": value}]))["id"] == "a"


def test_converts_field_names_of_all_types_to_strings() -> None:
    record = {"id": "a", "event": "view", 1: "x", b"\xfe": "y", None: "z"}
    assert parse_entry(packb([SECONDS, record])).items() >= {"1": "x", "\\xfe": "y", "null": "z"}.items()


def test_escapes_text_that_is_not_utf_8() -> None:
    assert parse_entry(packb_old([SECONDS, {"id": "a", "event": "view", "v": b"a\xffb"}]))["v"] == "a\\xffb"


@pytest.mark.parametrize("time", [EVENT_TIME, SECONDS, [EVENT_TIME, {}]])
def test_keeps_duplicate_fields_in_the_original_of_the_document(time: object) -> None:
    record = b"\x84" + b"".join(map(packb, ["id", "a", "n", 1, "n", float("nan"), "event", "view"]))
    document = document_of(b"\x92" + packb(time) + record)
    assert document["event.original"] == '{"id":"a","n":1,"n":"nan","event":"view"}'
    assert document["params"] == {"[repeated]": '["n"]'}


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


BAD_ENTRIES: Final = {
    "no array": packb(7),
    "a map": packb({}),
    "a text": packb("hello"),
    "an array of none": packb([]),
    "an array of one": packb([SECONDS]),
    "an array of three": packb([SECONDS, RECORD, {}]),
    "a record that is a string": packb([SECONDS, "hello"]),
    "a record that is nil": packb([EVENT_TIME, None]),
    "a record that is an array": packb([[EVENT_TIME, {"a": 1}], [1]]),
    "a name that is an array": b"\x92" + packb(SECONDS) + b"\x81\x91\x01\x01",
    "a name that is a map": b"\x92" + packb(SECONDS) + b"\x81\x80\x01",
    "a timestamp of a wrong length": b"\x92" + packb(SECONDS) + b"\x81\xa1a\xc7\x05\xff12345",
    "a record nested too deeply": b"\x92" + packb(SECONDS) + b"\x81\xa1a" + nested(1000),
}


@pytest.mark.parametrize("bad", BAD_ENTRIES)
def test_an_invalid_entry_does_not_affect_the_others(bad: str) -> None:
    entries = packb(ENTRIES[0]) + BAD_ENTRIES[bad] + packb(ENTRIES[1])
    assert parse(frame("site.hits", entries, {"chunk": "c"})) == [FIELDS[0], Malformed, FIELDS[1]]
    assert ack_of(frame("site.hits", entries, {"chunk": "c"})) == b"\x81\xa3ack\xa1c"


@pytest.mark.parametrize("tail", [b"\xc1", PACKED[:20], b"\x92", nested(5000), b"\xdd\xff\xff\xff\xff"])
def test_keeps_the_entries_before_an_incomplete_one(tail: bytes) -> None:
    assert parse(frame("site.hits", PACKED + tail)) == [*FIELDS, Malformed]


def test_rejects_an_oversized_entry_without_unpacking_it() -> None:
    entries = packb([SECONDS, {"a": [{}] * (2 * MIB)}]) + packb(ENTRIES[1])
    assert parse(frame("site.hits", entries)) == [PayloadTooLarge, FIELDS[1]]


INVALID_FRAMES: Final = {
    "nothing in it": [],
    "a tag alone": ["t"],
    "five": ["t", PACKED, {}, {}, {}],
    "no text for a tag": [7, PACKED],
    "an array for a tag": [["t"], PACKED],
    "a time alone": ["t", SECONDS],
    "a map for a time": ["t", {}, RECORD],
    "a handshake": ["PING", "host", "salt", "digest", "", ""],
    "no array": 7,
    "a text": "GET / HTTP/1.1",
    "a map of all": {"tag": "t"},
    "nil": None,
    "an unknown encoding": ["t", PACKED, {"compressed": "lz4"}],
    "a broken encoding": ["t", PACKED, {"compressed": "gzip"}],
    "gzip that breaks off": ["t", gzip.compress(PACKED)[:-4], {"compressed": "gzip"}],
    "gzip with something behind it": ["t", gzip.compress(PACKED) + b"more", {"compressed": "gzip"}],
}


@pytest.mark.parametrize("kind", INVALID_FRAMES)
def test_rejects_a_frame_that_is_not_a_message(kind: str) -> None:
    with pytest.raises(Malformed):
        parse_frame(packb(INVALID_FRAMES[kind]))


def test_does_not_decompress_entries_beyond_the_limit() -> None:
    bomb = frame("t", gzip.compress(bytes(64 * MIB)), {"compressed": "gzip"})
    with pytest.raises(PayloadTooLarge, match="body_max_bytes"):
        parse_frame(bomb)


def test_accepts_a_large_chunk_with_each_entry_compressed_separately() -> None:
    parted = b"".join([gzip.compress(packb(ENTRIES[1]), 1)] * 12_000)
    assert parse(frame("site.hits", parted, {"compressed": "gzip"}), 20_000) == FIELDS[1:] * 12_000
    with pytest.raises(Malformed, match="members"):
        parse_frame(frame("t", gzip.compress(b"") * 12_000, {"compressed": "gzip"}))


@given(count=st.integers(0, 23), max_entries=st.integers(1, 9), tail=st.sampled_from([b"", b"\xc1", b"\x92"]))
def test_the_parts_of_a_message_hold_all_of_its_entries(count: int, max_entries: int, tail: bytes) -> None:
    packed = [packb([SECONDS, {"n": n}]) for n in range(count)]
    whole = ForwardMessage("t", b"".join(packed) + tail, b"\xa1c")
    parts = list(split_message(whole, max_entries))
    assert b"".join(part.entries for _, part, _ in parts) == whole.entries
    assert [part.chunk_id for _, part, _ in parts] == [b""] * (len(parts) - 1) + [b"\xa1c"]
    assert [first for first, _, _ in parts] == list(range(0, max(count + bool(tail), 1), max_entries))
    for first, part, ends in parts:
        assert part.entries.startswith(b"".join(islice(packed, first, first + max_entries)))
        assert ends.offsets == next(split_message(part, max_entries + 1))[2].offsets
    assert [ends.error is not None for _, _, ends in parts] == [False] * (len(parts) - 1) + [bool(tail)]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.binary(max_size=3), st.sampled_from([b"", b"\xa1c"])), max_size=12))
def test_merges_messages_of_one_tag_that_want_no_acknowledgement(
    values_of_messages: list[tuple[str, bytes, bytes]],
) -> None:
    messages = [ForwardMessage(*values) for values in values_of_messages]
    merged = list(merge_messages(messages))
    assert [message for message in merged if message.chunk_id] == [message for message in messages if message.chunk_id]
    assert b"".join(message.entries for message in merged) == b"".join(message.entries for message in messages)
    for first, second in pairwise(merged):
        assert first.tag != second.tag or first.chunk_id or second.chunk_id


@pytest.mark.parametrize("encoding", ["", "gzip", "zstd", "lz4"])
@pytest.mark.parametrize("chunk", [b"", b"\xa1c", packb(b"\xff" * 300)])
@pytest.mark.parametrize("tag", ["", "site.hits", "\\xff", "ä" * 200])
def test_parses_what_it_encodes(tag: str, chunk: bytes, encoding: str) -> None:
    message = ForwardMessage(tag, PACKED, chunk, encoding)
    assert parse_message(encode_packed_forward(message)) == message


RECORDINGS: Final = [*MODES.values(), *[frame("t", entry) for entry in BAD_ENTRIES.values()]]


@given(
    st.sampled_from(RECORDINGS), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4), st.data()
)
def test_corrupted_frames_are_parsed_or_rejected(
    recording: bytes, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    changed = bytearray(recording)
    for at, value in changes:
        changed[at % len(changed)] = value
    check_converts(bytes(changed))
    check_converts(bytes(changed[: data.draw(st.integers(0, len(changed)))]))


@given(st.binary(max_size=60))
def test_any_bytes_are_parsed_or_rejected(body: bytes) -> None:
    check_converts(body)
    check_converts(frame("t", body))
    check_converts(packb("t").join((b"\x92", body)))


VALUES: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.builds(ExtType, st.integers(0, 127), st.binary(max_size=9)),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES, VALUES)
def test_any_values_are_parsed_or_rejected(time: Any, record: Any) -> None:
    check_converts(frame("t", [[time, record], ENTRIES[0]]))
    check_converts(frame("t", time, record, record))
    if isinstance(record, dict):
        (fields,) = parse(frame("t", packb([SECONDS, record])))
        assert fields is Malformed or json.dumps(fields, allow_nan=False)


def check_converts(body: bytes) -> None:
    """Convert a frame to documents; it may raise nothing but Malformed and PayloadTooLarge."""
    try:
        message = decompress_message(parse_message(body), MIB)
        events = parse_frame(encode_packed_forward(message))
    except (Malformed, PayloadTooLarge, UnsupportedEncoding):
        return
    for event in events:
        assert isinstance(event, (Event, Malformed, PayloadTooLarge))
        if isinstance(event, Event):
            try:
                build_document(event, CONTEXT, "spare")
            except (Malformed, PayloadTooLarge):
                continue


def group_marker(seconds: int, record: Mapping[str, Any], *, packed: bool = True) -> list[Any]:
    time = ExtType(0, seconds.to_bytes(4, "big") + bytes(4))
    return [[time, {"schema": "otlp", "resource_id": 0}], record] if packed else [time, record]


GROUP: Final = {
    "resource": {"attributes": {"service.name": "shop", "host.name": "web1"}},
    "scope": {"name": "lib", "version": "2", "attributes": {}},
}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("max_entries", [1, 2, 3, 100])
def test_records_of_a_group_have_the_attributes_of_their_resource(max_entries: int, *, packed: bool) -> None:
    entries = [
        [EVENT_TIME, {"log": "before"}],
        group_marker(2**32 - 1, GROUP, packed=packed),
        [[EVENT_TIME, {}], {"log": "first", "host.name": "own"}],
        [EVENT_TIME, {"log": "second"}],
        group_marker(2**32 - 2, {}, packed=packed),
        [EVENT_TIME, {"log": "between"}],
        group_marker(2**32 - 1, {"resource": {"attributes": {"service.name": "other"}}}, packed=packed),
        [EVENT_TIME, {"log": "third"}],
        group_marker(2**32 - 2, {}, packed=packed),
    ]
    events = [event.fields for event in parse_frame(packb(["t", entries]), max_entries) if isinstance(event, Event)]
    found = [tuple(map(event.get, ("message", "service.name", "host.name", "otel.scope.name"))) for event in events]
    assert found == [
        ("before", None, None, None),
        ("first", "shop", "own", "lib"),
        ("second", "shop", "web1", "lib"),
        ("between", None, None, None),
        ("third", "other", None, None),
    ]


@pytest.mark.parametrize("record", [None, 7, {}, {"resource": 1, "scope": []}, {"resource": {"attributes": {1: b"x"}}}])
def test_a_marker_with_unusual_content_is_not_an_event(record: Any) -> None:
    entries = [group_marker(2**32 - 1, record), [EVENT_TIME, {"log": "one"}], group_marker(2**32 - 2, record)]
    (event,) = parse_frame(packb(["t", entries]))
    assert isinstance(event, Event)
    assert event.fields["message"] == "one"
