"""The spool: documents are on disk before the reply, through crashes and full disks."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metronome.errors import DataFolderLocked, SpoolFull
from metronome.files import FolderLock
from metronome.spool import SPOOL_FILE_NAME, SpoolReader, SpoolStats, SpoolWriter

ROOM = 10**9


@asynccontextmanager
async def opened(folder: Path, max_bytes: int = ROOM, commits: list[int] | None = None) -> AsyncIterator[SpoolWriter]:
    """Provide a spool that records the sizes of its commits."""
    spool = SpoolWriter(folder, max_bytes, lambda _, events: None if commits is None else commits.append(events))
    try:
        yield spool
    finally:
        await spool.close()


def seen(folder: Path) -> list[tuple[int, int, bytes]]:
    """Return the documents that another connection can read."""
    with closing(sqlite3.connect(folder / SPOOL_FILE_NAME)) as database:
        return database.execute("SELECT seq, events, body FROM commits ORDER BY seq").fetchall()


def held(folder: Path) -> bytes:
    with SpoolReader(folder) as reader:
        taken = reader.read_chunk(0, ROOM)
    return taken.batch.body if taken else b""


async def test_committed_documents_are_visible_to_readers(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        for number in range(5):
            done = spool.put(b'{"n":%d}\n' % number, 1)
            assert not done.done()
            await done
            assert seen(tmp_path)[-1][1:] == (1, b'{"n":%d}\n' % number)


async def test_future_is_pending_until_the_commit(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        with closing(sqlite3.connect(tmp_path / SPOOL_FILE_NAME, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            done = spool.put(b"{}\n", 1)
            await asyncio.wait([done], timeout=0.2)
            assert not done.done()
            assert seen(tmp_path) == []
            other.execute("ROLLBACK")
        await done
        assert len(seen(tmp_path)) == 1


async def test_documents_that_arrive_during_a_commit_are_the_next_commit(tmp_path: Path) -> None:
    commits: list[int] = []
    async with opened(tmp_path, commits=commits) as spool:
        await asyncio.gather(*(spool.put(b"{}\n" * 2, 2) for _ in range(100)))
        assert commits == [2, 198]
    assert [(seq, events) for seq, events, _ in seen(tmp_path)] == [(1, 2), (2, 198)]


async def test_cancelled_future_does_not_affect_the_commit(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        first, gone, last = (spool.put(b"%d\n" % number, 1) for number in range(3))
        gone.cancel()
        await asyncio.gather(first, last)
    assert held(tmp_path) == b"0\n1\n2\n"


async def test_full_spool_rejects_documents_until_it_is_shipped(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=1000) as spool:
        await spool.put(b"x" * 600, 1)
        with pytest.raises(SpoolFull, match="limit of 1000 bytes"):
            _ = spool.put(b"x" * 600, 1)
        await spool.put(b"x" * 400, 1)
        with SpoolReader(tmp_path) as reader:
            assert reader.pending_stats().bytes == 1000
            reader.acknowledge(2)
        async with asyncio.timeout(5):
            while True:
                try:
                    await spool.put(b"x" * 1000, 1)
                    break
                except SpoolFull:
                    await asyncio.sleep(0.02)
    assert held(tmp_path) == b"x" * 1000


async def test_pending_documents_count_towards_the_limit(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=1000) as spool:
        waiting = [spool.put(b"x" * 400, 1) for _ in range(2)]
        with pytest.raises(SpoolFull):
            _ = spool.put(b"x" * 400, 1)
        await asyncio.gather(*waiting)
    assert len(held(tmp_path)) == 800


async def test_failed_commit_is_rejected_and_the_next_is_attempted(tmp_path: Path) -> None:
    commits: list[int] = []
    async with opened(tmp_path, commits=commits) as spool:
        with closing(sqlite3.connect(tmp_path / SPOOL_FILE_NAME, isolation_level=None)) as other:
            other.execute("ALTER TABLE commits RENAME TO gone")
            with pytest.raises(SpoolFull, match="could not be written"):
                await spool.put(b"{}\n", 1)
            other.execute("ALTER TABLE gone RENAME TO commits")
        await spool.put(b"{}\n", 1)
    assert commits == [1]


async def test_close_commits_pending_documents_and_rejects_more(tmp_path: Path) -> None:
    spool = SpoolWriter(tmp_path, ROOM)
    waiting = [spool.put(b"{}\n", 1) for _ in range(50)]
    await spool.close()
    assert all(done.done() and done.exception() is None for done in waiting)
    assert held(tmp_path) == b"{}\n" * 50
    with pytest.raises(SpoolFull, match="stopping"):
        _ = spool.put(b"{}\n", 1)
    await spool.close()


async def test_reopened_spool_continues_numbering(tmp_path: Path) -> None:
    for _ in range(3):
        async with opened(tmp_path) as spool:
            await spool.put(b"{}\n{}\n", 2)
    assert [seq for seq, _, _ in seen(tmp_path)] == [1, 2, 3]
    with SpoolReader(tmp_path) as reader:
        depth = reader.pending_stats()
        assert (depth.events, depth.bytes) == (6, 18)
        assert 0 <= depth.oldest_seconds < 60
        reader.acknowledge(1)
        assert reader.pending_stats().events == 4


async def test_spool_has_one_writer(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(DataFolderLocked, match="another process uses"):
            FolderLock(tmp_path, timeout_seconds=0)
    FolderLock(tmp_path, timeout_seconds=0).release()


async def test_writer_waits_for_its_predecessor_to_end(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    threading.Timer(0.1, lock.release).start()
    async with opened(tmp_path) as spool:
        await spool.put(b"{}\n", 1)
    lock.release()


async def test_chunk_has_the_oldest_commits_up_to_a_limit_and_at_least_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        for letter in (b"a", b"b", b"c"):
            await spool.put(letter * 9 + b"\n", 1)
    with SpoolReader(tmp_path) as reader:
        expected = [(1, b"a"), (20, b"ab"), (29, b"ab"), (30, b"abc"), (10**9, b"abc")]
        for limit, letters in expected:
            taken = reader.read_chunk(0, limit)
            assert taken
            assert taken.batch.body == b"".join(bytes([letter]) * 9 + b"\n" for letter in letters)
            assert (taken.batch.count, taken.last_seq) == (len(letters), len(letters))
        behind = reader.read_chunk(2, 1)
        assert behind
        assert (behind.batch.body, behind.last_seq) == (b"c" * 9 + b"\n", 3)
        assert reader.read_chunk(3, 1) is None
        reader.acknowledge(3)
        reader.acknowledge(3)
        assert reader.read_chunk(0, 1) is None
        assert reader.pending_stats() == SpoolStats(0, 0, 0.0)


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.5, 0.8, 0.97, 0.999])
async def test_complete_commits_of_a_torn_log_survive(tmp_path: Path, kept: float) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    torn.mkdir()
    async with opened(whole) as spool:
        for number in range(20):
            await spool.put(b"%04d\n" % number * 1000, 1000)
        # As a crash would leave them: the last connection that is closed folds the log into the file.
        for path in whole.glob(f"{SPOOL_FILE_NAME}*"):
            (torn / path.name).write_bytes(path.read_bytes())
    log = torn / f"{SPOOL_FILE_NAME}-wal"
    log.write_bytes(log.read_bytes()[: int(log.stat().st_size * kept)])
    (torn / f"{SPOOL_FILE_NAME}-shm").unlink()
    async with opened(torn) as spool:
        bodies = [body for _, _, body in seen(torn)]
        assert bodies == [b"%04d\n" % number * 1000 for number in range(len(bodies))]
        assert len(bodies) < 20
        await spool.put(b"next\n", 1)
    assert held(torn).endswith(b"next\n")


_actions = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(st.binary(max_size=50), min_size=1, max_size=4)),
        st.tuples(st.just("take"), st.integers(0, 200)),
        st.tuples(st.just("drop"), st.none()),
        st.tuples(st.just("restart"), st.none()),
    ),
    max_size=15,
)


async def act(folder: Path, actions: list[tuple[str, Any]]) -> None:
    spool, reader, model, taken = SpoolWriter(folder, ROOM), SpoolReader(folder), b"", None
    for action, value in actions:
        if action == "put":
            bodies = [line.replace(b"\n", b"") + b"\n" for line in value]
            await asyncio.gather(*(spool.put(body, 1) for body in bodies))
            model += b"".join(bodies)
        elif action == "take":
            taken = reader.read_chunk(0, value)
            assert (taken is None) == (not model)
            assert taken is None or model.startswith(taken.batch.body)
            assert taken is None or taken.batch.count == taken.batch.body.count(b"\n")
        elif action == "drop" and taken is not None:
            reader.acknowledge(taken.last_seq)
            model, taken = model[len(taken.batch.body) :], None
        elif action == "restart":
            await spool.close()
            reader.close()
            spool, reader, taken = SpoolWriter(folder, ROOM), SpoolReader(folder), None
        depth = reader.pending_stats()
        assert (depth.events, depth.bytes) == (model.count(b"\n"), len(model))
    await spool.close()
    reader.close()
    assert held(folder) == model


@settings(max_examples=40, deadline=None)
@given(_actions)
def test_spool_behaves_like_a_list(actions: list[tuple[str, Any]]) -> None:
    with TemporaryDirectory() as folder:
        asyncio.run(act(Path(folder), actions))
