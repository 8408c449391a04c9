"""Splitting a connection's bytes into frames."""

import tracemalloc
from collections.abc import Iterable
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgpack import ExtType, packb

from metronome.errors import Malformed, PayloadTooLarge
from metronome.protocols.forward.messages import ForwardFrameReader

MIB: Final = 2**20
HEARTBEAT: Final = b"\xc0"
PACKED: Final = packb([1421919000, {"id": "a"}]) * 50
FRAMES: Final = [
    packb(["t", 1421919000, {"id": "a", "v": [1.5, None, True, {"x": b"y"}]}]),
    packb(["t", PACKED, {"chunk": "c"}]),
    packb(["t", PACKED, {"chunk": "c"}], use_bin_type=False),
    packb(["t", [[ExtType(0, bytes(8)), {"id": -5}]]]),
    packb(7),
    packb("x" * 300),
]
VALUES: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=300)
    | st.builds(ExtType, st.integers(0, 127), st.binary(max_size=20)),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=4), inner, max_size=20),
    max_leaves=10,
)


def read_frames(pieces: Iterable[bytes], max_bytes: int = MIB) -> tuple[list[bytes], type[Exception] | None]:
    """Return the frames in the pieces, and the type of the error that ended them."""
    reader = ForwardFrameReader(max_bytes)
    frames: list[bytes] = []
    try:
        for piece in pieces:
            # Not extend: the frames before an error count.
            for frame in reader.feed(piece):
                frames.append(frame)  # noqa: PERF402  # see above
    except (Malformed, PayloadTooLarge) as error:
        return frames, type(error)
    return frames, None


def split(content: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(content[:size])
        content = content[size:]
    return [*pieces, content]


@given(st.lists(st.integers(1, 400), max_size=12), st.integers(1, 30))
def test_frames_do_not_depend_on_how_the_bytes_are_split(sizes: list[int], size: int) -> None:
    content = b"".join(FRAMES)
    assert read_frames(split(content, sizes)) == (FRAMES, None)
    assert read_frames(content[at : at + size] for at in range(0, len(content), size)) == (FRAMES, None)


@given(st.lists(VALUES, max_size=4), st.data())
def test_reads_any_msgpack_value_as_a_frame(values: list[Any], data: st.DataObject) -> None:
    packed = [packb(value) for value in values]
    content = b"".join(packed)
    sizes = data.draw(st.lists(st.integers(1, max(1, len(content))), max_size=5))
    assert read_frames(split(content, sizes)) == ([frame for frame in packed if frame != HEARTBEAT], None)


def test_skips_heartbeats() -> None:
    assert read_frames([HEARTBEAT * 3 + FRAMES[0] + HEARTBEAT]) == (FRAMES[:1], None)


def test_reports_a_partial_frame_until_it_is_complete() -> None:
    reader = ForwardFrameReader(MIB)
    assert not reader.is_partial
    assert list(reader.feed(FRAMES[0][:-1])) == []
    assert reader.is_partial
    assert list(reader.feed(FRAMES[0][-1:])) == FRAMES[:1]
    assert not reader.is_partial


@pytest.mark.parametrize("garbage", [b"\xc1", b"\x92\xc1", b"\x91" * 5000, b"\x93\xa1t\xc1"])
def test_invalid_msgpack_raises_after_the_complete_frames(garbage: bytes) -> None:
    assert read_frames([FRAMES[0] + FRAMES[1] + garbage + FRAMES[2]]) == (FRAMES[:2], Malformed)
    assert read_frames([FRAMES[0][:5], FRAMES[0][5:] + garbage[:1], garbage[1:] + FRAMES[2]])[1] is Malformed


LARGE: Final = b"\xff\xff\xff\xff"
OVERSIZED_LENGTHS: Final = {
    "packed entries": b"\x92\xa1t\xc6" + LARGE,
    "packed entries in a text": b"\x93\xa1t\xdb" + LARGE,
    "a tag": b"\x92\xdb" + LARGE,
    "entries": b"\x92\xa1t\xdd" + LARGE,
    "an outer array": b"\xdd" + LARGE,
    "an outer map": b"\xdf" + LARGE,
    "an outer text": b"\xdb" + LARGE,
    "a record": b"\x93\xa1t\x01\xdf" + LARGE,
    "a value of a record": b"\x93\xa1t\x01\x81\xa1a\xc6" + LARGE,
    "a name in a record": b"\x93\xa1t\x01\x81\xdb" + LARGE,
    "an ext in an entry": b"\x92\xa1t\x91\x92\xc9\xff\xff\xff\xf0",
    "arrays in arrays": b"\x92\xa1t" + (b"\xdd\x00\x08\x00\x00" * 3),
    "an option": b"\x93\xa1t\xc4\x01a\x81\xa5chunk\xdb" + LARGE,
    "behind whole values": b"\x92\xa1t\xdc\x00\x10" + packb([1, {"a": "b"}]) * 9 + b"\x92\xdb" + LARGE,
}


@pytest.mark.parametrize("kind", OVERSIZED_LENGTHS)
def test_rejects_an_oversized_frame_once_more_than_the_limit_has_arrived(kind: str) -> None:
    frame = OVERSIZED_LENGTHS[kind]
    assert read_frames([FRAMES[0] + frame]) == (FRAMES[:1], None)
    content = bytes(2000)
    assert read_frames([frame, content[: 1000 - len(frame)]], 1000) == ([], None)
    assert read_frames([frame, content], 1000) == ([], PayloadTooLarge)


def test_an_announced_length_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        for frame in OVERSIZED_LENGTHS.values():
            assert read_frames([frame], 16 * MIB)[1] is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB


def test_accepts_a_frame_of_the_maximum_size_and_rejects_a_larger_one() -> None:
    frame = packb(["t", bytes(1000)])
    assert read_frames([frame], len(frame)) == ([frame], None)
    assert read_frames([frame + FRAMES[0]], len(frame) - 1) == ([], PayloadTooLarge)
    assert read_frames([frame[:500], frame[500:]], len(frame) - 1) == ([], PayloadTooLarge)


def test_reads_a_large_frame_from_small_pieces() -> None:
    frame = packb(["t", bytes(MIB // 2), {"chunk": "c"}])
    pieces = [frame[at : at + 1000] for at in range(0, len(frame), 1000)]
    assert read_frames(pieces) == ([frame], None)


def test_keeps_no_memory_of_a_large_frame_once_it_is_complete() -> None:
    readers = [ForwardFrameReader(16 * MIB) for _ in range(8)]
    frame = packb(["t", bytes(8 * MIB)])
    tracemalloc.start()
    try:
        for reader in readers:
            sizes = [len(complete) for piece in (frame[:MIB], frame[MIB:]) for complete in reader.feed(piece)]
            assert sizes == [len(frame)]
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 4 * MIB


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_are_read_or_rejected(pieces: list[bytes]) -> None:
    frames, _ = read_frames(pieces)
    assert len(b"".join(frames)) <= len(b"".join(pieces))
    assert read_frames([b"".join(pieces)])[0][: len(frames)] == frames


@given(st.integers(0, 5), st.integers(0, 500), st.integers(0, 255))
def test_corrupted_frames_are_read_or_rejected(which: int, at: int, value: int) -> None:
    changed = bytearray(FRAMES[which])
    changed[at % len(changed)] = value
    frames, error = read_frames([bytes(changed), FRAMES[0]])
    assert error in {None, Malformed, PayloadTooLarge}
    assert all(frames)
