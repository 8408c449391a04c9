"""``POST /tick`` of a real server, with what well-meaning senders send and with what others do."""

import asyncio
import gzip
import io
import random
import sys
import time
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
import pytest

from tests.servers import Server, running_server, unique_name

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SHARED: Final = Path(__file__).parents[4] / "shared" / "data" / "hostile-events.ndjson"
MIB: Final = 2**20
BODY_MAX: Final = 16 * MIB
BATCH_MAX: Final = 10_000
SECONDS: Final = aiohttp.ClientTimeout(total=60)


@pytest.fixture
async def http(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url, timeout=SECONDS) as session:
        yield session


async def tock(server: Server, item: str) -> dict[str, dict[str, int]]:
    await asyncio.to_thread(server.wait_until_shipped)
    answer: dict[str, dict[str, int]] = await asyncio.to_thread(server.get, f"/tock/{item}.json?bots=1&limit=0")
    return answer


async def views(server: Server, item: str) -> int:
    return sum((await tock(server, item))["views"].values())


async def refusal(answer: aiohttp.ClientResponse, status: int) -> str:
    """Check that an answer is a refusal in the form of RFC 9457, and return its sentence."""
    problem = await answer.json(content_type="application/problem+json")
    assert answer.status == status, problem
    assert problem["status"] == status
    assert problem["type"] == f"urn:metronome:error:{problem['title']}"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert_sentence(problem["detail"])
    return str(problem["detail"])


def large(body: object) -> io.BytesIO:
    """Encode a body that aiohttp's client would rather send in parts."""
    return io.BytesIO(orjson.dumps(body))


def assert_sentence(text: str) -> None:
    assert len(text.split()) >= 4, text
    assert len(text) < 600, text
    assert "Traceback" not in text


async def good_event_gets_through(server: Server, http: aiohttp.ClientSession) -> None:
    item = unique_name("good-")
    async with http.post("/tick", json={"id": item}) as answer:
        assert answer.status == 204
    assert await views(server, item) == 1


class TestShapes:
    async def test_a_single_event_is_answered_with_nothing(
        self, server: Server, http: aiohttp.ClientSession, item: str
    ) -> None:
        async with http.post("/tick", json={"id": item, "event": "download", "format": "KML"}) as answer:
            assert (answer.status, await answer.read()) == (204, b"")
        assert await tock(server, item) == {"views": {}, "downloads": {"kml": 1}, "referers": {}}

    @pytest.mark.parametrize("content_type", ["text/plain;charset=UTF-8", "application/json", "image/png", "nonsense"])
    async def test_any_content_type_will_do(
        self, server: Server, http: aiohttp.ClientSession, item: str, content_type: str
    ) -> None:
        body = orjson.dumps({"id": item})
        async with http.post("/tick", data=body, headers={"Content-Type": content_type}) as answer:
            assert answer.status == 204
        assert await views(server, item) == 1

    async def test_no_content_type_will_do(self, server: Server, item: str) -> None:
        body = orjson.dumps({"id": item})
        head = f"POST /tick HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        assert (await send_raw(server, head.encode() + body)).startswith(b"HTTP/1.1 204 ")
        assert await views(server, item) == 1

    @pytest.mark.clock
    async def test_an_array_is_answered_event_by_event(
        self, server: Server, http: aiohttp.ClientSession, item: str
    ) -> None:
        batch: list[Any] = [{"id": item}, {"id": item, "ts": "never"}, 7, {"id": item}]
        async with http.post("/tick", json=batch) as answer:
            assert answer.status == 200
            told = await answer.json()
        assert told["accepted"] == 2
        assert [one["index"] for one in told["rejected"]] == [1, 2]
        for one in told["rejected"]:
            assert_sentence(one["error"])
        assert await views(server, item) == 2

    @pytest.mark.parametrize("content_type", ["application/x-ndjson", "text/plain"])
    async def test_lines_are_answered_event_by_event(
        self, server: Server, http: aiohttp.ClientSession, item: str, content_type: str
    ) -> None:
        line = orjson.dumps({"id": item})
        body = b"\n".join([line, b"{broken", b"", line, b"[]", line]) + b"\n"
        async with http.post("/tick", data=body, headers={"Content-Type": content_type}) as answer:
            told = await answer.json()
        assert told["accepted"] == 3
        assert [one["index"] for one in told["rejected"]] == [1, 3]
        assert await views(server, item) == 3

    async def test_a_form_is_one_event(self, server: Server, http: aiohttp.ClientSession, item: str) -> None:
        form = {"id": item, "referer": "https://www.Example.org/news/?x=1"}
        async with http.post("/tick", data=form) as answer:
            assert answer.status == 204
        assert (await tock(server, item))["referers"] == {"example.org/news": 1}

    @pytest.mark.parametrize("body", [b"[]", b"\n\n"])
    async def test_an_empty_batch_is_no_mistake(self, http: aiohttp.ClientSession, body: bytes) -> None:
        async with http.post("/tick", data=body, headers={"Content-Type": "application/x-ndjson"}) as answer:
            assert answer.status == 200
            assert (await answer.json())["accepted"] == 0


ENCODERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
    "identity": bytes,
    "GZip": gzip.compress,
    "zstd, gzip": lambda body: gzip.compress(zstd.compress(body)),
}


class TestEncodings:
    @pytest.mark.parametrize("encoding", list(ENCODERS))
    @pytest.mark.parametrize("count", [1, 3000], ids=["small", "large"])
    async def test_an_encoded_body_is_read(
        self, server: Server, http: aiohttp.ClientSession, item: str, encoding: str, count: int
    ) -> None:
        batch = [{"id": item, "noise": random.random()} for _ in range(count)]
        body = ENCODERS[encoding](orjson.dumps(batch))
        async with http.post("/tick", data=body, headers={"Content-Encoding": encoding}) as answer:
            assert await answer.json() == {"accepted": count, "rejected": []}
        assert await views(server, item) == count

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
    async def test_a_truncated_body_is_refused(self, http: aiohttp.ClientSession, encoding: str) -> None:
        body = ENCODERS[encoding](orjson.dumps({"id": "x", "noise": unique_name()}))[:-3]
        async with http.post("/tick", data=body, headers={"Content-Encoding": encoding}) as answer:
            assert "breaks off" in await refusal(answer, 400)

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
    async def test_a_body_that_is_not_what_it_says_is_refused(self, http: aiohttp.ClientSession, encoding: str) -> None:
        async with http.post("/tick", data=b'{"id":"x"}', headers={"Content-Encoding": encoding}) as answer:
            assert encoding in await refusal(answer, 400)

    @pytest.mark.parametrize("encoding", ["br", "compress", "gzip, br", ", ".join(["gzip"] * 400)])
    async def test_another_encoding_is_refused(self, http: aiohttp.ClientSession, encoding: str) -> None:
        async with http.post("/tick", data=b"{}", headers={"Content-Encoding": encoding}) as answer:
            await refusal(answer, 415)

    @pytest.mark.slow
    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "gzip, gzip"])
    async def test_a_bomb_costs_little_memory_and_time(self, tmp_path: Path, encoding: str) -> None:
        body = bomb(encoding)
        assert len(body) < 2 * MIB
        with running_server(tmp_path / "data") as server:
            async with aiohttp.ClientSession(server.url, timeout=SECONDS) as http:
                await good_event_gets_through(server, http)
                before, began = server.peak_memory(), time.monotonic()
                async with http.post("/tick", data=body, headers={"Content-Encoding": encoding}) as answer:
                    assert "body_max_bytes" in await refusal(answer, 413)
                assert time.monotonic() - began < 10
                assert server.peak_memory() - before < 100 * MIB
                await good_event_gets_through(server, http)

    @pytest.mark.parametrize("encoding", ["gzip", "zstd"])
    async def test_a_million_empty_parts_cost_little_time(
        self, server: Server, http: aiohttp.ClientSession, encoding: str
    ) -> None:
        empty = ENCODERS[encoding](b"")
        body = empty * (BODY_MAX // len(empty))
        began = time.monotonic()
        async with http.post("/tick", data=io.BytesIO(body), headers={"Content-Encoding": encoding}) as answer:
            assert "compressed parts" in await refusal(answer, 400)
        assert time.monotonic() - began < 10
        await good_event_gets_through(server, http)


def bomb(encoding: str) -> bytes:
    """Compress a gibibyte of zeros."""
    if encoding == "zstd":
        return zstd.compress(bytes(1024 * MIB))
    encoder = zlib.compressobj(9, wbits=15 if encoding == "deflate" else 31)
    zeros = bytes(16 * MIB)
    body = b"".join([encoder.compress(zeros) for _ in range(64)]) + encoder.flush()
    return gzip.compress(body) if encoding == "gzip, gzip" else body


class TestIdempotencyKey:
    async def test_the_same_batch_twice_adds_nothing(self, either: Server, item: str) -> None:
        headers, batch = {"Idempotency-Key": unique_name("key-")}, [{"id": item}] * 5
        for _ in range(8):
            # A connection each, so that both workers get some.
            async with aiohttp.ClientSession(either.url, timeout=SECONDS) as http:
                async with http.post("/tick", json=batch, headers=headers) as answer:
                    assert (await answer.json())["accepted"] == 5
                async with http.post("/tick", json={"id": f"{item}-single"}, headers=headers) as answer:
                    assert answer.status == 204
        assert await views(either, item) == 5

    async def test_another_key_is_another_batch(self, server: Server, http: aiohttp.ClientSession, item: str) -> None:
        for _ in range(2):
            headers = {"Idempotency-Key": unique_name("key-")}
            async with http.post("/tick", json={"id": item}, headers=headers) as answer:
                assert answer.status == 204
        assert await views(server, item) == 2

    async def test_an_event_id_wins_over_the_key(self, server: Server, http: aiohttp.ClientSession, item: str) -> None:
        event = {"id": item, "event_id": unique_name()}
        for key in ("one", "two"):
            async with http.post("/tick", json=event, headers={"Idempotency-Key": key}) as answer:
                assert answer.status == 204
        assert await views(server, item) == 1

    @pytest.mark.parametrize("key", [b"\xff\xfe", "schlüssel".encode(), b"k" * 4000])
    async def test_a_key_may_be_any_bytes(self, server: Server, item: str, key: bytes) -> None:
        body = orjson.dumps({"id": item})
        head = b"POST /tick HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIdempotency-Key: "
        head += key + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
        for _ in range(2):
            assert (await send_raw(server, head + body)).startswith(b"HTTP/1.1 204 ")
        assert await views(server, item) == 1


class TestBrowsers:
    async def test_other_origins_may_send(self, either: Server) -> None:
        async with (
            aiohttp.ClientSession(either.url, timeout=SECONDS) as http,
            http.post("/tick", json={"id": "x"}, headers={"Origin": "https://example.org"}) as answer,
        ):
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == "*"

    @pytest.mark.parametrize(
        ("path", "method"), [("/tick", "POST"), ("/tock/a%2Fb.json", "GET"), ("/items.json", "GET")]
    )
    async def test_a_preflight_is_answered(self, either: Server, path: str, method: str) -> None:
        asked = {
            "Origin": "https://example.org",
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "content-type,idempotency-key",
        }
        async with (
            aiohttp.ClientSession(either.url, timeout=SECONDS) as http,
            http.options(path, headers=asked) as answer,
        ):
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert method in answer.headers["Access-Control-Allow-Methods"].split(", ")
            allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
            assert {"content-type", "content-encoding", "idempotency-key"} <= set(allowed)


class TestRefusals:
    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
    async def test_another_method_is_answered_with_those_there_are(self, either: Server, method: str) -> None:
        async with aiohttp.ClientSession(either.url, timeout=SECONDS) as http, http.request(method, "/tick") as answer:
            assert answer.headers["Allow"] == "OPTIONS, POST"
            assert method in await refusal(answer, 405)

    async def test_a_report_cannot_be_posted(self, either: Server) -> None:
        async with aiohttp.ClientSession(either.url, timeout=SECONDS) as http, http.post("/tock/x.json") as answer:
            assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"
            await refusal(answer, 405)

    @pytest.mark.parametrize("path", ["/", "/nothing", "/tick/", "/tock/", "/tock/.json", "/tock/x", "/%00", "/%FF%FE"])
    async def test_an_address_that_there_is_not(self, either: Server, path: str) -> None:
        async with aiohttp.ClientSession(either.url, timeout=SECONDS) as http, http.get(path) as answer:
            assert "unknown path" in await refusal(answer, 404)

    @pytest.mark.parametrize(
        "body",
        [
            *(b"", b" ", b"hello", b"{", b"[", b"]", b"nul", b"1", b"null", b'"text"', b"NaN", b"true"),
            *(b"\x00", b"\xff\xfe", b'{"id":"\xff"}', b"{'id':1}", b'{"id":NaN}', b'{"id":-Infinity}'),
            *(b'{"id":"x"', b'{"id":"\\ud800"}', b'{"id":"x"}}', b'{"id":"x"} and more', b"{" * 100_000),
            *(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"\x1f\x8b\x08\x00", b"[" * 100_000),
            *(b"[1,2", b'[{"id":1},', b'[{"id":1}]]', b'[{"id":1} {"id":2}]'),
        ],
        ids=lambda body: repr(body[:20]),
    )
    async def test_what_is_no_event_is_malformed(
        self, server: Server, http: aiohttp.ClientSession, body: bytes
    ) -> None:
        async with http.post("/tick", data=body) as answer:
            await refusal(answer, 400)
        await good_event_gets_through(server, http)

    @pytest.mark.parametrize(
        "stamp",
        [
            *(
                "yesterday",
                "2015-02-30",
                "2015-13-01T00:00:00Z",
                "10000-01-01",
                "+10000-01-01T00:00:00Z",
                "24:00",
                "-1",
            ),
            *(253402300800000, 1e300, -1, -62135596800, True, "NaN", "Infinity", "1" * 10_000),
            *("9999-12-31T23:59:59Z", "2999-01-01", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"),
            *({"a": 1}, ["2026-01-01"], "\0", "🕐", "2015-01-22T09:30:00Z; DROP TABLE events"),
        ],
        ids=lambda stamp: repr(stamp)[:30],
    )
    @pytest.mark.parametrize("name", ["@timestamp", "ts"])
    async def test_a_time_that_is_none_is_named(self, http: aiohttp.ClientSession, name: str, stamp: object) -> None:
        async with http.post("/tick", data=orjson.dumps({"id": "x", name: stamp})) as answer:
            await refusal(answer, 400)

    @pytest.mark.parametrize("name", ["id", "event", "format", "event_id"])
    async def test_a_name_of_a_megabyte_is_named(
        self, server: Server, http: aiohttp.ClientSession, name: str, item: str
    ) -> None:
        long = {"id": item, name: "x" * MIB}
        async with http.post("/tick", data=large(long)) as answer:
            assert f"{name} is over" in await refusal(answer, 400)
        async with http.post("/tick", data=large([{"id": item}, long, {"id": item}])) as answer:
            told = await answer.json()
        assert (told["accepted"], [one["index"] for one in told["rejected"]]) == (2, [1])
        assert await views(server, item) == 2

    async def test_an_event_over_its_limit_fails_no_other(
        self, server: Server, http: aiohttp.ClientSession, item: str
    ) -> None:
        over = {"id": item, "text": "x" * (MIB + 1)}
        async with http.post("/tick", data=large(over)) as answer:
            assert "event_max_bytes" in await refusal(answer, 413)
        async with http.post("/tick", data=large([{"id": item}, over])) as answer:
            told = await answer.json()
        assert (told["accepted"], [one["index"] for one in told["rejected"]]) == (1, [1])
        assert await views(server, item) == 1

    async def test_a_million_events_at_once_are_too_many(self, server: Server, http: aiohttp.ClientSession) -> None:
        for body in (b"[" + b'{"a":1},' * 999_999 + b'{"a":1}]', b'{"a":1}\n' * 1_000_000):
            began = time.monotonic()
            async with http.post("/tick", data=io.BytesIO(body)) as answer:
                assert "batch_max_events" in await refusal(answer, 413)
            assert time.monotonic() - began < 10
        await good_event_gets_through(server, http)

    async def test_as_many_events_as_allowed_are_taken(
        self, server: Server, http: aiohttp.ClientSession, item: str
    ) -> None:
        async with http.post("/tick", json=[{"id": item}] * BATCH_MAX) as answer:
            assert (await answer.json())["accepted"] == BATCH_MAX
        assert await views(server, item) == BATCH_MAX

    async def test_a_body_over_the_limit_is_refused(self, either: Server) -> None:
        async with aiohttp.ClientSession(either.url, timeout=SECONDS) as http:
            async with http.post("/tick", data=io.BytesIO(bytes(BODY_MAX + 1))) as answer:
                assert "body_max_bytes" in await refusal(answer, 413)
            await good_event_gets_through(either, http)

    async def test_a_body_over_the_limit_is_refused_that_does_not_say_how_long_it_is(self, server: Server) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(17):
                yield b" " * MIB

        async with aiohttp.ClientSession(server.url, timeout=SECONDS) as http:
            async with http.post("/tick", data=chunks()) as answer:
                assert "body_max_bytes" in await refusal(answer, 413)
            await good_event_gets_through(server, http)

    async def test_a_part_that_is_not_ready_for_asking_is_none(self, http: aiohttp.ClientSession) -> None:
        async with http.get("/health/ready/nothing") as answer:
            assert "/health/ready/nothing" in await refusal(answer, 404)


class TestOdd:
    """Events that are odd, but can be kept."""

    @pytest.mark.parametrize(
        "fields",
        [
            {"_id": "x", "_doc_count": 1_000_000, "_source": {}, "_index": "other", "_whatever": [1]},
            {f"field{number}": number for number in range(5000)},
            {"event": "view", "text": "nul \0 and \x01"},
            {"a.b": 1, "a": {"b": 2}, "": 1, " ": 2, ".": 3, "a..b": 4, "*": 5, "\0": 6},
            {"n": 2**64 - 1, "m": -(2**63), "o": 1.7976931348623157e308, "p": 5e-324},
            {"params": "mine", "@version": 7, "event.original": "mine", "[repeated]": "mine"},
            {"session": ["a"], "bot": "", "value": "12", "duration": "soon", "clientip": "999.1.1.1"},
            {"k" * 50_000: 1, "emoji": "😀" * 10_000},
        ],
        ids=lambda fields: next(iter(fields))[:12] or "empty",
    )
    async def test_an_odd_event_counts_once(
        self, server: Server, http: aiohttp.ClientSession, item: str, fields: dict[str, object]
    ) -> None:
        event = {"id": item, **fields}
        async with http.post("/tick", data=orjson.dumps(event)) as answer:
            assert answer.status == 204, await answer.text()
        async with http.post("/tick", data=b"[" + b",".join([orjson.dumps(event)] * 2) + b"]") as answer:
            assert (await answer.json())["accepted"] == 2
        assert await views(server, item) == 3

    @pytest.mark.parametrize(
        "text",
        ['"q":1,"q":2', '"q":{"a":1,"a":2}', f'"q":{"9" * 10_000}', '"q":1e400', f'"q":{"[" * 500}{"]" * 500}'],
        ids=["twice", "twice inside", "10,000 digits", "1e400", "deep"],
    )
    async def test_odd_json_is_kept_or_refused_and_fails_no_neighbour(
        self, server: Server, http: aiohttp.ClientSession, item: str, text: str
    ) -> None:
        odd = f'{{"id":"{item}-odd",{text}}}'
        good = f'{{"id":"{item}"}}'
        async with http.post("/tick", data=odd) as answer:
            if answer.status != 204:
                await refusal(answer, 400)
        for body in (f"{good}\n{odd}\n{good}", f"[{good},{odd},{good}]"):
            async with http.post("/tick", data=body) as answer:
                told = await answer.json()
            assert answer.status == 200
            assert told["accepted"] + len(told["rejected"]) == 3
            assert all(one["index"] == 1 for one in told["rejected"])
        assert await views(server, item) == 4

    @pytest.mark.parametrize("bad", ["NaN", "-Infinity", '"\\ud800x"', "01", "nope"])
    async def test_a_broken_line_fails_no_neighbour(
        self, server: Server, http: aiohttp.ClientSession, item: str, bad: str
    ) -> None:
        good = f'{{"id":"{item}"}}'
        async with http.post("/tick", data=f'{good}\n{{"n":{bad}}}\n{good}\n') as answer:
            told = await answer.json()
        assert (told["accepted"], [one["index"] for one in told["rejected"]]) == (2, [1])
        assert await views(server, item) == 2


async def send_raw(server: Server, data: bytes, seconds: float = 5) -> bytes:
    """Send bytes and return what comes back until the server closes the connection, or for so long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    answer = b""
    try:
        writer.write(data)
        await writer.drain()
        async with asyncio.timeout(seconds):
            answer = await reader.read(100_000)
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.transport.abort()
    return answer


GARBAGE: Final = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /tick HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    b"POST /tick HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
    b"POST /tick HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    b"POST /tick HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n{}\r\n",
    b'POST /tick HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"a": 1}\r\nZZZ\r\n\r\n',
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
    b"GET /tock/\xff\xfe.json?from=\xff HTTP/1.1\r\nHost: \xff\r\n\r\n",
    b"POST /tick HTTP/1.1\r\nHost: x\r\nExpect: the unexpected\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /tick HTTP/1.1\r\nHost: x\r\nContent-Encoding: \xff\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /tick HTTP/1.1\r\nHost: x\r\nContent-Type: \xff/\xfe; =;;\r\nContent-Length: 2\r\n\r\n{}",
    b"\r\n" * 1000,
    b"\0" * 10_000,
)


class TestStrangers:
    """What comes to the socket that is no request at all."""

    @pytest.mark.parametrize("garbage", GARBAGE, ids=lambda garbage: repr(garbage[:30]))
    async def test_garbage_ends_its_own_connection_only(self, either: Server, garbage: bytes) -> None:
        answer = await send_raw(either, garbage, 1)
        assert not answer.startswith(b"HTTP/1.1 5")
        async with aiohttp.ClientSession(either.url, timeout=SECONDS) as http:
            await good_event_gets_through(either, http)
        assert either.error_lines() == []

    async def test_random_bytes_end_their_own_connection_only(
        self, server: Server, http: aiohttp.ClientSession
    ) -> None:
        noise = random.Random(7)
        for size in (1, 10, 100, 1000, 10_000):
            for head in (
                b"",
                b"POST /tick HTTP/1.1\r\n",
                b"POST /tick HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            ):
                await send_raw(server, head + noise.randbytes(size), 0.2)
        await good_event_gets_through(server, http)
        assert server.error_lines() == []

    @pytest.mark.parametrize("head", [b"Content-Length: 80", b"Transfer-Encoding: chunked"])
    async def test_a_sender_that_hangs_up_amid_its_body_is_no_error(
        self, server: Server, http: aiohttp.ClientSession, head: bytes
    ) -> None:
        for _ in range(5):
            await send_raw(server, b"POST /tick HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n5\r\n{", 0.05)
        await good_event_gets_through(server, http)
        assert server.error_lines() == []

    async def test_slow_senders_hold_up_nobody(self, server: Server, http: aiohttp.ClientSession) -> None:
        halves = (b"POST /tick HT", b'POST /tick HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"id"')
        slow = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(200)]
        try:
            for number, (_, writer) in enumerate(slow):
                writer.write(halves[number % 2])
                await writer.drain()
            began = time.monotonic()
            for _ in range(20):
                async with http.post("/tick", json={"id": "x"}) as answer:
                    assert answer.status == 204
            assert time.monotonic() - began < 3
        finally:
            for _, writer in slow:
                writer.transport.abort()
        await good_event_gets_through(server, http)
        assert server.error_lines() == []

    async def test_a_request_may_come_byte_by_byte(self, server: Server, item: str) -> None:
        body = orjson.dumps({"id": item})
        request = (
            b"POST /tick HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for number in range(len(request)):
            writer.write(request[number : number + 1])
            await writer.drain()
        assert (await reader.read()).startswith(b"HTTP/1.1 204 ")
        writer.close()
        await writer.wait_closed()
        assert await views(server, item) == 1

    async def test_an_address_may_be_absolute(self, either: Server, item: str) -> None:
        async with (
            aiohttp.ClientSession(either.url, timeout=SECONDS) as http,
            http.post("/tick", json={"id": item}) as answer,
        ):
            assert answer.status == 204
        assert await views(either, item) == 1
        request = f"GET http://x/tock/{item}.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        head, _, body = (await send_raw(either, request.encode())).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert list(orjson.loads(body)["views"].values()) == [1]


def hostile_events() -> list[Any]:
    if not SHARED.exists():
        return [pytest.param("", id="absent", marks=pytest.mark.skip("the hostile events are not beside the project"))]
    return [pytest.param(one["body"], id=one["name"]) for one in map(orjson.loads, SHARED.read_bytes().splitlines())]


@pytest.mark.shared_data
@pytest.mark.parametrize("hostile", hostile_events())
async def test_a_hostile_event_is_kept_or_refused_and_fails_no_neighbour(
    server: Server, http: aiohttp.ClientSession, item: str, hostile: str
) -> None:
    async with http.post("/tick", data=hostile.encode()) as answer:
        if answer.status != 204:
            await refusal(answer, answer.status)
            assert answer.status in {400, 413}
    good = f'{{"id":"{item}"}}'
    for body in (f"{good}\n{hostile}\n{good}", f"[{good},{hostile},{good}]"):
        async with http.post("/tick", data=body.encode()) as answer:
            assert answer.status == 200, await answer.text()
            told = await answer.json()
        assert told["accepted"] + len(told["rejected"]) == 3
        for one in told["rejected"]:
            assert one["index"] == 1
            assert_sentence(one["error"])
    async with http.post("/tick", data=good) as answer:
        assert answer.status == 204
    assert await views(server, item) == 5
    assert not list((server.data / "dead").glob("*"))
