"""Events are removed from the commits of a spool up to a number, and the spool's size stays right."""

from pathlib import Path

import pytest

from metronome.spool import ARCHIVE_READER, STORE_READER, SpoolReader, SpoolWriter, register_readers
from metronome.spool.erasure import erase_from_spool, last_commit
from metronome.stores.base import DocumentBatch
from metronome.stores.selection import parse_selection
from tests.archive.archived import build_document

SELECTION = parse_selection({"item": "gone"})


def body(*items: str) -> bytes:
    return b"".join(build_document(f"e{number}", item) for number, item in enumerate(items))


async def fill(folder: Path, *bodies: bytes) -> None:
    register_readers(folder, (STORE_READER, ARCHIVE_READER))
    writer = SpoolWriter(folder, 10**9)
    for lines in bodies:
        await writer.put(lines, lines.count(b"\n"))
    await writer.close()


async def test_removes_events_up_to_a_commit(tmp_path: Path) -> None:
    await fill(tmp_path, body("a", "gone"), body("gone"), body("b"), body("gone", "c"))
    assert last_commit(tmp_path) == 4
    assert erase_from_spool(tmp_path, SELECTION, 3) == 2
    assert erase_from_spool(tmp_path, SELECTION, 3) == 0
    left = [body("a"), b"", body("b"), body("gone", "c")]
    with SpoolReader(tmp_path) as reader:
        assert [(commit[1], commit[2]) for number in range(4) if (commit := reader.read_commit(number))] == [
            (lines.count(b"\n"), lines) for lines in left
        ]
        for number in range(4):
            stats = reader.measure_backlog(number)[1]
            assert (stats.events, stats.bytes) == (
                sum(lines.count(b"\n") for lines in left[number:]),
                sum(map(len, left[number:])),
            )
        chunk = reader.read_chunk(0, 10**6)
        assert chunk is not None
        assert (chunk.batch.count, chunk.last_seq) == (4, 4)
        reader.acknowledge(4)
    assert last_commit(tmp_path) == 4


async def test_leaves_nothing_of_removed_events_in_the_files(tmp_path: Path) -> None:
    await fill(tmp_path, *[body(f"kept{number}", "gone", "gone") for number in range(50)])
    assert erase_from_spool(tmp_path, SELECTION, 50) == 100
    contents = [file.read_bytes() for file in tmp_path.iterdir()]  # noqa: ASYNC240  # nothing else runs in this loop
    assert not any(b'"id":"gone"' in content for content in contents)
    assert any(b"kept49" in content for content in contents)


async def test_a_writer_goes_on_meanwhile_and_afterwards(tmp_path: Path) -> None:
    register_readers(tmp_path, (STORE_READER,))
    writer = SpoolWriter(tmp_path, 10**9)
    await writer.put(body("gone", "a"), 2)
    assert erase_from_spool(tmp_path, SELECTION, last_commit(tmp_path)) == 1
    await writer.put(body("gone"), 1)
    await writer.close()
    with SpoolReader(tmp_path) as reader:
        assert reader.pending_stats().events == 2
        assert reader.pending_stats().bytes == len(body("a")) + len(body("gone")) + len("1") - 1


async def test_removes_events_that_wait_for_the_store(tmp_path: Path) -> None:
    await fill(tmp_path, body("gone", "a"), body("gone"))
    with SpoolReader(tmp_path) as reader:
        reader.acknowledge(1, DocumentBatch(body("gone", "a"), 2))
        reader.acknowledge(2, DocumentBatch(body("gone"), 1))
        assert erase_from_spool(tmp_path, SELECTION, 2) >= 2
        chunk = reader.read_waiting(0, 10**6)
        assert chunk is not None
        assert chunk.batch == DocumentBatch(body("gone", "a").splitlines(keepends=True)[1], 1)
        assert reader.waiting_stats().events == 1


@pytest.mark.parametrize("seq", [0, 1])
async def test_an_empty_spool_has_nothing_to_remove(tmp_path: Path, seq: int) -> None:
    await fill(tmp_path)
    assert erase_from_spool(tmp_path, SELECTION, seq) == 0
    assert last_commit(tmp_path) == 0
