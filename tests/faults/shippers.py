"""Clients that behave like log shippers: of Elasticsearch's bulk API, and of the forward protocol."""

import gzip
from typing import Any, Final

import orjson
from msgpack import Unpacker, packb

from metronome.times import format_timestamp
from tests.faults.rounds import SentEvents
from tests.faults.sender import RetryingClient, RetryingHttpClient, ServerBusyError, open_connection
from tests.servers import unique_name

MAX_EVENTS: Final = 100
"""``METRONOME_BATCH_MAX_EVENTS`` of the server: it commits larger forward chunks in parts."""

ACKNOWLEDGED_RESULTS = {("create", 201), ("index", 201)}
"""Operations and statuses of documents that are on disk."""


class BulkClient(RetryingHttpClient):
    """Send documents with times and without IDs to the bulk API."""

    name = "bulk"

    async def send_events(self, marks: list[str]) -> None:
        lines: list[Any] = []
        for mark in marks:
            document = {"id": "crash", "mark": mark, "@timestamp": format_timestamp(self.random_time())}
            lines += [self._action(mark), document]
        body = b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)

        async def send() -> None:
            response = await self.post("/es/_bulk", body, "application/x-ndjson")
            outcomes = [outcome for item in response["items"] for outcome in item.items()]
            if any(outcome["status"] == 429 for _, outcome in outcomes):
                raise ServerBusyError(response)
            assert len(outcomes) == len(marks)
            self._check(marks, outcomes)

        await self.retry_until_acknowledged(send)

    def _action(self, mark: str) -> dict[str, Any]:
        del mark
        return {self.random.choice(("create", "index")): {"_index": "crash"}}

    def _check(self, marks: list[str], outcomes: list[tuple[str, dict[str, Any]]]) -> None:
        del marks
        assert {outcome["status"] for _, outcome in outcomes} == {201}


class BulkClientWithIds(BulkClient):
    """Send documents with an ``_id`` each to the bulk API."""

    name = "named"

    def _action(self, mark: str) -> dict[str, Any]:
        return {self.random.choice(("create", "index")): {"_index": "crash", "_id": mark}}

    def _check(self, marks: list[str], outcomes: list[tuple[str, dict[str, Any]]]) -> None:
        assert [outcome["_id"] for _, outcome in outcomes] == marks
        assert all((action, result["status"]) in ACKNOWLEDGED_RESULTS for action, result in outcomes)


class ForwardClient(RetryingClient):
    """Send several chunks at once like Fluentd, in PackedForward mode, some of them compressed.

    Args:
        sent: see `RetryingClient`.
        port: of the forward listener.

    """

    name = "forward"
    batch_sizes = (1, 1, 1, 1, 1, 1, 40, 40, 3 * MAX_EVENTS)

    def __init__(self, sent: SentEvents, port: int) -> None:
        super().__init__(sent)
        self._port = port

    async def send_events(self, marks: list[str]) -> None:
        size = self.random.choice((len(marks), len(marks) // 3 + 1))
        chunks = [marks[at : at + size] for at in range(0, len(marks), size)]
        frames = {unique_name("chunk"): chunk for chunk in chunks}
        unacknowledged = {name: self._frame(name, chunk) for name, chunk in frames.items()}

        async def send() -> None:
            """Send the unacknowledged chunks over a new connection."""
            async with open_connection(self._port) as (reader, writer):
                writer.write(b"".join(unacknowledged.values()))
                messages = Unpacker()
                while unacknowledged:
                    data = await reader.read(65536)
                    if not data:
                        raise EOFError
                    messages.feed(data)
                    for message in messages:
                        assert list(message) == ["ack"]
                        del unacknowledged[message["ack"]]

        await self.retry_until_acknowledged(send)

    def _frame(self, name: str, marks: list[str]) -> bytes:
        entries = b"".join(
            packb([int(self.random_time().timestamp()), {"id": "crash", "mark": mark}], use_bin_type=True)
            for mark in marks
        )
        options: dict[str, Any] = {"chunk": name, "size": len(marks)}
        if self.random.random() < 0.5:
            entries, options["compressed"] = gzip.compress(entries), "gzip"
        return bytes(packb(["crash", entries, options]))
