"""Documents are packed in order: those of small objects together, those of large ones in parts."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.archive.inventory import ArchiveObject
from metronome.archive.replay import ReplayBatch, ReplayBatcher
from metronome.server_client import BATCH_MAX_BYTES, REQUEST_MAX_EVENTS


def pack(objects: list[bytes]) -> list[ReplayBatch]:
    batcher = ReplayBatcher()
    batches: list[ReplayBatch] = []
    for number, lines in enumerate(objects):
        batches += batcher.add(ArchiveObject(f"o{number}", date(2015, 1, 22), 1, None, ""), lines)
    return [*batches, *batcher.flush()]


_SIZES = st.sampled_from([0, 1, 9, 300, REQUEST_MAX_EVENTS - 1, REQUEST_MAX_EVENTS, REQUEST_MAX_EVENTS + 1, 25_000])
_WIDTHS = st.sampled_from([0, 1, 700, BATCH_MAX_BYTES // 3])


@pytest.mark.slow
@given(st.lists(st.tuples(_SIZES, _WIDTHS), max_size=6))
def test_every_document_is_sent_with_its_location(sizes: list[tuple[int, int]]) -> None:
    counts = [min(count, 60_000_000 // (width + 20)) for count, width in sizes]
    objects = [
        b"".join(b"%d %d %s\n" % (number, line, b"x" * width) for line in range(1, count + 1))
        for number, (count, (_, width)) in enumerate(zip(counts, sizes, strict=True))
    ]
    batches = pack(objects)
    assert b"".join(batch.body for batch in batches) == b"".join(objects)
    for batch in batches:
        lines = batch.body.splitlines()
        assert batch.events == len(lines) <= REQUEST_MAX_EVENTS
        assert len(batch.body) <= BATCH_MAX_BYTES or len(lines) == 1
        for index in {0, len(lines) // 2, len(lines) - 1} if lines else set():
            number, line, *_ = lines[index].split()
            assert batch.location(index) == f"o{number.decode()}, line {int(line):,}"
        with pytest.raises(IndexError):
            batch.location(len(lines))
    completed = [archive_object.path for batch in batches for archive_object in batch.completed_objects]
    assert completed == [f"o{number}" for number in range(len(objects))]


def test_an_object_is_complete_with_its_last_document() -> None:
    first, second, third = pack([b"x\n" * 15_000, b"y\n" * 6_000, b"z\n"])
    assert [archive_object.path for archive_object in first.completed_objects] == []
    assert [archive_object.path for archive_object in second.completed_objects] == ["o0"]
    assert [archive_object.path for archive_object in third.completed_objects] == ["o1", "o2"]
    assert [(part.path, part.first_line, part.events) for part in second.parts] == [
        ("o0", 10_001, 5_000),
        ("o1", 1, 5_000),
    ]
