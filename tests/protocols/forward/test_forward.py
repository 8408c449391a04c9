"""The forward protocol: what each mode's frames hold, and what is answered."""

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

from metronome.errors import Malformed, PayloadTooLarge, SpoolFull, UnsupportedEncoding
from metronome.event import DocumentContext, Event, build_document
from metronome.protocol import IngestResult, Request
from metronome.protocols.forward.protocol import ForwardProtocol
from metronome.protocols.forward.transport import (
    ForwardMessage,
    decompress_message,
    encode_packed_forward,
    find_entry_ends,
    merge_messages,
    parse_message,
    split_message,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB: Final = 2**20
FORWARD: Final = ForwardProtocol(16 * MIB, MIB)
SECONDS: Final = 1421919000
STAMP: Final = "2015-01-22T09:30:00.000Z"
EVENT_TIME: Final = ExtType(0, SECONDS.to_bytes(4, "big") + (123_456_789).to_bytes(4, "big"))
DOOR: Final = DocumentContext(
    received_at="2015-01-23T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
RECORD: Final = {"id": "a", "event": "view", "n": 1}
ENTRIES: Final = ([EVENT_TIME, RECORD], [SECONDS, {"id": "b", "event": "download"}])
PACKED: Final = b"".join(map(packb, ENTRIES))
FOUND: Final = [
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


def old(value: object) -> bytes:
    """Pack as old libraries do, for which bytes are texts."""
    return bytes(packb(value, use_bin_type=False))


def frame(*values: object) -> bytes:
    return bytes(packb(values))


def read(body: bytes, max_events: int = 100) -> list[Any]:
    """Return the fields of each event, or the kind of error in its place."""
    readings = FORWARD.parse(Request(body, "", max_events))
    return [dict(event.fields) if isinstance(event, Event) else type(event) for event in readings.events]


def answer(body: bytes) -> bytes:
    readings = FORWARD.parse(Request(body, "", 100))
    return FORWARD.reply(Request(body, "", 100), readings, IngestResult(len(list(readings.events)), {})).body


def one(entry: bytes) -> Any:
    (found,) = read(packb(["t", entry]))
    return found


def stored(entry: bytes) -> dict[str, Any]:
    """Return the document that an entry becomes."""
    readings = FORWARD.parse(Request(packb(["t", entry]), "", 100))
    (event,) = readings.events
    assert isinstance(event, Event)
    found: dict[str, Any] = orjson.loads(build_document(event, DOOR, "spare"))
    return found


MODES: Final[Mapping[str, bytes]] = {
    "Forward": frame("site.hits", ENTRIES),
    "Forward with nil for options": frame("site.hits", ENTRIES, None),
    "Forward with options": frame("site.hits", ENTRIES, {"size": 2, "chunk": "c"}),
    "PackedForward": frame("site.hits", PACKED),
    "PackedForward with options": frame("site.hits", PACKED, {"size": 2, "chunk": "c"}),
    "PackedForward in a text": old(["site.hits", PACKED, {"size": 2, "chunk": "c", "compressed": "text"}]),
    "PackedForward in a text of 32 bits": b"\x93\xa9site.hits\xdb" + len(PACKED).to_bytes(4, "big") + PACKED + b"\x80",
    "PackedForward in an array of 32 bits": b"\xdd\0\0\0\2" + packb("site.hits") + packb(PACKED),
    "CompressedPackedForward": frame("site.hits", gzip.compress(PACKED), {"compressed": "gzip"}),
    "CompressedPackedForward in a text": old(["site.hits", gzip.compress(PACKED), {"compressed": "gzip"}]),
    "CompressedPackedForward in parts": frame(
        "site.hits", b"".join(gzip.compress(packb(entry)) for entry in ENTRIES), {"compressed": "gzip"}
    ),
    "CompressedPackedForward with zstd": frame("site.hits", zstd.compress(PACKED), {"compressed": "zstd"}),
    "a tag of bytes": frame(b"site.hits", PACKED),
}


@pytest.mark.parametrize("mode", MODES)
def test_the_same_events_come_of_every_mode(mode: str) -> None:
    assert read(MODES[mode]) == FOUND


@pytest.mark.parametrize("options", [(), (None,), ({},), ({"chunk": "c"},)])
def test_a_message_is_one_event(options: tuple[Any, ...]) -> None:
    assert read(frame("site.hits", EVENT_TIME, RECORD, *options)) == FOUND[:1]
    assert read(frame("site.hits", SECONDS, ENTRIES[1][1], *options)) == FOUND[1:]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("pack", [packb, old])
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
def test_a_chunk_is_acknowledged_byte_for_byte(values: list[Any], pack: Any, chunk: object) -> None:
    options = values[-1] if isinstance(values[-1], dict) and values[-1] is not RECORD else {}
    mode = values[:-1] if options else values
    assert answer(pack([*mode, {**options, "chunk": chunk}])) == b"\x81\xa3ack" + pack(chunk)
    assert answer(pack([*mode, {"chunk": chunk, **options, "unknown": {"a": [1, {}]}}])) == b"\x81\xa3ack" + pack(chunk)


@pytest.mark.parametrize("options", [[], [None], [{}], [{"size": 1}], [{"chunk": None}], [7], [{1: 2, None: 3}]])
def test_without_a_chunk_nothing_is_answered(options: list[Any]) -> None:
    assert answer(frame("t", PACKED, *options)) == b""
    assert answer(frame("t", SECONDS, RECORD, *options)) == b""


def test_a_refusal_has_no_word_in_the_protocol() -> None:
    assert FORWARD.reply_error(Request(b"", "", 1), SpoolFull("full")).body == b""
    assert FORWARD.extract_key(Request(b"", "", 1)) == ""


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
def test_an_entry_has_its_time(time: bytes, stamp: str | None) -> None:
    wanted = {"id": "a", "event": "view", "type": "t"}
    assert one(b"\x92" + time + packb({"id": "a", "event": "view"})) == (
        {**wanted, "@timestamp": stamp} if stamp else wanted
    )


@pytest.mark.parametrize(
    "time", ["yesterday", True, {}, [], -5, 1e300, float("nan"), 2**64 - 1, b"\xff", ExtType(0, b"1"), ExtType(5, b"x")]
)
def test_an_entry_whose_time_is_none_fails_alone(time: object) -> None:
    entries = packb(ENTRIES[0]) + packb([time, RECORD]) + packb(ENTRIES[1])
    assert read(frame("site.hits", entries)) == [FOUND[0], Malformed, FOUND[1]]


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
def test_a_record_s_own_time_comes_first_if_it_is_one(kind: dict[str, Any], own: dict[str, Any], stamp: str) -> None:
    assert stored(packb([SECONDS, {**kind, **own}]))["@timestamp"] == stamp


def test_the_time_of_a_line_of_an_access_log_is_that_in_the_line() -> None:
    line = '1.2.3.4 - - [20/Jan/2015:10:00:00 +0000] "GET /items/7 HTTP/1.1" 200 5 "-" "curl/8"'
    for name in ("log", "message"):
        found = stored(packb([EVENT_TIME, {name: line, "stream": "stdout"}]))
        assert (found["@timestamp"], found["type"], found["stream"]) == ("2015-01-20T10:00:00.000Z", "t", "stdout")
        assert (found["event"], found["id"], found["status"]) == ("view", "/items/7", 200)
        assert "1.2.3.4" not in str(found)


def test_a_record_of_a_log_is_no_view() -> None:
    found = stored(packb([EVENT_TIME, {"log": "started", "container_name": "/web"}]))
    assert (found["event"], found["message"], found["type"]) == ("log", "started", "t")


def test_the_tag_becomes_the_type_of_what_has_none() -> None:
    assert one(packb([SECONDS, {"id": "a", "type": "own"}]))["type"] == "own"
    assert read(frame("äö", PACKED))[0]["type"] == "äö"
    assert read(old([b"\xff.hits", PACKED]))[0]["type"] == "\\xff.hits"
    assert "type" not in read(frame("", PACKED))[0]


def test_the_metadata_of_fluent_bit_are_kept() -> None:
    found = stored(packb([[EVENT_TIME, {"schema": "otlp", "n": float("inf")}], {"level": "info", "message": "m"}]))
    assert found["params"] == {"metadata.schema": "otlp", "metadata.n": "inf"}


@pytest.mark.parametrize(
    ("value", "kept"),
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
def test_every_value_of_a_record_is_kept_in_words_that_json_has(value: object, kept: object) -> None:
    assert one(packb([SECONDS, {"id": "a", "event": "view", "v": value}]))["v"] == kept
    assert json.loads(json.dumps(kept)) == kept
    assert stored(packb([SECONDS, {"id": "a", "event": "view", "v": value}]))["id"] == "a"


def test_names_of_all_types_become_texts() -> None:
    record = {"id": "a", "event": "view", 1: "x", b"\xfe": "y", None: "z"}
    assert one(packb([SECONDS, record])).items() >= {"1": "x", "\\xfe": "y", "null": "z"}.items()


def test_text_that_is_no_utf_8_stays_readable() -> None:
    assert one(old([SECONDS, {"id": "a", "event": "view", "v": b"a\xffb"}]))["v"] == "a\\xffb"


@pytest.mark.parametrize("time", [EVENT_TIME, SECONDS, [EVENT_TIME, {}]])
def test_fields_of_one_name_are_all_kept_where_the_document_keeps_what_came(time: object) -> None:
    record = b"\x84" + b"".join(map(packb, ["id", "a", "n", 1, "n", float("nan"), "event", "view"]))
    found = stored(b"\x92" + packb(time) + record)
    assert found["event.original"] == '{"id":"a","n":1,"n":"nan","event":"view"}'
    assert found["params"] == {"[repeated]": '["n"]'}


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


BAD_ENTRIES: Final = {
    "no array": packb(7),
    "a map": packb({}),
    "a text": packb("hello"),
    "an array of none": packb([]),
    "an array of one": packb([SECONDS]),
    "an array of three": packb([SECONDS, RECORD, {}]),
    "a record that is none": packb([SECONDS, "hello"]),
    "a record that is nil": packb([EVENT_TIME, None]),
    "a record that is an array": packb([[EVENT_TIME, {"a": 1}], [1]]),
    "a name that is an array": b"\x92" + packb(SECONDS) + b"\x81\x91\x01\x01",
    "a name that is a map": b"\x92" + packb(SECONDS) + b"\x81\x80\x01",
    "a timestamp of a wrong length": b"\x92" + packb(SECONDS) + b"\x81\xa1a\xc7\x05\xff12345",
    "a record nested too deeply": b"\x92" + packb(SECONDS) + b"\x81\xa1a" + nested(1000),
}


@pytest.mark.parametrize("bad", BAD_ENTRIES)
def test_a_bad_entry_fails_no_neighbour(bad: str) -> None:
    entries = packb(ENTRIES[0]) + BAD_ENTRIES[bad] + packb(ENTRIES[1])
    assert read(frame("site.hits", entries, {"chunk": "c"})) == [FOUND[0], Malformed, FOUND[1]]
    assert answer(frame("site.hits", entries, {"chunk": "c"})) == b"\x81\xa3ack\xa1c"


@pytest.mark.parametrize("tail", [b"\xc1", PACKED[:20], b"\x92", nested(5000), b"\xdd\xff\xff\xff\xff"])
def test_entries_that_break_off_leave_those_before(tail: bytes) -> None:
    assert read(frame("site.hits", PACKED + tail)) == [*FOUND, Malformed]


def test_an_entry_that_can_only_be_too_large_is_not_unpacked() -> None:
    entries = packb([SECONDS, {"a": [{}] * (2 * MIB)}]) + packb(ENTRIES[1])
    assert read(frame("site.hits", entries)) == [PayloadTooLarge, FOUND[1]]


SENSELESS: Final = {
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


@pytest.mark.parametrize("kind", SENSELESS)
def test_a_frame_that_carries_no_events_is_malformed(kind: str) -> None:
    with pytest.raises(Malformed):
        FORWARD.parse(Request(packb(SENSELESS[kind]), "", 100))


def test_compressed_entries_are_not_decoded_beyond_the_limit() -> None:
    bomb = frame("t", gzip.compress(bytes(64 * MIB)), {"compressed": "gzip"})
    with pytest.raises(PayloadTooLarge, match="body_max_bytes"):
        FORWARD.parse(Request(bomb, "", 100))


def test_a_buffer_that_compresses_each_entry_apart_may_be_large() -> None:
    parted = b"".join([gzip.compress(packb(ENTRIES[1]), 1)] * 12_000)
    assert read(frame("site.hits", parted, {"compressed": "gzip"}), 20_000) == FOUND[1:] * 12_000
    with pytest.raises(Malformed, match="parts"):
        FORWARD.parse(Request(frame("t", gzip.compress(b"") * 12_000, {"compressed": "gzip"}), "", 100))


def test_more_entries_than_allowed_are_refused_at_once() -> None:
    assert len(read(frame("t", packb(ENTRIES[1]) * 10), 10)) == 10
    with pytest.raises(PayloadTooLarge, match="batch_max_events"):
        read(frame("t", packb(ENTRIES[1]) * 11), 10)


@given(count=st.integers(0, 23), most=st.integers(1, 9), tail=st.sampled_from([b"", b"\xc1", b"\x92"]))
def test_parts_hold_all_that_the_whole_holds(count: int, most: int, tail: bytes) -> None:
    packed = [packb([SECONDS, {"n": n}]) for n in range(count)]
    whole = ForwardMessage("t", b"".join(packed) + tail, b"\xa1c")
    cut = list(split_message(whole, most))
    assert b"".join(part.entries for _, part, _ in cut) == whole.entries
    assert [part.chunk_id for _, part, _ in cut] == [b""] * (len(cut) - 1) + [b"\xa1c"]
    assert [first for first, _, _ in cut] == list(range(0, max(count + bool(tail), 1), most))
    for first, part, ends in cut:
        assert part.entries.startswith(b"".join(islice(packed, first, first + most)))
        assert ends[0] == find_entry_ends(part.entries)[0]
    assert [broken is not None for _, _, (_, broken) in cut] == [False] * (len(cut) - 1) + [bool(tail)]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.binary(max_size=3), st.sampled_from([b"", b"\xa1c"])), max_size=12))
def test_neighbours_of_one_tag_are_joined_unless_they_are_acknowledged(given: list[tuple[str, bytes, bytes]]) -> None:
    single = [ForwardMessage(*values) for values in given]
    together = list(merge_messages(single))
    assert [one for one in together if one.chunk_id] == [one for one in single if one.chunk_id]
    assert b"".join(one.entries for one in together) == b"".join(one.entries for one in single)
    for before, behind in pairwise(together):
        assert before.tag != behind.tag or before.chunk_id or behind.chunk_id


@pytest.mark.parametrize("encoding", ["", "gzip", "zstd", "lz4"])
@pytest.mark.parametrize("chunk", [b"", b"\xa1c", packb(b"\xff" * 300)])
@pytest.mark.parametrize("tag", ["", "site.hits", "\\xff", "ä" * 200])
def test_what_is_written_is_read_again(tag: str, chunk: bytes, encoding: str) -> None:
    transport = ForwardMessage(tag, PACKED, chunk, encoding)
    assert parse_message(encode_packed_forward(transport)) == transport


RECORDINGS: Final = [*MODES.values(), *[frame("t", entry) for entry in BAD_ENTRIES.values()]]


@given(
    st.sampled_from(RECORDINGS), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4), st.data()
)
def test_frames_that_were_changed_on_their_way_are_read_or_refused(
    recording: bytes, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    changed = bytearray(recording)
    for at, value in changes:
        changed[at % len(changed)] = value
    check(bytes(changed))
    check(bytes(changed[: data.draw(st.integers(0, len(changed)))]))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    check(body)
    check(frame("t", body))
    check(packb("t").join((b"\x92", body)))


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
def test_any_values_are_read_or_refused(time: Any, record: Any) -> None:
    check(frame("t", [[time, record], ENTRIES[0]]))
    check(frame("t", time, record, record))
    if isinstance(record, dict):
        found = read(frame("t", packb([SECONDS, record])))
        assert len(found) == 1
        assert found[0] is Malformed or json.dumps(found[0], allow_nan=False)


def check(body: bytes) -> None:
    """Read a frame and make documents of its events; nothing but Malformed and PayloadTooLarge may come of it."""
    try:
        transport = decompress_message(parse_message(body), MIB)
        readings = FORWARD.parse(Request(encode_packed_forward(transport), "", 100))
    except (Malformed, PayloadTooLarge, UnsupportedEncoding):
        return
    for reading in readings.events:
        assert isinstance(reading, (Event, Malformed, PayloadTooLarge))
        if isinstance(reading, Event):
            try:
                build_document(reading, DOOR, "spare")
            except (Malformed, PayloadTooLarge):
                continue
