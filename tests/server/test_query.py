"""Questions of one's own, asked of real servers: by GET and POST, in each form, and what is said to nonsense."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import orjson
import pytest
from yarl import URL

from tests.attacks import JSON_HEADERS, RawRequest, check_responses, send_requests, still_counting
from tests.servers import Server, running_server, unique_name

SECONDS: Final = aiohttp.ClientTimeout(total=60)
DAY: Final = "2015-01-22"
EVENTS: Final[list[dict[str, Any]]] = [
    {"id": "a", "ts": DAY, "LCP": 100, "tags.color": "red"},
    {"id": "a", "ts": DAY, "LCP": 200, "title": "=1+1"},
    {"id": "b/c d", "ts": DAY, "format": "csv", "referer": "arcgis.com"},
    {"id": "bot's", "ts": DAY, "bot": "Googlebot"},
]
BY_ID: Final = b'{"columns":["id","count"],"rows":[["a",2],["b/c d",1]],"total":2,"exact":true}'


def fill(server: Server) -> None:
    server.post_events(orjson.dumps(EVENTS))
    server.wait_until_shipped()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("queries") / "data") as running:
        fill(running)
        yield running


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("queries") / "crew", workers=2) as running:
        fill(running)
        yield running


@pytest.fixture
async def http(either: Server) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(either.url, timeout=SECONDS) as session:
        yield session


async def test_the_same_question_by_get_and_by_post_has_the_same_answer(http: aiohttp.ClientSession) -> None:
    async with http.get("/query?by=id&order=-count") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert await answer.read() == BY_ID
    async with http.post("/query", json={"by": ["id"], "order": ["-count"]}) as answer:
        assert (answer.status, await answer.read()) == (200, BY_ID)


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("metrics=count,avg:LCP&by=id&order=-count&limit=1", [["a", 2, 150.0]]),
        ("metrics=avg:LCP&LCP>=100&LCP<200", [[100.0]]),
        ("metrics=avg:LCP&LCP%3E=100&LCP%3C200", [[100.0]]),
        ("id=b/c+d", [[1]]),
        ("id=b%2Fc%20d", [[1]]),
        ("id^=b/", [[1]]),
        ("id=bot's&bots=1", [[1]]),
        ("tags.color=red", [[1]]),
        ("by=day&fill=1&from=2015-01-21&to=2015-01-22", [["2015-01-21", 0], [DAY, 3]]),
        ("by=day&from=2015-01-22&to=2015-01-22&compare=previous", [[DAY, 3, 0, None]]),
    ],
)
async def test_addresses_are_read_as_they_were_sent(http: aiohttp.ClientSession, query: str, rows: list[Any]) -> None:
    async with http.get(URL(f"/query?{query}", encoded=True)) as answer:
        assert (answer.status, (await answer.json(content_type=None)).get("rows")) == (200, rows)


async def test_a_body_may_be_compressed(http: aiohttp.ClientSession) -> None:
    async with http.post("/query", data=b'{"by":"id","order":"-count"}', compress="gzip") as answer:
        assert await answer.read() == BY_ID


@pytest.mark.parametrize(
    ("accept", "kind", "body"),
    [
        ("*/*", "application/json", BY_ID),
        ("text/html", "application/json", BY_ID),
        ("text/csv", "text/csv; charset=utf-8", b"id,count\r\na,2\r\nb/c d,1\r\n"),
        ("image/png, text/csv, application/json", "text/csv; charset=utf-8", b"id,count\r\na,2\r\nb/c d,1\r\n"),
        ("application/x-ndjson", "application/x-ndjson", b'{"id":"a","count":2}\n{"id":"b/c d","count":1}\n'),
    ],
)
async def test_accept_selects_the_format(http: aiohttp.ClientSession, accept: str, kind: str, body: bytes) -> None:
    async with http.get("/query?by=id", headers={"Accept": accept}) as answer:
        assert (answer.status, answer.headers["Content-Type"], await answer.read()) == (200, kind, body)
        assert answer.headers["Vary"] == "Accept"
        assert (answer.headers["Metronome-Total"], answer.headers["Metronome-Exact"]) == ("2", "true")
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Metronome-Total" in answer.headers["Access-Control-Expose-Headers"]
        tag = answer.headers["ETag"]
    async with http.get("/query?by=id", headers={"Accept": accept, "If-None-Match": tag}) as answer:
        assert (answer.status, await answer.read(), answer.headers["Vary"]) == (304, b"", "Accept")


async def test_each_form_has_a_tag_of_its_own(http: aiohttp.ClientSession) -> None:
    tags = set()
    for accept in ("application/json", "text/csv", "application/x-ndjson"):
        async with http.get("/query?by=id", headers={"Accept": accept}) as answer:
            tags.add(answer.headers["ETag"])
    assert len(tags) == 3


async def test_texts_from_strangers_are_no_formulas_in_csv(http: aiohttp.ClientSession) -> None:
    async with http.get("/query?by=title", headers={"Accept": "text/csv"}) as answer:
        assert await answer.text() == "title,count\r\n'=1+1,1\r\n"


async def test_pages_elsewhere_may_ask_before_they_ask(http: aiohttp.ClientSession) -> None:
    async with http.options("/query", headers={"Origin": "https://example.org"}) as answer:
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS, POST"
    async with http.put("/query") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS, POST")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("by=idd", "no event has the field 'idd' (did you mean id"),
        ("metrics=avg:country", "the field 'country' is a text"),
        ("metrics=nothing", "invalid metric 'nothing'"),
        ("limit=100001", "is over the maximum of 100,000 rows"),
        ("by=minute&fill=1&from=1970-01-01", "the range has over 100,000 minutes; query a shorter range"),
    ],
)
async def test_rejects_invalid_queries_and_says_what_is_expected(
    http: aiohttp.ClientSession, query: str, said: str
) -> None:
    async with http.get(URL(f"/query?{query}", encoded=True)) as answer:
        problem = await answer.json(content_type="application/problem+json")
        assert (answer.status, problem["status"]) == (400, 400)
    assert said in problem["detail"]


def test_only_keys_of_the_scope_may_ask(tmp_path: Any) -> None:
    with running_server(tmp_path / "data", public="tick,tock", trusted_proxies="127.0.0.1") as running:
        elsewhere = (("X-Forwarded-For", "203.0.113.7"),)
        asked = [
            RawRequest("GET", "/query", headers=elsewhere),
            RawRequest("POST", "/query", b"{}", (*JSON_HEADERS, *elsewhere)),
        ]
        answers = send_requests(running, asked)
        assert [answer.status for answer in answers] == [401, 401]
        assert b"a key with the scope query is needed" in answers[0].body
        (here,) = send_requests(running, [RawRequest("GET", "/query")])
        assert here.status == 200


PARAMETERS: Final = (
    "metrics",
    "by",
    "from",
    "to",
    "tz",
    "order",
    "limit",
    "offset",
    "compare",
    "fill",
    "bots",
    "where",
)
SIGNS: Final = ("=", "!=", "%5E=", "%3E", "%3E=", "<", "^=")
NAMES: Final = (
    *(
        "'",
        '"',
        "a'--",
        "$",
        "*",
        "..",
        "x.y",
        "\0",
        "a\0b",
        "%",
        "~",
        "/",
        "a/b~c",
        "[0]",
        "x" * 256,
        "x" * 300,
        "é",
        "😀",
    ),
    *(
        "@timestamp",
        "@version",
        "event.original",
        "params",
        "_id",
        "_source",
        "tags.color",
        "key",
        "doc",
        "ts",
        "rowid",
    ),
    *(
        "'); DROP TABLE events;--",
        "\n",
        "%s",
        "{}",
        "count",
        "day",
        "null",
        "-1",
        "\ud83d",
        "a b",
        "=",
        "!",
        "^",
        ">",
        ",",
    ),
)
ODD: Final[tuple[Any, ...]] = (None, [], {}, [[]], "", True, -1, 1, 1e300, "x" * 9999)
VALUES: Final = (*NAMES, "", "NaN", "1e400", "-0", "9" * 400, "x" * 3000)


def spelt(text: str) -> str:
    return quote(text.encode(errors="surrogatepass"), safe="")


def hostile_addresses() -> list[RawRequest]:
    parts = [f"{name}={spelt(value)}" for name in PARAMETERS for value in VALUES]
    parts += [f"{spelt(name)}{sign}{spelt(value)}" for name in NAMES for sign in SIGNS for value in VALUES[:4]]
    parts += [f"id{sign}{spelt(value)}" for sign in SIGNS for value in VALUES]
    parts += [f"metrics={kind}:{spelt(name)}&by={spelt(name)}" for kind in ("avg", "unique") for name in NAMES]
    parts += ["&".join(["a=b"] * 2000), "&" * 7000, "=" * 7000, "by=" + ",".join("abcdefgh"), "%" * 5000, "+" * 5000]
    return [RawRequest("GET", f"/query?{part}") for part in parts]


def hostile_bodies() -> list[RawRequest]:
    wheres: list[Any] = [{name: value} for name in ("id", "x.y", "not", "and", "=") for value in (*VALUES[:-1], *ODD)]
    wheres += [{"id": {sign: value}} for sign in (">", ">=", "prefix", "exists", "not") for value in ODD]
    wheres += [{"or": [{"id": str(at)} for at in range(50_000)]}, {"id": [str(at) for at in range(100_000)]}]
    wheres += [{"and": [{}] * 50_000}, {"id": "x" * 900_000}, {f"f{at}": 1 for at in range(50_000)}]
    questions = [{"where": where} for where in wheres]
    questions += [{name: value} for name in PARAMETERS for value in ODD]
    bodies = [json.dumps(question).encode() for question in questions]
    bodies += [b'{"where":' + b'{"not":' * levels + b"{}" + b"}" * levels + b"}" for levels in (10, 500, 50_000)]
    bodies += [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"by=id",
        b'{"by":' + b"[" * 100_000,
        b'{"limit":1e999}',
        b"0" * 9999,
    ]
    return [RawRequest("POST", "/query", body, JSON_HEADERS) for body in bodies]


@pytest.mark.slow
def test_hostile_questions_are_answered_or_refused_with_400(server: Server) -> None:
    asked = [*hostile_addresses(), *hostile_bodies()]
    with still_counting(server):
        answers = send_requests(server, asked)
        check_responses(asked, answers)
    assert {answer.status for answer in answers} == {200, 400}


def test_what_is_far_too_large_is_refused(server: Server) -> None:
    asked = [RawRequest("POST", "/query", b'{"by":"' + b"x" * 2**20 + b'"}', JSON_HEADERS)]
    assert [answer.status for answer in send_requests(server, asked)] == [413]


def test_refusals_and_answers_are_counted(server: Server) -> None:
    send_requests(server, [RawRequest("GET", f"/query?by={unique_name()}"), RawRequest("GET", "/query")])
    (metrics,) = send_requests(server, [RawRequest("GET", "/metrics")])
    assert b'metronome_answer_seconds_count{report="query"}' in metrics.body
    assert b'metronome_refused_total{reason="InvalidQuery"}' in metrics.body
