"""``POST /tick`` over HTTP, with valid and hostile requests."""

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
    response: dict[str, dict[str, int]] = await asyncio.to_thread(server.get, f"/tock/{item}.json?bots=1&limit=0")
    return response


async def views(server: Server, item: str) -> int:
    return sum((await tock(server, item))["views"].values())


async def error_detail(response: aiohttp.ClientResponse, status: int) -> str:
    """Check that a response is an error in the format of RFC 9457, and return its detail."""
    problem = await response.json(content_type="application/problem+json")
    assert response.status == status, problem
    assert problem["status"] == status
    assert problem["type"] == f"urn:metronome:error:{problem['title']}"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert_sentence(problem["detail"])
    return str(problem["detail"])


def large(body: object) -> io.BytesIO:
    """Encode a body so that aiohttp's client sends it with a Content-Length."""
    return io.BytesIO(orjson.dumps(body))


def assert_sentence(text: str) -> None:
    assert len(text.split()) >= 4, text
    assert len(text) < 600, text
    assert "Traceback" not in text


async def good_event_gets_through(server: Server, http: aiohttp.ClientSession) -> None:
    item = unique_name("good-")
    async with http.post("/tick", json={"id": item}) as response:
        assert response.status == 204
    assert await views(server, item) == 1


class TestFormats:
    async def test_a_single_event_is_answered_with_204(
        self, server: Server, http: aiohttp.ClientSession, item: str
    ) -> None:
        async with http.post("/tick", json={"id": item, "event": "download", "format": "KML"}) as response:
            assert (response.status, await response.read()) == (204, b"")
        assert await tock(server, item) == {
            "views": {},
            "downloads": {"kml": 1},
            "referers": {},
            "totals": {"views": 0, "downloads": 1},
        }

    @pytest.mark.parametrize("content_type", ["text/plain;charset=UTF-8", "application/json", "image/png", "nonsense"])
    async def test_accepts_any_content_type(
        self, server: Server, http: aiohttp.ClientSession, item: str, content_type: str
    ) -> None:
        body = orjson.dumps({"id": item})
        async with http.post("/tick", data=body, headers={"Content-Type": content_type}) as response:
            assert response.status == 204
        assert await views(server, item) == 1

    async def test_accepts_a_request_without_a_content_type(self, server: Server, item: str) -> None:
        body = orjson.dumps({"id": item})
        head = f"POST /tick HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        assert (await send_raw(server, head.encode() + body)).startswith(b"HTTP/1.1 204 ")
        assert await views(server, item) == 1

    @pytest.mark.clock
    async def test_the_reply_to_an_array_has_the_result_of_each_event(
        self, server: Server, http: aiohttp.ClientSession, item: str
    ) -> None:
        batch: list[Any] = [{"id": item}, {"id": item, "ts": "never"}, 7, {"id": item}]
        async with http.post("/tick", json=batch) as response:
            assert response.status == 200
            result = await response.json()
        assert result["accepted"] == 2
        assert [rejection["index"] for rejection in result["rejected"]] == [1, 2]
        for rejection in result["rejected"]:
            assert_sentence(rejection["error"])
        assert await views(server, item) == 2

    @pytest.mark.parametrize("content_type", ["application/x-ndjson", "text/plain"])
    async def test_the_reply_to_lines_has_the_result_of_each_event(
        self, server: Server, http: aiohttp.ClientSession, item: str, content_type: str
    ) -> None:
        line = orjson.dumps({"id": item})
        body = b"\n".join([line, b"{broken", b"", line, b"[]", line]) + b"\n"
        async with http.post("/tick", data=body, headers={"Content-Type": content_type}) as response:
            result = await response.json()
        assert result["accepted"] == 3
        assert [rejection["index"] for rejection in result["rejected"]] == [1, 3]
        assert await views(server, item) == 3

    async def test_a_form_is_one_event(self, server: Server, http: aiohttp.ClientSession, item: str) -> None:
        form = {"id": item, "referer": "https://www.Example.org/news/?x=1"}
        async with http.post("/tick", data=form) as response:
            assert response.status == 204
        assert (await tock(server, item))["referers"] == {"example.org/news": 1}

    @pytest.mark.parametrize("body", [b"[]", b"\n\n"])
    async def test_an_empty_batch_is_valid(self, http: aiohttp.ClientSession, body: bytes) -> None:
        async with http.post("/tick", data=body, headers={"Content-Type": "application/x-ndjson"}) as response:
            assert response.status == 200
            assert (await response.json())["accepted"] == 0


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
    async def test_an_encoded_body_is_decoded(
        self, server: Server, http: aiohttp.ClientSession, item: str, encoding: str, count: int
    ) -> None:
        batch = [{"id": item, "noise": random.random()} for _ in range(count)]
        body = ENCODERS[encoding](orjson.dumps(batch))
        async with http.post("/tick", data=body, headers={"Content-Encoding": encoding}) as response:
            assert await response.json() == {"accepted": count, "rejected": []}
        assert await views(server, item) == count

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
    async def test_rejects_a_truncated_body(self, http: aiohttp.ClientSession, encoding: str) -> None:
        body = ENCODERS[encoding](orjson.dumps({"id": "x", "noise": unique_name()}))[:-3]
        async with http.post("/tick", data=body, headers={"Content-Encoding": encoding}) as response:
            assert "is incomplete" in await error_detail(response, 400)

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
    async def test_rejects_a_body_that_does_not_have_its_encoding(
        self, http: aiohttp.ClientSession, encoding: str
    ) -> None:
        async with http.post("/tick", data=b'{"id":"x"}', headers={"Content-Encoding": encoding}) as response:
            assert encoding in await error_detail(response, 400)

    @pytest.mark.parametrize("encoding", ["br", "compress", "gzip, br", ", ".join(["gzip"] * 400)])
    async def test_rejects_an_unknown_encoding(self, http: aiohttp.ClientSession, encoding: str) -> None:
        async with http.post("/tick", data=b"{}", headers={"Content-Encoding": encoding}) as response:
            await error_detail(response, 415)

    @pytest.mark.slow
    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "gzip, gzip"])
    async def test_a_decompression_bomb_costs_little_memory_and_time(self, tmp_path: Path, encoding: str) -> None:
        body = bomb(encoding)
        assert len(body) < 2 * MIB
        with running_server(tmp_path / "data") as server:
            async with aiohttp.ClientSession(server.url, timeout=SECONDS) as http:
                await good_event_gets_through(server, http)
                before, began = server.peak_memory(), time.monotonic()
                async with http.post("/tick", data=body, headers={"Content-Encoding": encoding}) as response:
                    assert "body_max_bytes" in await error_detail(response, 413)
                assert time.monotonic() - began < 10
                assert server.peak_memory() - before < 100 * MIB
                await good_event_gets_through(server, http)

    @pytest.mark.parametrize("encoding", ["gzip", "zstd"])
    async def test_a_million_empty_members_cost_little_time(
        self, server: Server, http: aiohttp.ClientSession, encoding: str
    ) -> None:
        empty = ENCODERS[encoding](b"")
        body = empty * (BODY_MAX // len(empty))
        began = time.monotonic()
        async with http.post("/tick", data=io.BytesIO(body), headers={"Content-Encoding": encoding}) as response:
            assert "compressed members" in await error_detail(response, 400)
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
    @pytest.mark.crew
    async def test_a_resent_batch_is_counted_once(self, either: Server, item: str) -> None:
        headers, batch = {"Idempotency-Key": unique_name("key-")}, [{"id": item}] * 5
        for _ in range(8):
            # A connection each, so that both workers get some.
            async with aiohttp.ClientSession(either.url, timeout=SECONDS) as http:
                async with http.post("/tick", json=batch, headers=headers) as response:
                    assert (await response.json())["accepted"] == 5
                async with http.post("/tick", json={"id": f"{item}-single"}, headers=headers) as response:
                    assert response.status == 204
        assert await views(either, item) == 5

    async def test_another_key_is_another_batch(self, server: Server, http: aiohttp.ClientSession, item: str) -> None:
        for _ in range(2):
            headers = {"Idempotency-Key": unique_name("key-")}
            async with http.post("/tick", json={"id": item}, headers=headers) as response:
                assert response.status == 204
        assert await views(server, item) == 2

    async def test_an_event_id_wins_over_the_key(self, server: Server, http: aiohttp.ClientSession, item: str) -> None:
        event = {"id": item, "event_id": unique_name()}
        for key in ("one", "two"):
            async with http.post("/tick", json=event, headers={"Idempotency-Key": key}) as response:
                assert response.status == 204
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
            http.post("/tick", json={"id": "x"}, headers={"Origin": "https://example.org"}) as response,
        ):
            assert response.status == 204
            # Browsers do not accept `*` for requests with cookies.
            assert response.headers["Access-Control-Allow-Origin"] == "https://example.org"
            assert response.headers["Access-Control-Allow-Credentials"] == "true"

    @pytest.mark.parametrize(
        ("path", "method"), [("/tick", "POST"), ("/tock/a%2Fb.json", "GET"), ("/items.json", "GET")]
    )
    async def test_a_preflight_is_answered(self, either: Server, path: str, method: str) -> None:
        asked = {
            "Origin": "https://example.org",
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "content-type,idempotency-key,traceparent,baggage,x-requested-with",
        }
        async with (
            aiohttp.ClientSession(either.url, timeout=SECONDS) as http,
            http.options(path, headers=asked) as response,
        ):
            assert response.status == 204
            is_ingest = path == "/tick"
            assert response.headers["Access-Control-Allow-Origin"] == ("https://example.org" if is_ingest else "*")
            assert response.headers.get("Access-Control-Allow-Credentials") == ("true" if is_ingest else None)
            assert method in response.headers["Access-Control-Allow-Methods"].split(", ")
            assert response.headers["Access-Control-Allow-Headers"] == asked["Access-Control-Request-Headers"]

    @pytest.mark.parametrize("names", ["", "a b", "x,", "é"])
    async def test_a_preflight_without_valid_header_names_is_answered(self, either: Server, names: str) -> None:
        asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
        async with (
            aiohttp.ClientSession(either.url, timeout=SECONDS) as http,
            http.options("/tick", headers={**asked, "Access-Control-Request-Headers": names}) as response,
        ):
            allowed = response.headers["Access-Control-Allow-Headers"].lower().split(", ")
            assert {"content-type", "content-encoding", "idempotency-key"} <= set(allowed)

    @pytest.mark.parametrize(
        ("path", "body", "status"),
        [
            ("/tick", b'{"event":"x"}', 204),
            ("/tick", b"{", 400),
            ("/api/track", b'{"type":"x"}', 200),
            ("/api/track/batch", b'{"events":[]}', 200),
            ("/matomo.php", b"", 400),
            ("/sessions", b"{}", 401),
            ("/events", b"{}", 400),
        ],
    )
    async def test_a_page_may_send_cookies_with_its_events(
        self, either: Server, path: str, body: bytes, status: int
    ) -> None:
        headers = {"Origin": "https://example.org", "Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession(either.url, timeout=SECONDS) as http,
            http.post(path, data=body, headers=headers) as response,
        ):
            assert response.status == status
            assert response.headers["Access-Control-Allow-Origin"] == "https://example.org"
            assert response.headers["Access-Control-Allow-Credentials"] == "true"
            assert response.headers["Vary"] == "Origin"

    async def test_a_multipart_form_is_read_like_another_form(self, either: Server, item: str) -> None:
        form = aiohttp.FormData({"id": item, "event": "view", "note": "a\r\nb é"}, quote_fields=True)
        form.add_field("file", b"text", filename="blob")
        async with (
            aiohttp.ClientSession(either.url, timeout=SECONDS) as http,
            http.post("/tick", data=form) as response,
        ):
            assert response.status == 204
        either.wait_until_shipped()
        (row,) = either.get(f"/query?id={item}&by=note,file&bots=1")["rows"]
        assert row == ["a\r\nb é", "text", 1]


