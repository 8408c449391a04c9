"""Intake: each request gets the result of its own events, once they are on disk."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from metronome.enrich.enrichment import Enrichment
from metronome.errors import Malformed, MetronomeError, PayloadTooLarge, SpoolFull
from metronome.event import Event, IngestConfig, derive_event_ids
from metronome.intake import Intake
from metronome.protocol import IngestResult, ParsedRequest, Reply, Request
from metronome.protocols.native import tick
from metronome.spool import SpoolReader, SpoolWriter
from metronome.telemetry import Telemetry

NOON = datetime(2015, 1, 22, 12, tzinfo=UTC).timestamp()
POLICY = IngestConfig(max_age=timedelta(days=7), event_max_bytes=1000, enrichment=Enrichment())
SALTS = {"2015-01-22": b"a" * 32, "2015-01-23": b"b" * 32}
PERSON = {"agent": "Mozilla/5.0", "clientip": "203.0.113.77"}


class Breaking:
    """A protocol with a bug: it raises while parsing a request, or while building the reply."""

    def __init__(self, *, in_reply: bool) -> None:
        self._in_reply = in_reply

    def extract_key(self, _: Request) -> str:
        return ""

    def reply_error(self, _: Request, error: MetronomeError) -> Reply:
        raise AssertionError(error)

    def parse(self, _: Request) -> ParsedRequest:
        class Broken(dict[str, Any]):
            def __iter__(self) -> Any:
                raise RuntimeError("a bug in reading")

        return ParsedRequest([Event({"id": "good"}), Event({} if self._in_reply else Broken())], is_batch=True)

    def reply(self, _: Request, __: ParsedRequest, ___: IngestResult) -> Reply:
        raise RuntimeError("a bug in the reply")


class Entrance:
    """An intake with its own spool, and a clock that tests set."""

    def __init__(self, folder: Path, max_bytes: int, policy: IngestConfig) -> None:
        self.now = NOON
        self.salts: dict[str, bytes] = SALTS
        self.folder = folder
        self.telemetry = Telemetry(CollectorRegistry())
        self.spool = SpoolWriter(folder, max_bytes, self.telemetry.count_commit)
        self.intake = Intake(self.spool, policy, lambda: self.now, self.telemetry, lambda: self.salts)

    async def tick(self, body: bytes | str, key: str = "", **headers: str) -> Reply:
        identities = derive_event_ids(key) if key else None
        request = Request(body.encode() if isinstance(body, str) else body, "", 10, event_ids=identities)
        return await self.intake.ingest(tick, request._replace(headers=headers))

    async def visitor(self, event: dict[str, Any] | None = None, **headers: str) -> Any:
        """Send an event and return what it is known by: its visitor and its session."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        await self.tick(orjson.dumps({**PERSON, **(event or {})}), **names)
        doc = self.documents()[-1]
        return doc.get("visitor"), doc.get("session")

    def documents(self) -> list[dict[str, Any]]:
        with SpoolReader(self.folder) as reader:
            taken = reader.read_chunk(0, 10**9)
        if taken is None:
            return []
        assert taken.batch.count == len(taken.batch.documents())
        return [orjson.loads(line) for line in taken.batch.documents()]


@asynccontextmanager
async def opened(folder: Path, max_bytes: int = 10**9, policy: IngestConfig = POLICY) -> AsyncIterator[Entrance]:
    entrance = Entrance(folder, max_bytes, policy)
    try:
        yield entrance
    finally:
        await entrance.spool.close()


async def test_accepted_events_are_on_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as entrance:
        assert (await entrance.tick('{"id":"a"}')).status == 204
        assert [doc["id"] for doc in entrance.documents()] == ["a"]
        listed = await entrance.tick('[{"id":"b"},7,{"id":"c","ts":"never"},{"id":"d"}]')
        answer = orjson.loads(listed.body)
        assert (answer["accepted"], [entry["index"] for entry in answer["rejected"]]) == (2, [1, 2])
        assert [doc["id"] for doc in entrance.documents()] == ["a", "b", "d"]
        assert entrance.telemetry.registry.get_sample_value("metronome_events_accepted_total") == 3


