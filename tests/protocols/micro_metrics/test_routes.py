"""micro-metrics over HTTP: tracking and every report, on both stores and with two workers."""

import csv
import io
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import orjson
import pytest

from metronome.event import idempotent_event_ids
from metronome.scopes import Scope
from metronome.web.gif import TRANSPARENT_GIF
from tests.installations import create_key, create_salts, read_stored_documents
from tests.servers import REQUEST_TIMEOUT_SECONDS, Server, delete_indices, refresh_indices, running_server, unique_name

# The embedded store is tested with two workers only.
pytestmark = pytest.mark.crew

EVENTS: Final[list[dict[str, Any]]] = [
    {
        "type": "sale",
        "tags": {"currency": "CHF", "size": "small"},
        "value": 4.5,
        "userID": "rosa",
        "createdOn": "2017-04-26T12:17:25.458Z",
    },
    {
        "type": "sale",
        "tags": "currency:EUR",
        "fields": "wing:east,n:5",
        "value": 1200,
        "createdOn": "Wed, 26 Apr 2017 15:17:25 GMT",
    },
    {"type": "visit", "tags": {"n": 7, "guide": False}, "value": "red", "sessionId": "s1", "createdOn": "Apr 27, 2017"},
    {
        "type": "visit",
        "value": {"rooms": [1, None]},
        "data": {"ip": "203.0.113.77", "cart": {"total": 3}},
        "createdOn": "2017-04-27T01:00:30Z",
    },
    {"type": "sale", "tags": {"currency": "CHF"}, "value": 0.25, "createdOn": 1493381845458},
]
"""The events of the reports; the last one is of 2017-04-28T12:17:25.458Z."""
DOCUMENTS: Final[list[dict[str, Any]]] = [
    {
        "type": "sale",
        "tags": {"currency": "CHF", "size": "small"},
        "fields": {},
        "data": {},
        "value": 4.5,
        "userId": "rosa",
        "createdOn": "2017-04-26T12:17:25.458Z",
        "tagKeys": ["currency", "size"],
    },
    {
        "type": "sale",
        "tags": {"currency": "EUR"},
        "fields": {"wing": "east", "n": "5"},
        "data": {},
        "value": 1200,
        "createdOn": "2017-04-26T15:17:25.000Z",
        "tagKeys": ["currency"],
    },
    {
        "type": "visit",
        "tags": {"n": 7, "guide": False},
        "fields": {},
        "data": {},
        "value": "red",
        "sessionId": "s1",
        "createdOn": "2017-04-27T00:00:00.000Z",
        "tagKeys": ["n", "guide"],
    },
    {
        "type": "visit",
        "tags": {},
        "fields": {},
        "data": {"cart": {"total": 3}, "ip": "203.0.113.0"},
        "value": {"rooms": [1, None]},
        "createdOn": "2017-04-27T01:00:30.000Z",
        "tagKeys": [],
    },
    {
        "type": "sale",
        "tags": {"currency": "CHF"},
        "fields": {},
        "data": {},
        "value": 0.25,
        "createdOn": "2017-04-28T12:17:25.458Z",
        "tagKeys": ["currency"],
    },
]
IDEMPOTENCY_KEY: Final = "golden"
_BODY: Final = orjson.dumps({"events": EVENTS})
for _document, _event_id in zip(
    DOCUMENTS, idempotent_event_ids(IDEMPOTENCY_KEY, "/api/track/batch", _BODY), strict=False
):
    _document["_id"] = _event_id
DAYS: Final = "startDate=2017-04-26&endDate=2017-04-29"


