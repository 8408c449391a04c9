"""How bytes become frames, whatever pieces they come in, and when they cannot any more."""

import tracemalloc
from collections.abc import Iterable
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgpack import ExtType, packb

from metronome.errors import Malformed, PayloadTooLarge
from metronome.protocols.forward.frames import ForwardFrameReader, min_frame_size

MIB: Final = 2**20
HEARTBEAT: Final = b"\xc0"
PACKED: Final = packb([1421919000, {"id": "a"}]) * 50
SOME: Final = [
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
    max_leaves=30,
)


def fed(pieces: Iterable[bytes], max_bytes: int = MIB) -> tuple[list[bytes], type[Exception] | None]:
    """Return the frames that come of pieces, and the kind of error that ended them."""
    frames = ForwardFrameReader(max_bytes)
    found: list[bytes] = []
    try:
        for piece in pieces:
            # Not extend: what comes before an error counts.
            for frame in frames.feed(piece):
                found.append(frame)  # noqa: PERF402  # see above
    except (Malformed, PayloadTooLarge) as error:
        return found, type(error)
    return found, None


def cut(content: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(content[:size])
        content = content[size:]
    return [*pieces, content]


@given(st.lists(st.integers(1, 400), max_size=12), st.integers(1, 30))
def test_frames_are_the_same_whatever_pieces_they_come_in(sizes: list[int], size: int) -> None:
    content = b"".join(SOME)
    assert fed(cut(content, sizes)) == (SOME, None)
    assert fed(content[at : at + size] for at in range(0, len(content), size)) == (SOME, None)


@given(st.lists(VALUES, max_size=4), st.data())
def test_any_values_are_framed(values: list[Any], data: st.DataObject) -> None:
    packed = [packb(value) for value in values]
    content = b"".join(packed)
    sizes = data.draw(st.lists(st.integers(1, max(1, len(content))), max_size=5))
    assert fed(cut(content, sizes)) == ([one for one in packed if one != HEARTBEAT], None)


def test_heartbeats_are_left_out() -> None:
    assert fed([HEARTBEAT * 3 + SOME[0] + HEARTBEAT]) == (SOME[:1], None)


def test_a_frame_that_has_begun_is_known_until_it_is_whole() -> None:
    frames = ForwardFrameReader(MIB)
    assert not frames.is_partial
    assert list(frames.feed(SOME[0][:-1])) == []
    assert frames.is_partial
    assert list(frames.feed(SOME[0][-1:])) == SOME[:1]
    assert not frames.is_partial


@pytest.mark.parametrize("garbage", [b"\xc1", b"\x92\xc1", b"\x91" * 5000, b"\x93\xa1t\xc1"])
def test_what_is_no_msgpack_ends_it_after_what_was_whole(garbage: bytes) -> None:
    assert fed([SOME[0] + SOME[1] + garbage + SOME[2]]) == (SOME[:2], Malformed)
    assert fed([SOME[0][:5], SOME[0][5:] + garbage[:1], garbage[1:] + SOME[2]])[1] is Malformed


LARGE: Final = b"\xff\xff\xff\xff"
PROMISES: Final = {
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
    "an ext in an entry": b"\x92\xa1t\x91\x92\xc9" + LARGE,
    "arrays in arrays": b"\x92\xa1t" + (b"\xdd\x00\x08\x00\x00" * 3),
    "an option": b"\x93\xa1t\xc4\x01a\x81\xa5chunk\xdb" + LARGE,
    "behind whole values": b"\x92\xa1t\xdc\x00\x10" + packb([1, {"a": "b"}]) * 9 + b"\x92\xdb" + LARGE,
}


@pytest.mark.parametrize("promise", PROMISES)
def test_a_length_that_promises_too_much_is_refused_before_it_comes(promise: str) -> None:
    assert fed([SOME[0] + PROMISES[promise]]) == (SOME[:1], PayloadTooLarge)
    # Byte by byte it is known as soon as the length is.
    promised = PROMISES[promise]
    assert fed([bytes([byte]) for byte in promised]) == ([], PayloadTooLarge)
    assert fed([promised[:-1]])[1] is (None if promise != "arrays in arrays" else PayloadTooLarge)


def test_a_promise_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        for promise in PROMISES.values():
            assert fed([promise], 16 * MIB)[1] in {PayloadTooLarge, None}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB


def test_a_frame_may_be_as_large_as_the_limit_and_no_larger() -> None:
    frame = packb(["t", bytes(1000)])
    assert fed([frame], len(frame)) == ([frame], None)
    assert fed([frame + SOME[0]], len(frame) - 1) == ([], PayloadTooLarge)
    assert fed([frame[:500], frame[500:]], len(frame) - 1) == ([], PayloadTooLarge)


def test_a_large_frame_in_small_pieces_is_held_once() -> None:
    frame = packb(["t", bytes(MIB // 2), {"chunk": "c"}])
    pieces = [frame[at : at + 1000] for at in range(0, len(frame), 1000)]
    assert fed(pieces) == ([frame], None)


@given(st.sampled_from(SOME), st.integers(0, 400))
def test_a_beginning_never_promises_more_than_there_is(frame: bytes, size: int) -> None:
    assert min(size, len(frame)) <= min_frame_size(frame[:size]) <= len(frame)


@given(VALUES, st.integers(0, 400))
def test_nor_does_that_of_any_value(value: Any, size: int) -> None:
    frame = packb(value)
    assert min(size, len(frame)) <= min_frame_size(frame[:size]) <= len(frame)


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_are_framed_or_refused(pieces: list[bytes]) -> None:
    found, _ = fed(pieces)
    assert len(b"".join(found)) <= len(b"".join(pieces))
    assert fed([b"".join(pieces)])[0][: len(found)] == found


@given(st.integers(0, 5), st.integers(0, 500), st.integers(0, 255))
def test_frames_that_were_changed_are_framed_or_refused(which: int, at: int, value: int) -> None:
    changed = bytearray(SOME[which])
    changed[at % len(changed)] = value
    found, error = fed([bytes(changed), SOME[0]])
    assert error in {None, Malformed, PayloadTooLarge}
    assert all(found)
