"""Each event of an archive counts once, however it is counted."""

from collections import Counter

import orjson
from hypothesis import given
from hypothesis import strategies as st

from metronome.archive.verify import SHARD_MAX_EVENTS, DistinctEventCounter, merge_counts, required_shards
from tests.archive.archived import build_document


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["view", "download"])), max_size=80),
    st.integers(1, 5),
    st.integers(1, 9),
)
def test_the_first_of_those_that_are_the_same_counts(events: list[tuple[int, str]], shares: int, pieces: int) -> None:
    lines = [build_document(f'e"{number}', event=event) for number, event in events]
    censuses = [DistinctEventCounter(share, shares) for share in range(shares)]
    for census in censuses:
        for at in range(0, len(lines), pieces):
            census.add(b"".join(lines[at : at + pieces]))
    first: dict[int, str] = {}
    for number, event in events:
        first.setdefault(number, event)
    assert merge_counts(censuses) == Counter(first.values())


def test_what_is_no_document_does_not_count() -> None:
    census = DistinctEventCounter()
    census.add(b'{}\n{"event_id":"1"}\n' + build_document("1") + orjson.dumps([1]) + b"\n")
    assert census.counts_by_event == {"view": 1}


def test_shares_are_as_many_as_memory_needs() -> None:
    counts = (0, 1, SHARD_MAX_EVENTS, SHARD_MAX_EVENTS + 1, 3 * SHARD_MAX_EVENTS)
    assert [required_shards(count) for count in counts] == [1, 1, 1, 2, 3]