@dataclass(frozen=True, slots=True)
class Response:
    """A response of the server."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass(frozen=True, slots=True)
class Client:
    """A client of a server."""

    server: Server
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Response:
        data = None if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        header_fields = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.server.url + path, data, {**self.headers, **header_fields}, method=method)  # noqa: S310  # our own server
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS) as response:  # noqa: S310  # our own server
                return Response(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Response(error.code, error.headers, error.read())


def fill(ask: Client) -> None:
    for _ in range(2):
        response = ask("/api/track/batch", {"events": EVENTS}, Idempotency_Key=IDEMPOTENCY_KEY)
        assert response.status == 200
    ask.server.post_events(b'{"event":"sale","value":99,"ts":"2017-04-26T12:00:00Z","currency":"CHF"}')
    ask.server.wait_until_shipped()


@pytest.fixture(
    scope="module", params=["crew", pytest.param("elasticsearch", marks=[pytest.mark.elasticsearch, pytest.mark.slow])]
)
def ask(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Return a client of a server with two workers and the embedded store, and of one on Elasticsearch."""
    data = tmp_path_factory.mktemp("micrometrics") / "data"
    if request.param == "crew":
        with running_server(data, workers=2) as running:
            client = Client(running)
            fill(client)
            yield client
        return
    node, prefix = request.getfixturevalue("elasticsearch_url"), unique_name("micrometrics")
    try:
        create_salts(node, prefix)
        with running_server(data, store=node, index_prefix=prefix) as running:
            client = Client(running)
            fill(client)
            refresh_indices(node, prefix)
            yield client
    finally:
        delete_indices(node, prefix)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with running_server(tmp_path_factory.mktemp("micrometrics") / "single", event_max_bytes=20_000) as running:
        yield Client(running)


@pytest.mark.parametrize(
    ("query", "indices"),
    [
        ("last=0", [0, 1, 2, 3, 4]),
        ("", []),
        ("last=2d3h25m", []),
        ("last=0&type=sale", [0, 1, 4]),
        ("last=0&type=other", []),
        ("last=0&tags=currency", [0, 1, 4]),
        ("last=0&tags=currency=CHF", [0, 4]),
        ("last=0&tags=currency:CHF,size", [0]),
        ("last=0&tags=n%3D7", [2]),
        ("last=0&tags=guide=false", [2]),
        ("last=0&tags=unknown", []),
        ("last=0&fields=wing=east", [1]),
        ("last=0&value=0.25", [4]),
        ("last=0&value=1200.0", [1]),
        ("last=0&value=red", [2]),
        ("last=0&value=5", []),
        ("startDate=2017-04-27", [2, 3, 4]),
        ("endDate=2017-04-27", [0, 1, 2]),
        ("endDate=2017-04-26T23:59:59.999Z", [0, 1]),
        ("startDate=Apr%2026,%202017%2013:00&endDate=Thu,%2027%20Apr%202017%2001:00:30%20GMT", [1, 2, 3]),
        ("startDate=1493381845458", [4]),
        ("startDate=1493381845459", []),
        ("startDate=2017-04-28T14:17:25.458%2B02:00&type=sale&tags=currency&value=0.25", [4]),
        ("period=h&last=0&type=visit", [2, 3]),
    ],
)
def test_filters_documents(ask: Client, query: str, indices: list[int]) -> None:
    documents = [DOCUMENTS[index] for index in indices]
    assert ask(f"/api/report?{query}").json() == {"count": len(documents), "results": documents}
    assert ask(f"/api/report/count?{query}").json() == {"count": len(documents)}


def zero_row(day: int, hour: int = 0) -> dict[str, Any]:
    return {"dateString": f"2017-04-{day}T{hour:02}:00:00.000Z", "sum": 0, "avg": 0, "max": 0, "min": 0}


def row(day: int, hour: int, *measures: float, minute: int = 0) -> dict[str, Any]:
    numbers = dict(zip(("sum", "avg", "max", "min"), measures, strict=True))
    return {"dateString": f"2017-04-{day}T{hour:02}:{minute:02}:00.000Z", **numbers}


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        (
            f"{DAYS}",
            [row(26, 0, 1204.5, 602.25, 1200, 4.5), zero_row(27), row(28, 0, 0.25, 0.25, 0.25, 0.25)],
        ),
        (
            "period=d&startDate=2017-04-25T22:00:00Z&endDate=2017-04-27&tags=currency=CHF",
            [zero_row(25), row(26, 0, 4.5, 4.5, 4.5, 4.5)],
        ),
        (
            "period=h&startDate=2017-04-26T12:30:00Z&endDate=2017-04-26T15:30:00Z",
            [zero_row(26, 12), zero_row(26, 13), zero_row(26, 14), row(26, 15, 1200, 1200, 1200, 1200)],
        ),
        (
            "period=m&startDate=2017-04-28T12:17:00Z&endDate=2017-04-28T12:18:30Z",
            [
                row(28, 12, 0.25, 0.25, 0.25, 0.25, minute=17),
                {**zero_row(28), "dateString": "2017-04-28T12:18:00.000Z"},
            ],
        ),
        (f"{DAYS}&type=visit", [zero_row(26), zero_row(27), zero_row(28)]),
        # Without a start, the first period is that of the first document.
        ("period=h&endDate=2017-04-26T14:00:00Z", [row(26, 12, 4.5, 4.5, 4.5, 4.5), zero_row(26, 13)]),
        ("endDate=2017-04-20", []),
        ("last=0&type=other", []),
    ],
)
def test_an_aggregate_has_every_period_of_the_range(ask: Client, query: str, rows: list[dict[str, Any]]) -> None:
    aggregate = ask(f"/api/report/aggregate?{query}").json()
    assert [list(row) for row in aggregate] == [["dateString", "date", "sum", "avg", "max", "min"]] * len(rows)
    dates = [int(row.pop("date")) for row in aggregate]
    assert aggregate == rows
    assert [second - first for first, second in pairwise(dates)] == [
        {"d": 86_400_000, "h": 3_600_000, "m": 60_000}[
            "h" if "period=h" in query else "m" if "period=m" in query else "d"
        ]
    ] * max(len(dates) - 1, 0)