class TestErrors:
    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
    async def test_the_reply_to_another_method_lists_the_allowed_ones(self, either: Server, method: str) -> None:
        async with (
            aiohttp.ClientSession(either.url, timeout=SECONDS) as http,
            http.request(method, "/tick") as response,
        ):
            assert response.headers["Allow"] == "OPTIONS, POST"
            assert method in await error_detail(response, 405)

    async def test_a_report_cannot_be_posted(self, either: Server) -> None:
        async with aiohttp.ClientSession(either.url, timeout=SECONDS) as http, http.post("/tock/x.json") as response:
            assert response.headers["Allow"] == "GET, HEAD, OPTIONS"
            await error_detail(response, 405)

    @pytest.mark.parametrize("path", ["/nothing", "/tick/", "/tock/", "/tock/.json", "/tock/x", "/%00", "/%FF%FE"])
    async def test_an_unknown_path_is_not_found(self, either: Server, path: str) -> None:
        async with aiohttp.ClientSession(either.url, timeout=SECONDS) as http, http.get(path) as response:
            assert "unknown path" in await error_detail(response, 404)

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
    async def test_rejects_a_body_without_an_event(
        self, server: Server, http: aiohttp.ClientSession, body: bytes
    ) -> None:
        async with http.post("/tick", data=body) as response:
            await error_detail(response, 400)
        await good_event_gets_through(server, http)

    @pytest.mark.parametrize(
        "timestamp",
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
        ids=lambda timestamp: repr(timestamp)[:30],
    )
    @pytest.mark.parametrize("name", ["@timestamp", "ts"])
    async def test_the_error_quotes_an_invalid_time(
        self, http: aiohttp.ClientSession, name: str, timestamp: object
    ) -> None:
        async with http.post("/tick", data=orjson.dumps({"id": "x", name: timestamp})) as response:
            await error_detail(response, 400)

    @pytest.mark.parametrize("name", ["id", "event", "format", "event_id"])
    async def test_the_error_names_a_field_that_is_too_long(
        self, server: Server, http: aiohttp.ClientSession, name: str, item: str
    ) -> None:
        long = {"id": item, name: "x" * MIB}
        async with http.post("/tick", data=large(long)) as response:
            assert f"{name} is over" in await error_detail(response, 400)
        async with http.post("/tick", data=large([{"id": item}, long, {"id": item}])) as response:
            result = await response.json()
        assert (result["accepted"], [rejection["index"] for rejection in result["rejected"]]) == (2, [1])
        assert await views(server, item) == 2

    async def test_an_event_over_the_limit_does_not_affect_others(
        self, server: Server, http: aiohttp.ClientSession, item: str
    ) -> None:
        over = {"id": item, "text": "x" * (MIB + 1)}
        async with http.post("/tick", data=large(over)) as response:
            assert "event_max_bytes" in await error_detail(response, 413)
        async with http.post("/tick", data=large([{"id": item}, over])) as response:
            result = await response.json()
        assert (result["accepted"], [rejection["index"] for rejection in result["rejected"]]) == (1, [1])
        assert await views(server, item) == 1

    async def test_rejects_a_million_events_at_once(self, server: Server, http: aiohttp.ClientSession) -> None:
        for body in (b"[" + b'{"a":1},' * 999_999 + b'{"a":1}]', b'{"a":1}\n' * 1_000_000):
            began = time.monotonic()
            async with http.post("/tick", data=io.BytesIO(body)) as response:
                assert "fewer at once" in await error_detail(response, 413)
            assert time.monotonic() - began < 10
        await good_event_gets_through(server, http)

    async def test_accepts_the_maximum_number_of_events(
        self, server: Server, http: aiohttp.ClientSession, item: str
    ) -> None:
        async with http.post("/tick", json=[{"id": item}] * BATCH_MAX) as response:
            assert (await response.json())["accepted"] == BATCH_MAX
        assert await views(server, item) == BATCH_MAX

    async def test_rejects_a_body_over_the_limit(self, either: Server) -> None:
        async with aiohttp.ClientSession(either.url, timeout=SECONDS) as http:
            async with http.post("/tick", data=io.BytesIO(bytes(BODY_MAX + 1))) as response:
                assert "body_max_bytes" in await error_detail(response, 413)
            await good_event_gets_through(either, http)

    async def test_rejects_a_body_over_the_limit_without_a_content_length(self, server: Server) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(17):
                yield b" " * MIB

        async with aiohttp.ClientSession(server.url, timeout=SECONDS) as http:
            async with http.post("/tick", data=chunks()) as response:
                assert "body_max_bytes" in await error_detail(response, 413)
            await good_event_gets_through(server, http)

    async def test_an_unknown_health_check_is_not_found(self, http: aiohttp.ClientSession) -> None:
        async with http.get("/health/ready/nothing") as response:
            assert "/health/ready/nothing" in await error_detail(response, 404)


