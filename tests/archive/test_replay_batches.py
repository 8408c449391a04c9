"""Parcels: all documents go, in their order, small objects together and large ones in parts."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.archive.inventory import ArchiveObject
from metronome.archive.replay import REPLAY_BATCH_MAX_BYTES, REPLAY_BATCH_MAX_EVENTS, ReplayBatch, ReplayBatcher


def packed(objects: list[bytes]) -> list[ReplayBatch]:
    packer = ReplayBatcher()
    parcels: list[ReplayBatch] = []
    for number, lines in enumerate(objects):
        parcels += packer.add(ArchiveObject(f"o{number}", date(2015, 1, 22), 1, None, ""), lines)
    return [*parcels, *packer.flush()]


_SIZES = st.sampled_from(
    [0, 1, 9, 300, REPLAY_BATCH_MAX_EVENTS - 1, REPLAY_BATCH_MAX_EVENTS, REPLAY_BATCH_MAX_EVENTS + 1, 25_000]
)
_WIDTHS = st.sampled_from([0, 1, 700, REPLAY_BATCH_MAX_BYTES // 3])


@pytest.mark.slow
@given(st.lists(st.tuples(_SIZES, _WIDTHS), max_size=6))
def test_every_document_goes_and_says_where_it_is_from(sizes: list[tuple[int, int]]) -> None:
    counts = [min(count, 60_000_000 // (width + 20)) for count, width in sizes]
    objects = [
        b"".join(b"%d %d %s\n" % (number, line, b"x" * width) for line in range(1, count + 1))
        for number, (count, (_, width)) in enumerate(zip(counts, sizes, strict=True))
    ]
    parcels = packed(objects)
    assert b"".join(parcel.body for parcel in parcels) == b"".join(objects)
    for parcel in parcels:
        lines = parcel.body.splitlines()
        assert parcel.events == len(lines) <= REPLAY_BATCH_MAX_EVENTS
        assert len(parcel.body) <= REPLAY_BATCH_MAX_BYTES or len(lines) == 1
        for index in {0, len(lines) // 2, len(lines) - 1} if lines else set():
            number, line, *_ = lines[index].split()
            assert parcel.location(index) == f"o{number.decode()}, line {int(line):,}"
        with pytest.raises(IndexError):
            parcel.location(len(lines))
    finished = [holding.path for parcel in parcels for holding in parcel.completed_objects]
    assert finished == [f"o{number}" for number in range(len(objects))]


def test_an_object_is_finished_with_its_last_document_and_not_before() -> None:
    first, second, third = packed([b"x\n" * 15_000, b"y\n" * 6_000, b"z\n"])
    assert [holding.path for holding in first.completed_objects] == []
    assert [holding.path for holding in second.completed_objects] == ["o0"]
    assert [holding.path for holding in third.completed_objects] == ["o1", "o2"]
    assert [(part.path, part.first_line, part.events) for part in second.parts] == [
        ("o0", 10_001, 5_000),
        ("o1", 1, 5_000),
    ]