def test_an_aggregate_of_all_time_ends_today(ask: Client) -> None:
    rows = ask("/api/report/aggregate?last=0").json()
    assert rows[0] == {**row(26, 0, 1204.5, 602.25, 1200, 4.5), "date": "1493164800000"}
    assert len(rows) > 3000
    assert {row["sum"] for row in rows[3:]} == {0}


def test_an_aggregate_covers_30_days_by_default(ask: Client) -> None:
    assert len(ask("/api/report/aggregate").json()) == 31
    assert len(ask("/api/report/aggregate?period=m&last=2h").json()) in {121, 122}


@pytest.mark.parametrize("path", ["aggregate", "aggregate.csv"])
def test_rejects_an_aggregate_with_too_many_rows(ask: Client, path: str) -> None:
    response = ask(f"/api/report/{path}?period=m&startDate=2017-04-26")
    assert response.status == 400
    assert "over 50000 rows for period=m: ask for a shorter time" in response.json()["message"]


@pytest.mark.parametrize(
    ("query", "groups"),
    [
        (
            f"groupby=currency&{DAYS}",
            {
                "CHF": [
                    {"_id": {"day": 26, "month": 4, "year": 2017}, "sum": 4.5, "avg": 4.5, "max": 4.5, "min": 4.5},
                    {"_id": {"day": 28, "month": 4, "year": 2017}, "sum": 0.25, "avg": 0.25, "max": 0.25, "min": 0.25},
                ],
                "EUR": [
                    {"_id": {"day": 26, "month": 4, "year": 2017}, "sum": 1200, "avg": 1200, "max": 1200, "min": 1200}
                ],
            },
        ),
        (
            "groupby=size&period=m&last=0",
            {
                "small": [
                    {
                        "_id": {"day": 26, "month": 4, "year": 2017, "hour": 12, "minute": 17},
                        "sum": 4.5,
                        "avg": 4.5,
                        "max": 4.5,
                        "min": 4.5,
                    }
                ]
            },
        ),
        (
            "groupby=n&period=h&last=0",
            {"7": [{"_id": {"day": 27, "month": 4, "year": 2017, "hour": 0}, "sum": 0, "avg": 0, "max": 0, "min": 0}]},
        ),
        ("groupby=currency", {}),
        ("groupby=unknown&last=0", {}),
        ("groupby=currency&last=0&type=visit", {}),
    ],
)
def test_groups_by_the_value_of_a_tag(ask: Client, query: str, groups: dict[str, Any]) -> None:
    assert ask(f"/api/report/groupby?{query}").json() == groups


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        (
            "unique=tags.currency&last=0",
            [
                {
                    "_id": "CHF",
                    "types": ["sale"],
                    "tags": [{"currency": "CHF", "size": "small"}, {"currency": "CHF"}],
                    "values": [4.5, 0.25],
                    "data": [{}],
                    "count": 2,
                },
                {
                    "_id": "EUR",
                    "types": ["sale"],
                    "tags": [{"currency": "EUR"}],
                    "values": [1200],
                    "data": [{}],
                    "count": 1,
                },
            ],
        ),
        (
            "unique=data.cart.total&last=0",
            [
                {
                    "_id": 3,
                    "types": ["visit"],
                    "tags": [{}],
                    "values": [{"rooms": [1, None]}],
                    "count": 1,
                    "data": [{"cart": {"total": 3}, "ip": "203.0.113.0"}],
                }
            ],
        ),
        (
            "unique=sessionId&last=0",
            [
                {
                    "_id": "s1",
                    "types": ["visit"],
                    "tags": [{"n": 7, "guide": False}],
                    "values": ["red"],
                    "data": [{}],
                    "count": 1,
                }
            ],
        ),
        ("unique=tags.currency", []),
        ("unique=tags.currency&last=0&type=visit", []),
        ("unique=nowhere.at.all&last=0", []),
    ],
)
def test_unique_values_have_the_values_of_their_documents(ask: Client, query: str, rows: list[dict[str, Any]]) -> None:
    assert ask(f"/api/report/unique?{query}").json() == {"count": len(rows), "results": rows}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (
            "",
            {"currency": ["CHF", "EUR"], "guide": ["false"], "n": ["7"], "size": ["small"]},
        ),
        ("type=visit", {"guide": ["false"], "n": ["7"]}),
        ("tags=size", {"currency": ["CHF"], "size": ["small"]}),
        ("value=1200", {"currency": ["EUR"]}),
        ("startDate=2017-04-28", {"currency": ["CHF"]}),
        ("last=30d", {}),
    ],
)
def test_lists_tags_with_their_values(ask: Client, query: str, expected: dict[str, list[str]]) -> None:
    assert ask(f"/api/tags?{query}").json() == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("tag=currency", ["CHF", "EUR"]),
        ("tag=currency&type=sale&endDate=2017-04-26T13:00:00Z", ["CHF"]),
        ("tag=n", ["7"]),
        ("tag=unknown", []),
        ("tag=currency&last=1d", []),
    ],
)
def test_lists_the_values_of_a_tag(ask: Client, query: str, expected: list[str]) -> None:
    assert ask(f"/api/tag-values?{query}").json() == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [("", ["sale", "visit"]), ("tags=currency", ["sale"]), ("last=3h", []), ("type=visit", ["visit"])],
)
def test_lists_types(ask: Client, query: str, expected: list[str]) -> None:
    assert ask(f"/api/types?{query}").json() == {"count": len(expected), "results": expected}


