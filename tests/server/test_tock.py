"""Reports of a real server: one item's, and the items used most."""

import asyncio
import re
import urllib.request
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers import REQUEST_TIMEOUT_SECONDS, Server, unique_name

EMPTY: Final[dict[str, dict[str, int]]] = {
    "views": {},
    "downloads": {},
    "referers": {},
    "totals": {"views": 0, "downloads": 0},
}
SECONDS: Final = aiohttp.ClientTimeout(total=60)


@pytest.fixture
async def http(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url, timeout=SECONDS) as session:
        yield session


def fill(server: Server, *events: dict[str, Any]) -> None:
    told = orjson.loads(server.post_events(orjson.dumps(events)))
    assert told == {"accepted": len(events), "rejected": []}
    server.wait_until_shipped()


def tock(server: Server, item: str, query: str = "") -> Any:
    return server.get(f"/tock/{quote(item, safe='')}.json{query}")


async def answer_of(http: aiohttp.ClientSession, path: str) -> tuple[int, bytes]:
    async with http.get(path) as answer:
        return answer.status, await answer.read()


async def test_the_shape_is_that_of_the_readme(server: Server, http: aiohttp.ClientSession, item: str) -> None:
    day, before = "2015-01-22T09:30:00Z", "2015-01-21T23:59:59.999Z"
    seen = [{"id": item, "ts": day}] * 3 + [{"id": item, "ts": before, "referer": "http://www.arcgis.com/"}] * 2
    seen += [{"id": item, "ts": day, "format": "KML", "referer": "https://washingtonpost.com/articles/dc-news/?a=1#b"}]
    seen += [{"id": item, "ts": day, "format": "csv", "referer": "https://washingtonpost.com/articles/dc-news"}] * 2
    seen += [{"id": item, "ts": day, "event": "error", "referer": "https://example.org"}]
    fill(server, *seen)
    status, body = await answer_of(http, f"/tock/{item}.json")
    assert status == 200
    # As text: the order of the keys is part of the answer.
    assert body.decode() == (
        '{"views":{"2015-01-22":3,"2015-01-21":2},"downloads":{"csv":2,"kml":1},'
        '"referers":{"washingtonpost.com/articles/dc-news":3,"arcgis.com":2},"totals":{"views":5,"downloads":3}}'
    )


async def test_an_item_never_seen_has_three_empty_answers(http: aiohttp.ClientSession, item: str) -> None:
    status, body = await answer_of(http, f"/tock/{item}.json")
    assert (status, orjson.loads(body)) == (200, EMPTY)


IDS: Final = (
    *("a/b", "a//b/", "/", "//", "/a", "a b", " ", "+", "a+b", "100%", "%", "%2F", "%41", "%zz", "%%%", "\"'`"),
    *(
        "a.json",
        ".json",
        "a.json.json",
        ".",
        "a.b",
        "x.",
        "?",
        "a?b=c",
        "#",
        "a#b",
        "&",
        "=",
        "\\",
        "\\n",
        "<a>",
        "{id}",
    ),
    *("😀", "é", "e\u0301", "ß", "İ", "中文", "مرحبا", "\u202e", "\ufeff", "\ufffd", "\uffff", "\U0010ffff", "\u2028"),
    *("\n", "\t", "a\r\nb", "\x7f", "\x01", "a'; DROP TABLE events; --", "*", "%_", "null", "0", "-1", "1e3", "NaN"),
    *("x" * 1024, "é" * 512, "😀" * 256, "http://example.org/a?b=c#d", "urn:uuid:1", "~", "$", ",", ";", ":", "@", "|"),
)


def test_an_id_may_hold_any_character(server: Server) -> None:
    assert len(set(IDS)) == len(IDS)
    fill(server, *({"id": one, "event": "download", "format": f"f{n}"} for n, one in enumerate(IDS)))
    found = {one: tock(server, one) for one in IDS}
    totals = {"views": 0, "downloads": 1}
    assert found == {one: {**EMPTY, "downloads": {f"f{n}": 1}, "totals": totals} for n, one in enumerate(IDS)}


def test_slashes_in_the_address_need_not_be_encoded(server: Server, item: str) -> None:
    fill(server, {"id": f"{item}/a/b.json"}, {"id": f"{item}/a"})
    for path in (f"{item}/a/b.json", f"{item}%2Fa%2fb.json", f"{item}/a%2Fb%2Ejson"):
        assert sum(server.get(f"/tock/{path}.json")["views"].values()) == 1
    assert sum(server.get(f"/tock/{item}/a.json")["views"].values()) == 1


def test_a_number_is_an_id_too(server: Server) -> None:
    fill(server, {"id": 4711}, {"id": "4711"})
    assert sum(tock(server, "4711")["views"].values()) == 2


@pytest.mark.slow
@given(st.lists(st.text(min_size=1, max_size=250), min_size=10, max_size=40, unique=True))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_an_id(server: Server, ids: list[str]) -> None:
    mark = unique_name()
    named = {one: f"{mark}/{one}" for one in ids}
    fill(server, *({"id": one, "event": "download", "format": mark} for one in (*ids, *named.values())))
    for one, other in named.items():
        assert tock(server, one, "?limit=0")["downloads"][mark] == 1
        assert tock(server, other) == {**EMPTY, "downloads": {mark: 1}, "totals": {"views": 0, "downloads": 1}}


