"""Readers of a spool: a row stays until each of them has had it, whenever they come, go and die."""

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

from metronome.spool import ARCHIVE, FILE_NAME, STORE, Outlet, Span, Spool, appoint

ROOM = 10**9
BOTH = (STORE, ARCHIVE)


async def put(folder: Path, *bodies: bytes) -> None:
    spool = Spool(folder, ROOM)
    for body in bodies:
        await spool.put(body, body.count(b"\n"))
    await spool.close()


def rows(folder: Path) -> list[int]:
    with closing(sqlite3.connect(folder / FILE_NAME)) as database:
        return [seq for (seq,) in database.execute("SELECT seq FROM commits ORDER BY seq")]


def bodies_of(outlet: Outlet, span: Span) -> bytes:
    return b"".join(outlet.read(span))


async def test_a_row_stays_until_each_reader_has_had_it(tmp_path: Path) -> None:
    appoint(tmp_path, BOTH)
    await put(tmp_path, b"1\n", b"2\n", b"3\n")
    with Outlet(tmp_path, STORE) as store, Outlet(tmp_path, ARCHIVE) as archive:
        store.drop(3)
        assert rows(tmp_path) == [1, 2, 3]
        assert store.take(0, ROOM) is None
        assert (store.depth().events, archive.depth().events, store.held().events) == (0, 3, 3)
        archive.drop(2)
        assert rows(tmp_path) == [3]
        assert (archive.depth().events, archive.held().bytes) == (1, 2)
        archive.drop(3)
        assert rows(tmp_path) == []


@pytest.mark.parametrize("slow", BOTH)
async def test_a_reader_that_comes_back_has_what_it_had_not(tmp_path: Path, slow: str) -> None:
    appoint(tmp_path, BOTH)
    await put(tmp_path, b"1\n", b"2\n", b"3\n")
    quick = next(name for name in BOTH if name != slow)
    with Outlet(tmp_path, quick) as outlet:
        outlet.drop(3)
    with Outlet(tmp_path, slow) as outlet:
        outlet.drop(1)
    appoint(tmp_path, BOTH)
    with Outlet(tmp_path, quick) as outlet:
        assert outlet.take(0, ROOM) is None
    with Outlet(tmp_path, slow) as outlet:
        taken = outlet.take(0, ROOM)
        assert taken
        assert taken.batch.body == b"2\n3\n"


async def test_no_number_is_given_twice_even_if_the_spool_was_empty_in_between(tmp_path: Path) -> None:
    appoint(tmp_path, BOTH)
    for number in range(1, 4):
        await put(tmp_path, b"x\n")
        assert rows(tmp_path) == [number]
        for reader in BOTH:
            with Outlet(tmp_path, reader) as outlet:
                outlet.drop(number)
        assert rows(tmp_path) == []
    # Nor if the archive is given up and taken on again.
    appoint(tmp_path, (STORE,))
    await put(tmp_path, b"x\n")
    appoint(tmp_path, BOTH)
    assert rows(tmp_path) == [4]


async def test_a_reader_that_is_given_up_holds_up_nothing_more(tmp_path: Path) -> None:
    appoint(tmp_path, BOTH)
    await put(tmp_path, b"1\n", b"2\n")
    with Outlet(tmp_path, STORE) as store:
        store.drop(1)
    appoint(tmp_path, (STORE,))
    assert rows(tmp_path) == [2]
    with Outlet(tmp_path, STORE) as store:
        store.drop(2)
    assert rows(tmp_path) == []


async def test_a_new_reader_gets_what_is_still_there(tmp_path: Path) -> None:
    await put(tmp_path, b"1\n", b"2\n", b"3\n")
    with Outlet(tmp_path, STORE) as store:
        store.drop(1)
        appoint(tmp_path, BOTH)
        store.drop(3)
    with Outlet(tmp_path, ARCHIVE) as archive:
        span = archive.plan(ROOM)
        assert span
        assert (span.first, span.last, bodies_of(archive, span)) == (2, 3, b"2\n3\n")


async def test_a_plan_is_kept_until_it_is_done(tmp_path: Path) -> None:
    appoint(tmp_path, BOTH)
    await put(tmp_path, b"1234567\n", b"2\n", b"3\n")
    with Outlet(tmp_path, ARCHIVE) as archive:
        first = archive.plan(10)
        assert first
        assert (first.first, first.last) == (1, 2)
    await put(tmp_path, b"4\n")
    with Outlet(tmp_path, ARCHIVE) as archive:
        # As after a crash: the limit may be another one by now.
        assert archive.plan(ROOM) == first
        assert bodies_of(archive, first) == b"1234567\n2\n"
        archive.drop(first.last)
        second = archive.plan(1)
        assert second
        assert (second.spool, second.first, second.last) == (first.spool, 3, 3)
        archive.drop(3)
        third = archive.plan(ROOM)
        assert third
        assert (third.first, third.last) == (4, 4)
        archive.drop(4)
        assert archive.plan(ROOM) is None


async def test_a_spool_has_a_name_that_no_other_has_and_keeps_it(tmp_path: Path) -> None:
    names = set()
    for folder in (tmp_path / "a", tmp_path / "b"):
        appoint(folder, BOTH)
        for reader in BOTH:
            with Outlet(folder, reader) as outlet:
                names.add(outlet.spool)
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


@settings(max_examples=40)
@given(_steps)
def test_both_readers_get_everything_in_its_order(steps: Sequence[tuple[str, int]]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        appoint(folder, BOTH)
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
                with Outlet(folder, STORE) as outlet:
                    taken = outlet.take(0, size)
                    if taken is not None:
                        shipped += taken.batch.body
                        outlet.drop(taken.upto)
            elif step == "roll" and on:
                with Outlet(folder, ARCHIVE) as outlet:
                    span = outlet.plan(size)
                    if span is not None:
                        assert span.first not in rolled
                        rolled[span.first] = span.last, bodies_of(outlet, span)
                        outlet.drop(span.last)
            elif step.startswith("archive"):
                on = step == "archive on"
                appoint(folder, BOTH if on else (STORE,))
            else:
                appoint(folder, BOTH if on else (STORE,))
        whole = b"".join(sent)
        assert whole.startswith(shipped)
        spans = sorted((first, last) for first, (last, _) in rolled.items())
        assert all(before[1] < after[0] for before, after in pairwise(spans))
        for first, (last, body) in rolled.items():
            assert body == b"".join(sent[first - 1 : last])
        if "archive off" not in [step for step, _ in steps]:
            assert whole.startswith(b"".join(rolled[first][1] for first, _ in spans))