@pytest.mark.parametrize(
    ("path", "lines"),
    [
        (
            ".csv?last=0&type=sale",
            [
                "type,tags.currency,tags.size,fields.n,fields.wing,value,userId,sessionId,createdOn,tagKeys",
                'sale,CHF,small,,,4.5,rosa,,2017-04-26T12:17:25.458Z,"currency,size"',
                "sale,EUR,,5,east,1200,,,2017-04-26T15:17:25.000Z,currency",
                "sale,CHF,,,,0.25,,,2017-04-28T12:17:25.458Z,currency",
            ],
        ),
        ("/count.csv?last=0", ["count", "5"]),
        (
            f"/aggregate.csv?{DAYS}",
            [
                "Date,Sum,Avg,Max,Min",
                "2017-04-26T00:00:00.000Z,1204.5,602.25,1200,4.5",
                "2017-04-27T00:00:00.000Z,0,0,0,0",
                "2017-04-28T00:00:00.000Z,0.25,0.25,0.25,0.25",
            ],
        ),
        (f"/groupby.csv?groupby=currency&{DAYS}", ["Date,CHF,EUR", "26/4/2017,4.5,1200", "28/4/2017,0.25,0"]),
        (
            "/unique.csv?unique=tags.size&last=0",
            [
                "_id,types,tags,values,data,count",
                'small,"[""sale""]","[{""currency"":""CHF"",""size"":""small""}]",[4.5],[{}],1',
            ],
        ),
    ],
)
def test_returns_reports_as_csv(ask: Client, path: str, lines: list[str]) -> None:
    response = ask(f"/api/report{path}")
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.body.decode() == "".join(f"{line}\r\n" for line in lines)


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("report?typ=sale", '"typ" is not allowed'),
        ("report.csv?last=soon", '"last"'),
        ("report/count?startDate=soon", '"startDate"'),
        ("report/aggregate?period=w", '"period"'),
        ("report/groupby", '"groupby" is required'),
        ("report/groupby.csv?groupby=", '"groupby" is required'),
        ("report/unique", '"unique" is required'),
        ("tag-values", '"tag" is required'),
        ("tags?tag=x", '"tag" is not allowed'),
        ("types?tag=x", '"tag" is not allowed'),
    ],
)
def test_rejects_invalid_queries_in_the_protocol_s_shape(ask: Client, path: str, word: str) -> None:
    response = ask(f"/api/{path}")
    assert (response.status, response.headers["Content-Type"]) == (400, "application/json")
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    body = response.json()
    assert (body["statusCode"], body["error"]) == (400, "Bad Request")
    assert word in body["message"]