class TestUnusualEvents:
    """Events that are unusual, but valid."""

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
    async def test_an_unusual_event_is_counted_once(
        self, server: Server, http: aiohttp.ClientSession, item: str, fields: dict[str, object]
    ) -> None:
        event = {"id": item, **fields}
        async with http.post("/tick", data=orjson.dumps(event)) as response:
            assert response.status == 204, await response.text()
        async with http.post("/tick", data=b"[" + b",".join([orjson.dumps(event)] * 2) + b"]") as response:
            assert (await response.json())["accepted"] == 2
        assert await views(server, item) == 3

    @pytest.mark.parametrize(
        "text",
        ['"q":1,"q":2', '"q":{"a":1,"a":2}', f'"q":{"9" * 10_000}', '"q":1e400', f'"q":{"[" * 500}{"]" * 500}'],
        ids=["twice", "twice inside", "10,000 digits", "1e400", "deep"],
    )
    async def test_unusual_json_is_stored_or_rejected_and_does_not_affect_others(
        self, server: Server, http: aiohttp.ClientSession, item: str, text: str
    ) -> None:
        odd = f'{{"id":"{item}-odd",{text}}}'
        good = f'{{"id":"{item}"}}'
        async with http.post("/tick", data=odd) as response:
            if response.status != 204:
                await error_detail(response, 400)
        for body in (f"{good}\n{odd}\n{good}", f"[{good},{odd},{good}]"):
            async with http.post("/tick", data=body) as response:
                result = await response.json()
            assert response.status == 200
            assert result["accepted"] + len(result["rejected"]) == 3
            assert all(rejection["index"] == 1 for rejection in result["rejected"])
        assert await views(server, item) == 4

    @pytest.mark.parametrize("bad", ["NaN", "-Infinity", '"\\ud800x"', "01", "nope"])
    async def test_an_invalid_line_does_not_affect_others(
        self, server: Server, http: aiohttp.ClientSession, item: str, bad: str
    ) -> None:
        good = f'{{"id":"{item}"}}'
        async with http.post("/tick", data=f'{good}\n{{"n":{bad}}}\n{good}\n') as response:
            result = await response.json()
        assert (result["accepted"], [rejection["index"] for rejection in result["rejected"]]) == (2, [1])
        assert await views(server, item) == 2


