"""Splitting syslog over TCP into messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.protocols.syslog.frames import SyslogFrameReader

MAX = 40


def frames_of(*pieces: bytes, max_bytes: int = MAX) -> tuple[list[bytes], bool]:
    """Return all frames of a connection that ends after these pieces, and whether it ended with an error."""
    reader, frames = SyslogFrameReader(max_bytes), list[bytes]()
    for piece in pieces:
        complete, too_large = reader.feed(piece)
        frames += complete
        if too_large is not None:
            return frames, True
    return frames + reader.finish(), False


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"<13>a\n<13>b\n", [b"<13>a", b"<13>b"]),
        (b"<13>a\0<13>b\0", [b"<13>a", b"<13>b"]),
        (b"<13>a\r\n\r\n\n\0<13>b\r\n", [b"<13>a", b"<13>b"]),
        (b"5 <13>a6 <13>bc", [b"<13>a", b"<13>bc"]),
        (b"7 <13>a\nb5 <13>c", [b"<13>a\nb", b"<13>c"]),
        (b"7 <13>a\0b", [b"<13>a\xef\xbf\xbdb"]),
        (b"6 <13>a\n5 <13>b", [b"<13>a", b"<13>b"]),
        (b"5 <13>a\n5 <13>b\n", [b"<13>a", b"<13>b"]),
        (b"<13>a\n5 <13>bc\n<13>d\n", [b"<13>a", b"<13>b", b"c", b"<13>d"]),
        (b"5 <13>a<13>b\n6 <13>cd", [b"<13>a", b"<13>b", b"<13>cd"]),
        (b"2015 was good\n12 <\n", [b"2015 was good"]),
        (b"192.0.2.7 - -\n5\n5 \n", [b"192.0.2.7 - -", b"5", b"5 "]),
        (b"05 <13>a\n", [b"05 <13>a"]),
        (b"plain", [b"plain"]),
        (b"12", [b"12"]),
        (b"", []),
        (b"\n\n", []),
        (b"<13>" + b"x" * (MAX - 4) + b"\n<13>b\n", [b"<13>" + b"x" * (MAX - 4), b"<13>b"]),
    ],
)
def test_both_ways_of_framing_may_be_mixed(sent: bytes, expected: list[bytes]) -> None:
    assert frames_of(sent) == (expected, False)


def test_an_incomplete_counted_frame_is_dropped() -> None:
    assert frames_of(b"5 <13>a9 <13>b") == ([b"<13>a"], False)


@pytest.mark.parametrize("end", [b"\n", b"\0"])
def test_skips_the_rest_of_a_line_that_is_too_long(end: bytes) -> None:
    reader = SyslogFrameReader(10)
    assert reader.feed(b"<13>" + b"x" * 100) == ([b"<13>xxxxxx"], None)
    assert reader.feed(b"y" * 100) == ([], None)
    assert reader.feed(b"z" + end + b"<13>b" + end) == ([b"<13>b"], None)
    assert reader.truncated_lines == 1
    assert reader.finish() == []


def test_truncates_the_last_line() -> None:
    assert frames_of(b"<13>" + b"x" * 100, max_bytes=10) == ([b"<13>xxxxxx"], False)


@pytest.mark.parametrize("length", [MAX + 1, 10**9, 10**19 - 1])
def test_a_counted_frame_over_the_limit_is_an_error_after_the_frames_before_it(length: int) -> None:
    frames, too_large = SyslogFrameReader(MAX).feed(b"<13>a\n5 <13>b%d <" % length)
    assert frames == [b"<13>a", b"<13>b"]
    assert too_large is not None
    assert f"a message of {length} bytes is over the limit of {MAX} bytes" in str(too_large)


def test_a_number_with_too_many_digits_is_a_line() -> None:
    assert frames_of(b"1" * 20 + b" <\n") == ([b"1" * 20 + b" <"], False)


def test_buffers_at_most_one_frame() -> None:
    reader = SyslogFrameReader(MAX)
    for _ in range(1000):
        reader.feed(b"x" * 100)
        assert len(reader._buffer) <= MAX + 100  # memory use has no public attribute


_pieces = st.one_of(
    st.sampled_from([b"<13>a", b"\n", b"\0", b"\r\n", b"5 <13>a", b"5 <", b"5", b" ", b"<", b"41 <", b"10 <13>"]),
    st.binary(max_size=50),
    st.binary(max_size=60).map(lambda text: b"%d <13>%b" % (len(text) + 4, text)),
)


@given(st.lists(_pieces, max_size=12).map(b"".join), st.data())
def test_frames_do_not_depend_on_how_the_bytes_are_split(sent: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=10)))
    pieces = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert frames_of(*pieces) == frames_of(sent)
    assert frames_of(*(sent[at : at + 1] for at in range(len(sent)))) == frames_of(sent)


@given(st.lists(st.binary(min_size=1, max_size=30).map(lambda text: b"<13>" + text.strip(b"\r\n\0")), max_size=20))
def test_returns_counted_frames_unchanged(messages: list[bytes]) -> None:
    sent = b"".join(b"%d %b" % (len(message), message) for message in messages)
    assert frames_of(sent) == ([message.replace(b"\0", "\ufffd".encode()) for message in messages], False)


@given(st.binary())
def test_no_frame_is_empty_or_contains_a_nul(sent: bytes) -> None:
    frames, _ = frames_of(sent)
    assert all(frames)
    assert not [frame for frame in frames if b"\0" in frame]
    assert max(map(len, frames), default=0) <= 3 * MAX