async def test_concurrent_requests_get_their_own_replies(tmp_path: Path) -> None:
    async with opened(tmp_path) as entrance:
        bodies = ['{"id":"a"}', "rubbish", '{"ts":"never"}', '[{"id":"b"},1]', "[]", '{"id":"' + "x" * 1000 + '"}']
        found = await asyncio.gather(*map(entrance.tick, bodies), return_exceptions=True)
        kinds = [type(one) if isinstance(one, Exception) else one.status for one in found]  # type: ignore[union-attr]
        assert kinds == [204, Malformed, Malformed, 200, 200, PayloadTooLarge]
        assert [doc["id"] for doc in entrance.documents()] == ["a", "b"]


@pytest.mark.parametrize(("in_reply", "kept"), [(False, ["a", "b"]), (True, ["a", "good", None, "b"])])
async def test_exception_in_one_request_does_not_affect_others(
    tmp_path: Path, *, in_reply: bool, kept: list[str]
) -> None:
    async with opened(tmp_path) as entrance:
        broken = entrance.intake.ingest(Breaking(in_reply=in_reply), Request(b"", "", 10))
        async with asyncio.timeout(5):
            found = await asyncio.gather(
                entrance.tick('{"id":"a"}'), broken, entrance.tick('{"id":"b"}'), return_exceptions=True
            )
        assert isinstance(found[0], Reply)
        assert isinstance(found[1], RuntimeError)
        assert isinstance(found[2], Reply)
        assert [doc.get("id") for doc in entrance.documents()] == kept


async def test_events_can_be_stored_without_a_protocol(tmp_path: Path) -> None:
    async with opened(tmp_path) as entrance:
        too_old = Event({"id": "old", "@timestamp": "2014-01-01T00:00:00.000Z"})
        result = await entrance.intake.store([Event({"id": "a"}), Malformed("no event"), too_old])
        assert (result.accepted, list(result.rejected)) == (1, [1, 2])
        result = await entrance.intake.store([too_old], is_trusted=True, event_ids=iter(["an-id"]))
        assert (result.accepted, result.rejected) == (1, {})
        assert [doc["id"] for doc in entrance.documents()] == ["a", "old"]
        assert entrance.documents()[1]["event_id"] == "an-id"


async def test_a_rejected_request_is_freed_without_a_garbage_collection(tmp_path: Path) -> None:
    class Headers(dict[str, str]):
        """A part of the request that a weak reference can refer to."""

    async with opened(tmp_path) as entrance:
        gc.disable()
        try:
            for body in (b"rubbish", b'{"ts":"never"}'):
                headers = Headers()
                reference = weakref.ref(headers)
                with contextlib.suppress(Malformed):
                    await entrance.intake.ingest(tick, Request(body, "", 10, headers=headers))
                del headers
                # Let the event loop finish the turn that has completed the request.
                await asyncio.sleep(0)
                assert reference() is None
        finally:
            gc.enable()


async def test_events_without_an_id_get_a_unique_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as entrance:
        await asyncio.gather(*(entrance.tick("[{},{},{}]") for _ in range(20)))
        assert len({doc["event_id"] for doc in entrance.documents()}) == 60


async def test_repeated_idempotency_key_yields_the_same_event_ids(tmp_path: Path) -> None:
    async with opened(tmp_path) as entrance:
        for key in ("k", "k", "other"):
            await entrance.tick('[{"n":1},{"event_id":"mine"},{"n":3}]', key)
        names = [doc["event_id"] for doc in entrance.documents()]
        assert names[:3] == names[3:6]
        assert names[1] == names[4] == names[7] == "mine"
        assert len(set(names)) == 5


