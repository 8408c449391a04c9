"""Readers of a spool: a commit is kept until each of them has acknowledged it, through restarts."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metronome.spool import (
    ARCHIVE_READER,
    SPOOL_FILE_NAME,
    STORE_READER,
    CommitRange,
    SpoolReader,
    SpoolWriter,
    register_readers,
)

ROOM = 10**9
BOTH = (STORE_READER, ARCHIVE_READER)


async def put(folder: Path, *bodies: bytes) -> None:
    spool = SpoolWriter(folder, ROOM)
    for body in bodies:
        await spool.put(body, body.count(b"\n"))
    await spool.close()


def rows(folder: Path) -> list[int]:
    with closing(sqlite3.connect(folder / SPOOL_FILE_NAME)) as database:
        return [seq for (seq,) in database.execute("SELECT seq FROM commits ORDER BY seq")]


def bodies_of(spool_reader: SpoolReader, span: CommitRange) -> bytes:
    return b"".join(spool_reader.iterate_bodies(span))


async def test_commit_is_kept_until_all_readers_acknowledge_it(tmp_path: Path) -> None:
    register_readers(tmp_path, BOTH)
    await put(tmp_path, b"1\n", b"2\n", b"3\n")
    with SpoolReader(tmp_path, STORE_READER) as store, SpoolReader(tmp_path, ARCHIVE_READER) as archive:
        store.acknowledge(3)
        assert rows(tmp_path) == [1, 2, 3]
        assert store.read_chunk(0, ROOM) is None
        assert (store.pending_stats().events, archive.pending_stats().events, store.total_stats().events) == (0, 3, 3)
        archive.acknowledge(2)
        assert rows(tmp_path) == [3]
        assert (archive.pending_stats().events, archive.total_stats().bytes) == (1, 2)
        archive.acknowledge(3)
        assert rows(tmp_path) == []


@pytest.mark.parametrize("slow", BOTH)
async def test_reopened_reader_continues_after_its_last_acknowledgement(tmp_path: Path, slow: str) -> None:
    register_readers(tmp_path, BOTH)
    await put(tmp_path, b"1\n", b"2\n", b"3\n")
    quick = next(name for name in BOTH if name != slow)
    with SpoolReader(tmp_path, quick) as spool_reader:
        spool_reader.acknowledge(3)
    with SpoolReader(tmp_path, slow) as spool_reader:
        spool_reader.acknowledge(1)
    register_readers(tmp_path, BOTH)
    with SpoolReader(tmp_path, quick) as spool_reader:
        assert spool_reader.read_chunk(0, ROOM) is None
    with SpoolReader(tmp_path, slow) as spool_reader:
        taken = spool_reader.read_chunk(0, ROOM)
        assert taken
        assert taken.batch.body == b"2\n3\n"


async def test_commit_numbers_are_never_reused(tmp_path: Path) -> None:
    register_readers(tmp_path, BOTH)
    for number in range(1, 4):
        await put(tmp_path, b"x\n")
        assert rows(tmp_path) == [number]
        for reader in BOTH:
            with SpoolReader(tmp_path, reader) as spool_reader:
                spool_reader.acknowledge(number)
        assert rows(tmp_path) == []
    # Not even if the archive is removed and added again.
    register_readers(tmp_path, (STORE_READER,))
    await put(tmp_path, b"x\n")
    register_readers(tmp_path, BOTH)
    assert rows(tmp_path) == [4]


async def test_removed_reader_keeps_nothing_in_the_spool(tmp_path: Path) -> None:
    register_readers(tmp_path, BOTH)
    await put(tmp_path, b"1\n", b"2\n")
    with SpoolReader(tmp_path, STORE_READER) as store:
        store.acknowledge(1)
    register_readers(tmp_path, (STORE_READER,))
    assert rows(tmp_path) == [2]
    with SpoolReader(tmp_path, STORE_READER) as store:
        store.acknowledge(2)
    assert rows(tmp_path) == []


async def test_new_reader_gets_everything_in_the_spool(tmp_path: Path) -> None:
    await put(tmp_path, b"1\n", b"2\n", b"3\n")
    with SpoolReader(tmp_path, STORE_READER) as store:
        store.acknowledge(1)
        register_readers(tmp_path, BOTH)
        store.acknowledge(3)
    with SpoolReader(tmp_path, ARCHIVE_READER) as archive:
        span = archive.reserve_range(ROOM)
        assert span
        assert (span.first_seq, span.last_seq, bodies_of(archive, span)) == (2, 3, b"2\n3\n")


async def test_drained_spool_gives_its_space_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metronome.spool.file._FREE_PAGES_KEPT", 8)
    for is_old in (True, False):
        path = tmp_path / str(is_old) / SPOOL_FILE_NAME
        if is_old:
            path.parent.mkdir()
            with closing(sqlite3.connect(path)) as older:
                older.execute("PRAGMA auto_vacuum = NONE")
                older.execute("CREATE TABLE anything(x)")
        register_readers(path.parent, (STORE_READER,))
        writer = SpoolWriter(path.parent, 2**30)
        for _ in range(8):
            await writer.put(b"x" * 1_000_000 + b"\n", 1)
        with SpoolReader(path.parent) as reader:
            while (chunk := reader.read_chunk(0, 1)) is not None:
                reader.acknowledge(chunk.last_seq)
        await writer.close()
        assert path.stat().st_size < 1_000_000


async def test_reserved_range_is_remembered_until_acknowledged(tmp_path: Path) -> None:
    register_readers(tmp_path, BOTH)
    await put(tmp_path, b"1234567\n", b"2\n", b"3\n")
    with SpoolReader(tmp_path, ARCHIVE_READER) as archive:
        first = archive.reserve_range(10)
        assert first
        assert (first.first_seq, first.last_seq) == (1, 2)
    await put(tmp_path, b"4\n")
    with SpoolReader(tmp_path, ARCHIVE_READER) as archive:
        # As after a crash: the limit may be another one by now.
        assert archive.reserve_range(ROOM) == first
        assert bodies_of(archive, first) == b"1234567\n2\n"
        archive.acknowledge(first.last_seq)
        second = archive.reserve_range(1)
        assert second
        assert (second.spool_name, second.first_seq, second.last_seq) == (first.spool_name, 3, 3)
        archive.acknowledge(3)
        third = archive.reserve_range(ROOM)
        assert third
        assert (third.first_seq, third.last_seq) == (4, 4)
        archive.acknowledge(4)
        assert archive.reserve_range(ROOM) is None


async def test_spool_name_is_unique_and_permanent(tmp_path: Path) -> None:
    names = set()
    for folder in (tmp_path / "a", tmp_path / "b"):
        register_readers(folder, BOTH)
        for reader in BOTH:
            with SpoolReader(folder, reader) as spool_reader:
                names.add(spool_reader.spool_name)
    assert len(names) == 2
    assert all(name.replace("-", "").replace(".", "").isalnum() and name.isascii() for name in names)


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 3)),
        st.tuples(st.sampled_from(["ship", "roll"]), st.integers(1, 60)),
        st.tuples(st.sampled_from(["restart", "archive off", "archive on"]), st.just(0)),
    ),
    max_size=20,
)


@settings(max_examples=max(5, settings().max_examples * 2 // 5))
@given(_steps)
def test_all_readers_get_everything_in_order(steps: Sequence[tuple[str, int]]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        register_readers(folder, BOTH)
        sent: list[bytes] = []
        shipped = b""
        rolled: dict[int, tuple[int, bytes]] = {}
        on = True
        for step, size in steps:
            if step == "put":
                bodies = [b"%d\n" % (len(sent) + number) for number in range(size)]
                asyncio.run(put(folder, *bodies))
                sent += bodies
            elif step == "ship":
                with SpoolReader(folder, STORE_READER) as spool_reader:
                    taken = spool_reader.read_chunk(0, size)
                    if taken is not None:
                        shipped += taken.batch.body
                        spool_reader.acknowledge(taken.last_seq)
            elif step == "roll" and on:
                with SpoolReader(folder, ARCHIVE_READER) as spool_reader:
                    span = spool_reader.reserve_range(size)
                    if span is not None:
                        assert span.first_seq not in rolled
                        rolled[span.first_seq] = span.last_seq, bodies_of(spool_reader, span)
                        spool_reader.acknowledge(span.last_seq)
            elif step.startswith("archive"):
                on = step == "archive on"
                register_readers(folder, BOTH if on else (STORE_READER,))
            else:
                register_readers(folder, BOTH if on else (STORE_READER,))
        whole = b"".join(sent)
        assert whole.startswith(shipped)
        spans = sorted((first, last) for first, (last, _) in rolled.items())
        assert all(before[1] < after[0] for before, after in pairwise(spans))
        for first, (last, body) in rolled.items():
            assert body == b"".join(sent[first - 1 : last])
        if "archive off" not in [step for step, _ in steps]:
            assert whole.startswith(b"".join(rolled[first][1] for first, _ in spans))