def test_an_address_that_is_not_utf_8_is_an_item_of_its_own(server: Server) -> None:
    prefix = unique_name()
    for path in ("%E9", "%E8", "%e8", "%C3%A9"):
        for target in (f"/hit/{prefix}{path}", f"/tick.gif?id=/{prefix}{path}&agent=x"):
            with urllib.request.urlopen(server.url + target, timeout=REQUEST_TIMEOUT_SECONDS):  # noqa: S310  # our own server
                pass
    for path, count in (("%E9", 2), ("%e8", 4), ("%C3%A9", 2)):
        views = server.get(f"/tock//{prefix}{path}.json?bots=1&limit=0")["views"]
        assert sum(views.values()) == count
        assert server.get(f"/hit/{prefix}{path}?count") == {"views": count}
        assert server.get(f"/query?id=/{prefix}{path}&bots=1")["rows"] == [[count]]


@pytest.fixture(scope="module")
def around(server: Server) -> str:
    """An item that is seen every six hours from New Year's Eve, by people, and once by a bot."""
    item = unique_name("around-")
    hours = [f"2024-{day}T{hour:02}:00:00Z" for day in ("01-01", "01-02", "01-31", "02-01") for hour in (0, 6, 12, 18)]
    events: list[dict[str, Any]] = [{"id": item, "ts": hour} for hour in hours]
    events += [
        {"id": item, "ts": "2023-12-31T23:59:59.999Z"},
        {"id": item, "ts": "2024-01-02T00:30:00Z", "bot": "x"},
    ]
    events += [{"id": item, "ts": "2024-01-01", "format": form} for form in ("a", "a", "a", "b", "b", "c")]
    fill(server, *events)
    return item


class TestParameters:
    @pytest.mark.parametrize(
        ("query", "views"),
        [
            ("", {"2024-02-01": 4, "2024-01-31": 4, "2024-01-02": 4, "2024-01-01": 4, "2023-12-31": 1}),
            ("bots=1", {"2024-02-01": 4, "2024-01-31": 4, "2024-01-02": 5, "2024-01-01": 4, "2023-12-31": 1}),
            (
                "bots=0&tz=UTC&interval=day",
                {"2024-02-01": 4, "2024-01-31": 4, "2024-01-02": 4, "2024-01-01": 4, "2023-12-31": 1},
            ),
            ("from=2024-01-02&to=2024-01-31", {"2024-01-31": 4, "2024-01-02": 4}),
            ("from=2024-01-02T12:00:00Z&to=2024-01-31T12:00:00Z", {"2024-01-31": 2, "2024-01-02": 2}),
            ("from=2024-01-02T12:00:00%2B01:00", {"2024-02-01": 4, "2024-01-31": 4, "2024-01-02": 2}),
            ("from=2024-01-02T12:00:00+01:00", {"2024-02-01": 4, "2024-01-31": 4, "2024-01-02": 2}),
            ("from=1706745600", {"2024-02-01": 4}),
            ("from=1706745600000", {"2024-02-01": 4}),
            ("to=2023-12-31", {"2023-12-31": 1}),
            ("to=2023-12-30", {}),
            ("from=-1d", {}),
            ("tz=Asia/Tokyo&from=2024-01-01&to=2024-01-01", {"2024-01-01": 4}),
            ("tz=Asia/Tokyo&to=2024-01-02", {"2024-01-02": 4, "2024-01-01": 4}),
            ("tz=America/New_York&to=2024-01-01", {"2024-01-01": 4, "2023-12-31": 2}),
            ("interval=month", {"2024-02": 4, "2024-01": 12, "2023-12": 1}),
            ("interval=week", {"2024-01-29": 8, "2024-01-01": 8, "2023-12-25": 1}),
            (
                "interval=hour&to=2024-01-01T07:00:00Z",
                {"2024-01-01T06:00:00Z": 1, "2024-01-01T00:00:00Z": 1, "2023-12-31T23:00:00Z": 1},
            ),
        ],
    )
    def test_views_are_those_asked_for_newest_first(
        self, server: Server, around: str, query: str, views: dict[str, int]
    ) -> None:
        assert list(tock(server, around, f"?{query}")["views"].items()) == list(views.items())

    @pytest.mark.parametrize(
        ("query", "downloads"),
        [("", {"a": 3, "b": 2, "c": 1}), ("?limit=2", {"a": 3, "b": 2}), ("?limit=0", {"a": 3, "b": 2, "c": 1})],
    )
    def test_a_limit_leaves_the_most_used(
        self, server: Server, around: str, query: str, downloads: dict[str, int]
    ) -> None:
        assert list(tock(server, around, query)["downloads"].items()) == list(downloads.items())

    @pytest.mark.parametrize("path", ["/tock/x.json", "/items.json"])
    @pytest.mark.parametrize(
        ("query", "named"),
        [
            *(("from=tomorrow", "from=tomorrow"), ("to=2024-02-30", "to=2024-02-30")),
            *(("from=-1M", "from=-1M"), ("from=-999999w", "from=-999999w")),
            *(("from=9999-12-31T23:59:59-14:00", "from="), ("to=9999-12-31", "to="), ("to=%00", "to=")),
            *(("tz=Mars/Phobos", "Mars/Phobos"), ("tz=../../etc/passwd", "time zone"), ("tz=%FF", "time zone")),
            *(("limit=-1", "limit=-1"), ("limit=many", "limit=many"), ("limit=1e3", "limit=1e3")),
            ("limit=%D9%A3", "limit="),
            *(("limit=99999999999999999999", "limit="), ("bots=perhaps", "bots=perhaps"), ("lmit=1", "'lmit'")),
            *(("%ED%A0%80=1", "parameter"), ("From=2024-01-01", "'From'"), ("tz=" + "x" * 3000, "time zone")),
        ],
    )  # fmt: skip
    async def test_a_wrong_parameter_is_named(
        self, http: aiohttp.ClientSession, path: str, query: str, named: str
    ) -> None:
        async with http.get(f"{path}?{query}") as answer:
            assert answer.status == 400
            problem = await answer.json(content_type="application/problem+json")
        assert problem["title"] == "InvalidQuery"
        assert named in problem["detail"]
        assert len(problem["detail"]) < 400

    async def test_parameters_that_only_one_report_has_are_named(self, http: aiohttp.ClientSession) -> None:
        for path, named in (
            ("/tock/x.json?interval=fortnight", "interval=fortnight"),
            ("/tock/x.json?order=views", "'order'"),
            ("/items.json?interval=day", "'interval'"),
            ("/items.json?order=referers", "order=referers"),
        ):
            status, body = await answer_of(http, path)
            assert status == 400
            assert named in orjson.loads(body)["detail"]


