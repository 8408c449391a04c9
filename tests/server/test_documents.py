"""``POST /documents``: what comes from an archive is in the store when it is answered, once."""

import gzip
from typing import Any

import aiohttp
import orjson
import pytest

from tests.servers import Server, running_server, unique_name

SECONDS = aiohttp.ClientTimeout(total=60)


def document(item: str, identity: str, **fields: Any) -> bytes:
    made = {"@timestamp": "2015-01-22T09:30:00.000Z", "event_id": identity, "@version": "1", "id": item}
    return orjson.dumps({**made, "event": "view", **fields}, option=orjson.OPT_APPEND_NEWLINE)


async def post(server: Server, body: bytes, **headers: str) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession(server.url, timeout=SECONDS) as http,
        http.post("/documents", data=body, headers=headers) as answer,
    ):
        return answer.status, orjson.loads(await answer.read())


async def test_documents_are_stored_before_the_response_and_count_once(either: Server, item: str) -> None:
    body = b"".join(document(item, f"{item}{number}") for number in range(3))
    assert await post(either, body) == (200, {"accepted": 3, "known": 0, "rejected": []})
    assert either.get(f"/tock/{item}.json")["views"] == {"2015-01-22": 3}
    packed = gzip.compress(body + document(item, f"{item}9", format="csv", event="download"))
    assert await post(either, packed, **{"Content-Encoding": "gzip"}) == (
        200,
        {"accepted": 4, "known": 3, "rejected": []},
    )
    told = either.get(f"/tock/{item}.json")
    assert (told["views"], told["downloads"]) == ({"2015-01-22": 3}, {"csv": 1})


async def test_rejects_only_invalid_documents(either: Server, item: str) -> None:
    body = document(item, f"{item}1") + b'{"id":"x"}\n' + document(item, f"{item}2", _doc_count=9) + b"\xff\n"
    status, told = await post(either, body + document(item, f"{item}3"))
    assert (status, told["accepted"], told["known"]) == (200, 2, 0)
    assert [one["index"] for one in told["rejected"]] == [1, 2, 3]
    assert "begins with @timestamp" in told["rejected"][0]["error"]
    assert either.get(f"/tock/{item}.json")["views"] == {"2015-01-22": 2}


async def test_accepts_an_empty_body(either: Server) -> None:
    assert await post(either, b"") == (200, {"accepted": 0, "known": 0, "rejected": []})


async def test_rejects_a_body_with_too_many_documents(either: Server, item: str) -> None:
    status, told = await post(either, gzip.compress(document(item, "x") * 10_001), **{"Content-Encoding": "gzip"})
    assert (status, told["detail"].split(":")[0]) == (413, "the body holds over batch_max_events (10000) documents")
    assert either.get(f"/tock/{item}.json")["views"] == {}


async def test_needs_the_scope_import(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_server(tmp_path_factory.mktemp("documents") / "data", host="0.0.0.0") as server:  # noqa: S104  # that it is not open
        status, told = await post(server, document("x", "1"))
        assert (status, told["detail"].split(";")[0]) == (401, "a key with the scope import is needed")


async def test_documents_bypass_the_spool(either: Server, item: str) -> None:
    before = either.accepted_events()
    await post(either, document(item, unique_name()))
    assert either.accepted_events() == before


async def get(server: Server, query: str) -> tuple[int, bytes, str | None]:
    async with (
        aiohttp.ClientSession(server.url, timeout=SECONDS) as http,
        http.get(f"/documents?{query}") as answer,
    ):
        return answer.status, await answer.read(), answer.headers.get("Metronome-Next")


async def test_pages_continue_where_the_header_says(either: Server, item: str) -> None:
    lines = [document(item, f"{item}{number}") for number in range(3)]
    await post(either, b"".join(lines))
    status, page, after = await get(either, f"id={item}&limit=2")
    assert (status, page) == (200, lines[0] + lines[1])
    assert after == f"2015-01-22T09%3A30%3A00.000Z%2C{item}1"
    assert await get(either, f"id={item}&limit=2&after={after}") == (200, lines[2], None)
    assert (await get(either, f"id={item}&metrics=count"))[0] == 400


async def test_reading_needs_the_scope_query(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_server(tmp_path_factory.mktemp("documents") / "data", host="0.0.0.0") as server:  # noqa: S104  # that it is not open
        status, told, _ = await get(server, "")
        assert (status, b"a key with the scope query is needed" in told) == (401, True)
