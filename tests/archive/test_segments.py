"""Objects by hour and their manifests are built, decoded and verified."""

import gzip
from hashlib import sha256
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.archive.segments import (
    OBJECT_PATH_PATTERN,
    ManifestEntry,
    build_objects,
    decode_manifest,
    decompress_object,
    encode_manifest,
    verify_object,
)
from metronome.errors import ArchiveDamaged
from metronome.spool import CommitRange

SPAN = CommitRange("web1-3f9a2c1b", 7, 12, (1_421_919_000_000, 1_421_920_000_123))
NAME = "web1-3f9a2c1b-000000000007-000000000012"


def line(hour: str, number: int, text: str = "") -> bytes:
    fields = {"@timestamp": f"2015-01-{hour}:30:00.000Z", "event_id": str(number), "@version": "1", "text": text}
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def test_builds_an_object_for_each_hour_and_lists_them_in_the_manifest() -> None:
    first, second, third = line("22T09", 1), line("22T10", 2), line("22T09", 3)
    upload = build_objects(SPAN, [first + second, third])
    nine, ten = f"2015/01/22/09/{NAME}.ndjson.gz", f"2015/01/22/10/{NAME}.ndjson.gz"
    assert {path: gzip.decompress(body) for path, body in upload.objects.items()} == {nine: first + third, ten: second}
    manifest = upload.manifest
    assert manifest.path == f"manifests/2015/01/22/{NAME}.json"
    assert manifest.received_between == ("2015-01-22T09:30:00.000Z", "2015-01-22T09:46:40.123Z")
    assert manifest.objects == tuple(
        ManifestEntry(path, events, len(body), sha256(body).hexdigest())
        for (path, body), events in zip(upload.objects.items(), (2, 1), strict=True)
    )
    assert manifest.events == 3
    assert decode_manifest(manifest.path, encode_manifest(manifest)) == manifest


def test_builds_the_same_objects_from_the_same_documents() -> None:
    lines = [line(f"{day:02}T{hour:02}", day * hour) for day in range(1, 20) for hour in range(24)]
    once = build_objects(SPAN, [b"".join(lines)])
    again = build_objects(SPAN, [b"".join(lines)])
    assert once == again
    # Other commits may give other bytes, but the same documents.
    other = build_objects(SPAN, lines)
    assert {path: gzip.decompress(body) for path, body in other.objects.items()} == {
        path: gzip.decompress(body) for path, body in once.objects.items()
    }


_HOURS = st.sampled_from(["22T09", "22T10", "23T00", "31T23"])
_TEXTS = st.sampled_from(["", "\n", '\n{"@timestamp":"2015-01-22T09', "\u2028\x85\x1c\r", "x" * 300_000])


@given(st.lists(st.lists(st.tuples(_HOURS, _TEXTS), min_size=1, max_size=12), max_size=5))
def test_each_document_is_in_the_object_of_its_hour_in_order(bodies: list[list[tuple[str, str]]]) -> None:
    numbered = [
        [(hour, line(hour, 100 * number + at, text)) for at, (hour, text) in enumerate(body)]
        for number, body in enumerate(bodies)
    ]
    upload = build_objects(SPAN, (b"".join(text for _, text in body) for body in numbered))
    wanted: dict[str, bytes] = {}
    for hour, text in (document for body in numbered for document in body):
        wanted[hour] = wanted.get(hour, b"") + text
    found = {path: decompress_object(path, body, None) for path, body in upload.objects.items()}
    assert found == {
        f"2015/01/{hour.replace('T', '/')}/{NAME}.ndjson.gz": text for hour, text in sorted(wanted.items())
    }
    assert all(earlier < later for earlier, later in pairwise(found))
    assert all(OBJECT_PATH_PATTERN.fullmatch(path) for path in found)
    assert [entry.events for entry in upload.manifest.objects] == [text.count(b"\n") for text in found.values()]


@given(st.data())
def test_detects_every_change_of_an_object(data: st.DataObject) -> None:
    upload = build_objects(SPAN, [line("22T09", number) for number in range(20)])
    ((path, body),), (listed,) = upload.objects.items(), upload.manifest.objects
    at = data.draw(st.integers(0, len(body) - 1))
    changed = data.draw(
        st.sampled_from([body[:at], body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :], body + b"x", body[at + 1 :]])
    )
    with pytest.raises(ArchiveDamaged, match=f"^{path} differs from its manifest"):
        decompress_object(path, changed, listed)
    with pytest.raises(ArchiveDamaged, match=f"^{path} differs from its manifest"):
        verify_object(path, changed, listed)
    assert verify_object(path, body, listed) == body
    assert decompress_object(path, body, listed).count(b"\n") == 20


@pytest.mark.parametrize("kept", [0, 5, 30, -9, -1])
def test_detects_a_truncated_object_without_its_manifest(kept: int) -> None:
    ((path, body),) = build_objects(SPAN, [line("22T09", number) for number in range(20)]).objects.items()
    with pytest.raises(ArchiveDamaged, match=f"^{path} is truncated, or not gzip"):
        decompress_object(path, body[:kept] or b"no gzip", None)
    with pytest.raises(ArchiveDamaged, match=f"^{path} is truncated, or not gzip"):
        verify_object(path, body[:kept] or b"no gzip", None)
    with pytest.raises(ArchiveDamaged, match="ends within a line"):
        decompress_object(path, gzip.compress(b'{"half'), None)


@given(
    st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.none() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(
                    st.sampled_from(["version", "arrived", "events", "objects", "path", "bytes", "sha256"]), inner
                )
            ),
        ).map(lambda value: orjson.dumps(value, default=str) if not _is_too_big(value) else b""),
    )
)
def test_rejects_invalid_manifests(body: bytes) -> None:
    try:
        manifest = decode_manifest("manifests/x.json", body)
    except ArchiveDamaged:
        return
    assert manifest.events == orjson.loads(body)["events"]


def _is_too_big(value: object) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return True
    return False