class TestCaching:
    async def test_what_has_not_changed_is_not_sent_again(
        self, server: Server, http: aiohttp.ClientSession, item: str
    ) -> None:
        path = f"/tock/{item}.json"
        async with http.get(path) as answer:
            tag = answer.headers["ETag"]
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert re.fullmatch(r'"[0-9a-f]+"', tag)
        for known in (tag, f'"other", {tag}', f"W/{tag}"):
            async with http.get(path, headers={"If-None-Match": known}) as answer:
                assert (answer.status, await answer.read()) == (304, b"")
                assert answer.headers["ETag"] == tag
        await asyncio.to_thread(fill, server, {"id": item})
        async with http.get(path, headers={"If-None-Match": tag}) as answer:
            assert answer.status == 200
            assert answer.headers["ETag"] != tag
            assert sum((await answer.json())["views"].values()) == 1

    async def test_only_the_head_may_be_asked_for(self, http: aiohttp.ClientSession, item: str) -> None:
        async with http.head(f"/tock/{item}.json") as answer:
            assert (answer.status, await answer.read()) == (200, b"")
            assert answer.content_type == "application/json"


@pytest.fixture(scope="module")
def day(server: Server) -> str:
    """A day on which a, b, c and d/e were used, and nothing else."""
    used = {"a": (3, 0), "b": (5, 1), "c": (1, 4), "d/e": (0, 2)}
    events = [{"id": one, "ts": "2001-02-03"} for one, (views, _) in used.items() for _ in range(views)]
    events += [{"id": one, "ts": "2001-02-03", "format": "x"} for one, (_, downs) in used.items() for _ in range(downs)]
    events += [{"id": "a", "ts": "2001-02-03", "bot": "crawler"}] * 9
    events += [{"id": "a", "ts": "2001-02-03", "event": "error"}, {"ts": "2001-02-03"}]
    fill(server, *events)
    return "from=2001-02-03&to=2001-02-03"


class TestItems:
    @pytest.mark.parametrize(
        ("query", "items"),
        [
            ("", [("b", 5, 1), ("a", 3, 0), ("c", 1, 4), ("d/e", 0, 2)]),
            ("&order=views&limit=2", [("b", 5, 1), ("a", 3, 0)]),
            ("&order=downloads", [("c", 1, 4), ("d/e", 0, 2), ("b", 5, 1), ("a", 3, 0)]),
            ("&order=downloads&limit=1", [("c", 1, 4)]),
            ("&limit=0&bots=1", [("a", 12, 0), ("b", 5, 1), ("c", 1, 4), ("d/e", 0, 2)]),
            ("&tz=Pacific/Honolulu", []),
        ],
    )
    def test_items_used_most_come_first(
        self, server: Server, day: str, query: str, items: list[tuple[str, int, int]]
    ) -> None:
        expected = [{"id": one, "views": views, "downloads": downloads} for one, views, downloads in items]
        assert server.get(f"/items.json?{day}{query}") == {"items": expected}

    async def test_what_has_not_changed_is_not_sent_again(self, http: aiohttp.ClientSession, day: str) -> None:
        async with http.get(f"/items.json?{day}") as answer:
            tag = answer.headers["ETag"]
        async with http.get(f"/items.json?{day}", headers={"If-None-Match": tag}) as answer:
            assert answer.status == 304