@pytest.mark.parametrize(
    ("move", "stamp"),
    [(0, "2015-01-22T12:00:00.000Z"), (0.0015, "2015-01-22T12:00:00.001Z"), (86400, "2015-01-23T12:00:00.000Z")],
)
async def test_events_without_a_timestamp_get_the_time_of_receipt(tmp_path: Path, move: float, stamp: str) -> None:
    async with opened(tmp_path) as entrance:
        await entrance.tick("{}")
        entrance.now += move
        await entrance.tick("{}")
        assert [doc["@timestamp"] for doc in entrance.documents()] == ["2015-01-22T12:00:00.000Z", stamp]


async def test_timestamp_limits_follow_the_clock(tmp_path: Path) -> None:
    async with opened(tmp_path) as entrance:
        for stamp in ("2015-01-15T11:59:59Z", "2015-01-23T12:00:01Z"):
            with pytest.raises(Malformed):
                await entrance.tick(f'{{"ts":"{stamp}"}}')
        entrance.now += 2
        assert (await entrance.tick('{"ts":"2015-01-23T12:00:01Z"}')).status == 204
        with pytest.raises(
            Malformed, match="raise tick_max_age to accept older events, or send a key with the scope import"
        ):
            await entrance.tick('{"ts":"2015-01-15T12:00:00Z"}')


async def test_full_spool_rejects_whole_requests(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=300) as entrance:
        await entrance.tick('{"id":"a"}')
        with pytest.raises(SpoolFull):
            await entrance.tick("[{},{},{},{}]")
        assert (await entrance.tick("[]")).status == 200
        assert [doc.get("id") for doc in entrance.documents()] == ["a"]


async def test_disconnected_clients_lose_no_events(tmp_path: Path) -> None:
    async with opened(tmp_path) as entrance:
        tasks = [asyncio.create_task(entrance.tick(f'{{"id":{number}}}')) for number in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in found] == [Reply, asyncio.CancelledError, Reply]
        assert [doc["id"] for doc in entrance.documents()] == ["0", "1", "2"]


async def test_large_queues_are_processed_in_several_slices(tmp_path: Path) -> None:
    async with opened(tmp_path) as entrance:
        blank = b" " * 200_000
        found = await asyncio.gather(*(entrance.tick(b'{"id":%d}' % number + blank) for number in range(10)))
        assert [reply.status for reply in found] == [204] * 10
        assert [doc["id"] for doc in entrance.documents()] == [str(number) for number in range(10)]


async def test_slow_request_does_not_block_others(tmp_path: Path) -> None:
    class Endless(Breaking):
        """Its request has events until another request has been answered."""

        def parse(self, _: Request) -> ParsedRequest:
            return ParsedRequest(self._events(), is_batch=True)

        def _events(self) -> Iterator[Event]:
            while not answered.is_set():
                yield Event({"id": "large"})

        def reply(self, _: Request, __: ParsedRequest, outcome: IngestResult) -> Reply:
            return Reply(200, str(outcome.accepted).encode())

    answered = asyncio.Event()
    async with opened(tmp_path) as into:
        large = asyncio.create_task(into.intake.ingest(Endless(in_reply=False), Request(b"", "", 10)))
        await asyncio.sleep(0)
        assert (await into.tick('{"id":"small"}')).status == 204
        answered.set()
        accepted = int((await large).body)
    stored = [doc["id"] for doc in into.documents()]
    assert (stored.count("small"), stored.count("large")) == (1, accepted)


async def test_visitor_is_the_same_for_a_day_and_a_site(tmp_path: Path) -> None:
    async with opened(tmp_path) as entrance:
        visitor, session = await entrance.visitor()
        assert visitor == session != ""
        assert await entrance.visitor({"id": "other", "event": "download"}) == (visitor, visitor)
        others = [
            await entrance.visitor({"clientip": "203.0.113.78"}),
            await entrance.visitor({"agent": "Mozilla/4.0"}),
            await entrance.visitor({"url": "https://a.example/x"}),
            await entrance.visitor({"url": "https://b.example/x"}),
            await entrance.visitor({"ts": "2015-01-21T23:00:00Z"}),
            await entrance.visitor({"ts": "2015-01-20T23:00:00Z"}),
        ]
        assert len({visitor, *(one for one, _ in others)}) == 7
        assert await entrance.visitor({"url": "https://www.A.example:8080/y?z"}) == others[2]
        entrance.now += 86_400
        tomorrow, _ = await entrance.visitor()
        assert tomorrow != visitor
        assert await entrance.visitor({"ts": "2015-01-22T23:00:00Z"}) == (visitor, visitor)