def test_returns_304_for_an_unchanged_report(ask: Client) -> None:
    first = ask("/api/report?last=0")
    assert first.headers["Access-Control-Allow-Origin"] == "*"
    assert ask("/api/report?last=0", If_None_Match=first.headers["ETag"]).status == 304


def test_a_resent_batch_returns_the_same_documents(ask: Client) -> None:
    documents = ask("/api/track/batch", {"events": EVENTS}, Idempotency_Key=IDEMPOTENCY_KEY).json()
    # The reply has the IP address as it was sent.
    with_ip_address = {**DOCUMENTS[3], "data": EVENTS[3]["data"]}
    assert documents == [*DOCUMENTS[:3], with_ip_address, DOCUMENTS[4]]


@pytest.mark.clock
def test_reports_an_event_and_a_pixel(single: Client) -> None:
    kind = unique_name("kind")
    tracked = single("/api/track", {"type": kind, "tags": {"a": [1, {"b": None}]}, "value": 2.0})
    assert (tracked.status, tracked.headers["Content-Type"]) == (200, "application/json")
    pixel = single(f"/t.gif?type={kind}&tags=tag1,tag2&userId=99", User_agent="Firefox", Referer="https://a.example/b")
    assert (pixel.status, pixel.headers["Content-Type"], pixel.body) == (200, "image/gif", TRANSPARENT_GIF)
    assert "no-store" in pixel.headers["Cache-Control"]
    single.server.wait_until_shipped()
    first, second = single(f"/api/report?type={kind}").json()["results"]
    assert first == tracked.json()
    assert second["tags"] == {"tag1": True, "tag2": True}
    assert second["data"] == {"userAgent": "Firefox", "referrer": "https://a.example/b", "ip": "127.0.0.0"}
    assert (second["userId"], second["value"], second["tagKeys"]) == ("99", 1, ["tag1", "tag2"])


def test_tracked_views_and_downloads_are_in_the_tock(single: Client) -> None:
    item = unique_name("item")
    single("/api/track", {"type": "view", "tags": {"id": item}, "data": {"referrer": "https://b.example/c?d"}})
    single(f"/t.gif?type=download&tags=id:{item},format:KML")
    single.server.wait_until_shipped()
    tock = single.server.get(f"/tock/{item}.json")
    assert list(tock["views"].values()) == [1]
    assert tock["downloads"] == {"kml": 1}
    assert tock["referers"] == {"b.example/c": 1}


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"{", 400, "invalid JSON"),
        ({"tags": "a"}, 400, '"type" is required'),
        ({"type": "a", "colour": 1}, 400, '"colour" is not allowed'),
        ({"type": "x" * 2000}, 400, "event is over 1024 bytes"),
        ({"type": "a", "createdOn": "2500-01-01"}, 400, "more than a day ahead"),
        ({"type": "a", "createdOn": "1960-01-01"}, 400, "1960-01-01"),
        ({"type": "a", "data": {"x": "x" * 30_000}}, 413, "over event_max_bytes"),
    ],
)
def test_rejects_an_invalid_event(single: Client, body: Any, status: int, word: str) -> None:
    response = single("/api/track", body)
    assert response.status == response.json()["statusCode"] == status
    assert word in response.json()["message"]
    assert response.headers["Access-Control-Allow-Origin"] == "*"


def test_an_invalid_event_of_a_batch_does_not_affect_the_others(single: Client) -> None:
    kind = unique_name("kind")
    events = [{"type": kind, "value": 1}, {"type": kind, "data": {"x": "x" * 30_000}}, {"kind": kind}, {"type": kind}]
    response = single("/api/track/batch", {"events": events})
    replies = response.json()
    assert response.status == 200
    assert [reply.get("statusCode") for reply in replies] == [None, 413, 400, None]
    assert [bool(reply.get("error")) for reply in replies] == [False, True, True, False]
    single.server.wait_until_shipped()
    assert single(f"/api/report?type={kind}").json()["results"] == [replies[0], replies[3]]


