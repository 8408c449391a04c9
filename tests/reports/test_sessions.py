"""Sessions are cut where a report reads them."""

from metronome.reports.sessions import PAUSE_MS, cut_sessions
from metronome.stores.sequences import EventSequence, SequenceEvent


def session(key: str, visitor: str | None, *times: int) -> EventSequence:
    return EventSequence(key, tuple(SequenceEvent(at, ("a", visitor)) for at in times))


def test_a_visitors_session_ends_with_a_pause_of_over_30_minutes() -> None:
    sessions = cut_sessions(session("v", "v", 0, PAUSE_MS, 2 * PAUSE_MS + 1, 2 * PAUSE_MS + 2), 1)
    assert [[event.timestamp_ms for event in each.events] for each in sessions] == [
        [0, PAUSE_MS],
        [2 * PAUSE_MS + 1, 2 * PAUSE_MS + 2],
    ]


def test_a_session_that_the_sender_set_is_left_as_it_is() -> None:
    for visitor in ("other", None):
        whole = session("s", visitor, 0, 10 * PAUSE_MS)
        assert list(cut_sessions(whole, 1)) == [whole]