async def test_salt_of_the_day_of_receipt_is_used_for_older_events(tmp_path: Path) -> None:
    async with opened(tmp_path) as entrance:
        old = {"ts": "2015-01-19T10:00:00Z"}
        first, _ = await entrance.visitor(old)
        assert first
        entrance.salts = {"2015-01-22": b"c" * 32}
        entrance.now += 1
        assert (await entrance.visitor(old))[0] not in (first, None)
        entrance.salts = {"2015-01-21": b"c" * 32}
        entrance.now += 1
        assert await entrance.visitor(old) == (None, None)


@pytest.mark.parametrize("name", ["agent", "clientip"])
@pytest.mark.parametrize("given", [None, "", 7, ["x"]])
async def test_no_visitor_without_user_agent_or_address(tmp_path: Path, name: str, given: object) -> None:
    async with opened(tmp_path) as entrance:
        assert await entrance.visitor({name: given}) == (None, None)


async def test_keeps_visitor_and_session_of_the_sender(tmp_path: Path) -> None:
    async with opened(tmp_path) as entrance:
        assert await entrance.visitor({"visitor": "ann"}) == ("ann", None)
        assert await entrance.visitor({"visitor": "ann", "session": "s"}) == ("ann", "s")
        visitor, session = await entrance.visitor({"session": "s"})
        assert (visitor, session) == ((await entrance.visitor())[0], "s")


@pytest.mark.parametrize("signal", [{"Sec_GPC": "1"}, {"DNT": "1"}, {"DNT": "1", "Sec_GPC": "0"}])
async def test_privacy_signals_remove_the_visitor(tmp_path: Path, signal: dict[str, str]) -> None:
    async with opened(tmp_path) as entrance:
        assert await entrance.visitor({}, **signal) == (None, None)
        assert await entrance.visitor({"visitor": "a-visitor", "session": "s"}, **signal) == (None, "s")
        assert await entrance.visitor({"visitor": "a-visitor", "session": "a-visitor"}, **signal) == (None, None)
        assert await entrance.visitor({"visitor": "a-visitor", "a.b": 1}, **signal) == (None, None)
        assert await entrance.visitor({"visitor": ["a-visitor"]}, **signal) == (None, None)
        assert len(entrance.documents()) == 5
        assert "a-visitor" not in str(entrance.documents())
        assert (await entrance.visitor())[0]


@pytest.mark.parametrize("signal", [{"Sec_GPC": "0"}, {"DNT": "0"}, {"DNT": "yes"}, {}])
async def test_without_privacy_signals_the_visitor_is_kept(tmp_path: Path, signal: dict[str, str]) -> None:
    async with opened(tmp_path) as entrance:
        assert await entrance.visitor({}, **signal) == await entrance.visitor()


async def test_privacy_signals_can_be_ignored(tmp_path: Path) -> None:
    async with opened(tmp_path, policy=replace(POLICY, honor_privacy_signals=False)) as entrance:
        assert await entrance.visitor({}, DNT="1") == await entrance.visitor()
        assert await entrance.visitor({"visitor": "ann"}, DNT="1") == ("ann", None)


async def test_privacy_signals_are_honored_without_enrichment(tmp_path: Path) -> None:
    async with opened(tmp_path, policy=replace(POLICY, enrichment=None)) as entrance:
        assert await entrance.visitor() == (None, None)
        assert await entrance.visitor({"visitor": "ann"}) == ("ann", None)
        assert await entrance.visitor({"visitor": "ann"}, DNT="1") == (None, None)