async def send_raw(server: Server, data: bytes, seconds: float = 5) -> bytes:
    """Send bytes and return the reply until the server closes the connection, or the time is over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    response = b""
    try:
        writer.write(data)
        await writer.drain()
        async with asyncio.timeout(seconds):
            response = await reader.read(100_000)
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.transport.abort()
    return response


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


class TestInvalidHttp:
    """Connections that send no valid request."""

    @pytest.mark.parametrize("garbage", GARBAGE, ids=lambda garbage: repr(garbage[:30]))
    async def test_garbage_only_ends_its_own_connection(self, either: Server, garbage: bytes) -> None:
        response = await send_raw(either, garbage, 1)
        assert not response.startswith(b"HTTP/1.1 5")
        async with aiohttp.ClientSession(either.url, timeout=SECONDS) as http:
            await good_event_gets_through(either, http)
        assert either.error_lines() == []

    async def test_random_bytes_only_end_their_own_connection(
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
    async def test_a_disconnect_within_a_body_is_not_an_error(
        self, server: Server, http: aiohttp.ClientSession, head: bytes
    ) -> None:
        for _ in range(5):
            await send_raw(server, b"POST /tick HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n5\r\n{", 0.05)
        await good_event_gets_through(server, http)
        assert server.error_lines() == []

    async def test_slow_senders_do_not_delay_others(self, server: Server, http: aiohttp.ClientSession) -> None:
        halves = (b"POST /tick HT", b'POST /tick HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"id"')
        slow = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(200)]
        try:
            for number, (_, writer) in enumerate(slow):
                writer.write(halves[number % 2])
                await writer.drain()
            began = time.monotonic()
            for _ in range(20):
                async with http.post("/tick", json={"id": "x"}) as response:
                    assert response.status == 204
            assert time.monotonic() - began < 3
        finally:
            for _, writer in slow:
                writer.transport.abort()
        await good_event_gets_through(server, http)
        assert server.error_lines() == []

    async def test_a_request_may_arrive_byte_by_byte(self, server: Server, item: str) -> None:
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

    async def test_a_request_target_may_be_an_absolute_url(self, either: Server, item: str) -> None:
        async with (
            aiohttp.ClientSession(either.url, timeout=SECONDS) as http,
            http.post("/tick", json={"id": item}) as response,
        ):
            assert response.status == 204
        assert await views(either, item) == 1
        request = f"GET http://x/tock/{item}.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        head, _, body = (await send_raw(either, request.encode())).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert list(orjson.loads(body)["views"].values()) == [1]


def hostile_events() -> list[Any]:
    if not SHARED.exists():
        return [pytest.param("", id="absent", marks=pytest.mark.skip("the hostile events are not beside the project"))]
    return [
        pytest.param(event["body"], id=event["name"]) for event in map(orjson.loads, SHARED.read_bytes().splitlines())
    ]


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.parametrize("hostile", hostile_events())
async def test_a_hostile_event_is_stored_or_rejected_and_does_not_affect_others(
    server: Server, http: aiohttp.ClientSession, item: str, hostile: str
) -> None:
    async with http.post("/tick", data=hostile.encode()) as response:
        if response.status != 204:
            await error_detail(response, response.status)
            assert response.status in {400, 413}
    good = f'{{"id":"{item}"}}'
    for body in (f"{good}\n{hostile}\n{good}", f"[{good},{hostile},{good}]"):
        async with http.post("/tick", data=body.encode()) as response:
            assert response.status == 200, await response.text()
            result = await response.json()
        assert result["accepted"] + len(result["rejected"]) == 3
        for rejection in result["rejected"]:
            assert rejection["index"] == 1
            assert_sentence(rejection["error"])
    async with http.post("/tick", data=good) as response:
        assert response.status == 204
    assert await views(server, item) == 5
    assert not list((server.data / "dead").glob("*"))
