"""Syslog over TCP: frames are told apart however the bytes come in pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.protocols.syslog.frames import SyslogFrameReader

MAX = 40


def frames_of(*pieces: bytes, max_bytes: int = MAX) -> tuple[list[bytes], bool]:
    """Return all frames of a connection that ends behind these pieces, and whether framing was lost before."""
    frames, found = SyslogFrameReader(max_bytes), list[bytes]()
    for piece in pieces:
        whole, lost = frames.feed(piece)
        found += whole
        if lost is not None:
            return found, True
    return found + frames.finish(), False


@pytest.mark.parametrize(
    ("sent", "found"),
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
def test_each_frame_says_how_it_is_bounded(sent: bytes, found: list[bytes]) -> None:
    assert frames_of(sent) == (found, False)


def test_what_is_counted_and_has_not_come_whole_is_no_frame() -> None:
    assert frames_of(b"5 <13>a9 <13>b") == ([b"<13>a"], False)


@pytest.mark.parametrize("end", [b"\n", b"\0"])
def test_of_a_line_that_is_too_long_the_rest_is_skipped(end: bytes) -> None:
    frames = SyslogFrameReader(10)
    whole, lost = frames.feed(b"<13>" + b"x" * 100)
    assert (whole, lost) == ([b"<13>xxxxxx"], None)
    assert frames.feed(b"y" * 100) == ([], None)
    assert frames.feed(b"z" + end + b"<13>b" + end) == ([b"<13>b"], None)
    assert frames.truncated_lines == 1
    assert frames.finish() == []


def test_a_line_that_is_too_long_may_be_the_last() -> None:
    assert frames_of(b"<13>" + b"x" * 100, max_bytes=10) == ([b"<13>xxxxxx"], False)


@pytest.mark.parametrize("promise", [MAX + 1, 10**9, 10**19 - 1])
def test_a_promise_of_too_much_ends_it_and_what_came_before_is_kept(promise: int) -> None:
    frames = SyslogFrameReader(MAX)
    whole, lost = frames.feed(b"<13>a\n5 <13>b%d <" % promise)
    assert whole == [b"<13>a", b"<13>b"]
    assert lost is not None
    assert f"promises {promise} bytes, and {MAX} are taken" in str(lost)


def test_more_digits_than_any_count_has_are_a_line() -> None:
    assert frames_of(b"1" * 20 + b" <\n") == ([b"1" * 20 + b" <"], False)


def test_no_more_is_held_than_a_frame_may_have() -> None:
    frames = SyslogFrameReader(MAX)
    for _ in range(1000):
        frames.feed(b"x" * 100)
        assert len(frames._buffer) <= MAX + 100  # what it takes in memory is nowhere else to be seen


_pieces = st.one_of(
    st.sampled_from([b"<13>a", b"\n", b"\0", b"\r\n", b"5 <13>a", b"5 <", b"5", b" ", b"<", b"41 <", b"10 <13>"]),
    st.binary(max_size=50),
    st.binary(max_size=60).map(lambda text: b"%d <13>%b" % (len(text) + 4, text)),
)


@given(st.lists(_pieces, max_size=12).map(b"".join), st.data())
def test_any_pieces_give_the_same_frames(sent: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=10)))
    pieces = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert frames_of(*pieces) == frames_of(sent)
    assert frames_of(*(sent[at : at + 1] for at in range(len(sent)))) == frames_of(sent)


@given(st.lists(st.binary(min_size=1, max_size=30).map(lambda text: b"<13>" + text.strip(b"\r\n\0")), max_size=20))
def test_what_is_counted_comes_out_as_it_went_in(messages: list[bytes]) -> None:
    sent = b"".join(b"%d %b" % (len(message), message) for message in messages)
    assert frames_of(sent) == ([message.replace(b"\0", "\ufffd".encode()) for message in messages], False)


@given(st.binary())
def test_no_frame_is_empty_or_has_a_nul_in_it(sent: bytes) -> None:
    found, _ = frames_of(sent)
    assert all(found)
    assert not [frame for frame in found if b"\0" in frame]
    assert max(map(len, found), default=0) <= 3 * MAX