@pytest.mark.parametrize(
    "query", ["", "?tags=a", "?type=a&colour=1", f"?type={'x' * 2000}", "?type=a&createdOn=soon", "?type=%ff&x"]
)
def test_an_invalid_pixel_returns_the_image(single: Client, query: str) -> None:
    response = single(f"/t.gif{query}")
    assert (response.status, response.headers["Content-Type"], response.body) == (200, "image/gif", TRANSPARENT_GIF)
    assert response.headers["X-Metronome-Error"]


def test_stores_a_resent_event_once(single: Client) -> None:
    kind, key = unique_name("kind"), unique_name("key")
    ids = [single("/api/track", {"type": kind}, Idempotency_Key=key).json()["_id"] for _ in range(2)]
    assert ids[0] == ids[1]
    single.server.wait_until_shipped()
    assert single(f"/api/report/count?type={kind}").json() == {"count": 1}


@pytest.mark.parametrize("name", ["a b", 'quote"d', "dött.ed", "star*", "%", "=1+1", "x" * 200])
def test_accepts_any_tag_name(single: Client, name: str) -> None:
    kind = unique_name("kind")
    single("/api/track", {"type": kind, "tags": {name: "=cmd"}})
    single.server.wait_until_shipped()
    assert single(f"/api/tags?type={kind}").json() == {name: ["=cmd"]}
    assert list(single(f"/api/report/groupby?type={kind}&groupby={quote(name)}").json()) == ["=cmd"]
    assert single(f"/api/report/unique?type={kind}&unique=tags.{quote(name)}").json()["count"] == 1
    names, row = csv.reader(io.StringIO(single(f"/api/report.csv?type={kind}").body.decode(), newline=""))
    assert (names[1], row[1]) == (f"tags.{name}", "'=cmd")


@pytest.mark.parametrize("path", ["/api/track", "/api/track/batch"])
def test_rejects_other_methods(single: Client, path: str) -> None:
    assert single(path).status == 405
    assert single("/t.gif", b"", "POST").status == 405


def test_requires_keys_with_the_right_scope(tmp_path: Path) -> None:
    data = tmp_path / "data"
    sender, reader = create_key(data, "shop", Scope.TICK), create_key(data, "board", Scope.QUERY)
    with running_server(data, public="none") as running:
        ask = Client(running)
        sent = {"type": "sale"}
        assert ask("/api/track", sent).status == 401
        assert ask("/api/track", sent).json()["error"] == "Unauthorized"
        assert "WWW-Authenticate" in ask("/api/track", sent).headers
        assert ask("/api/track", sent, Authorization=f"Bearer {reader}").status == 403
        assert ask("/api/track", sent, Authorization=f"Bearer {sender}").status == 200
        assert ask(f"/api/track/batch?key={sender}", {"events": [sent]}).status == 200
        rejected = ask("/t.gif?type=sale")
        assert (rejected.status, rejected.body) == (200, TRANSPARENT_GIF)
        assert "is needed" in rejected.headers["X-Metronome-Error"]
        assert "X-Metronome-Error" not in ask(f"/t.gif?type=sale&key={sender}").headers
        running.wait_until_shipped()
        assert ask("/api/types").status == ask("/api/report.csv").status == 401
        assert ask(f"/api/report?key={sender}").status == 403
        assert ask(f"/api/report/count?key={reader}").json() == {"count": 3}
        assert ask("/api/report/count", Authorization=f"Bearer {reader}").json() == {"count": 3}
    assert all(sender not in str(document) for document in read_stored_documents(data))


def test_stores_no_full_ip_address(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_server(data) as running:
        ask = Client(running)
        ask("/api/track", {"type": "a", "data": {"ip": "198.51.100.77"}})
        ask("/api/track", {"type": "a", "tags": "b", "data": "ip:198.51.100.77"})
        ask.server.wait_until_shipped()
        documents = ask("/api/report").json()["results"]
        assert [document["data"] for document in documents] == [{"ip": "198.51.100.0"}] * 2
    assert [b"198.51.100.77" in orjson.dumps(document) for document in read_stored_documents(data)] == [False] * 2
