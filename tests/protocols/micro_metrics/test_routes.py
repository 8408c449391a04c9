"""micro-metrics over HTTP: what is tracked, and every report about it, on both stores and beside workers."""

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
from tests.installations import create_key, make_salts, read_stored_documents
from tests.servers import REQUEST_TIMEOUT_SECONDS, Server, delete_indices, refresh_indices, running_server, unique_name

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
"""What the reports are about; the last one is of 2017-04-28T12:17:25.458Z."""
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
for _document, _identity in zip(
    DOCUMENTS, idempotent_event_ids(IDEMPOTENCY_KEY, "/api/track/batch", _BODY), strict=False
):
    _document["_id"] = _identity
DAYS: Final = "startDate=2017-04-26&endDate=2017-04-29"


@dataclass(frozen=True, slots=True)
class Told:
    """What a server answered."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass(frozen=True, slots=True)
class Asking:
    """A server, and how to ask it."""

    server: Server
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Told:
        data = None if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.server.url + path, data, {**self.headers, **named}, method=method)  # noqa: S310  # our own server
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS) as answer:  # noqa: S310  # our own server
                return Told(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Told(error.code, error.headers, error.read())


def fill(ask: Asking) -> None:
    for _ in range(2):
        told = ask("/api/track/batch", {"events": EVENTS}, Idempotency_Key=IDEMPOTENCY_KEY)
        assert told.status == 200
    ask.server.post_events(b'{"event":"sale","value":99,"ts":"2017-04-26T12:00:00Z","currency":"CHF"}')
    ask.server.wait_until_shipped()


@pytest.fixture(scope="module", params=["crew", pytest.param("elasticsearch", marks=pytest.mark.elasticsearch)])
def ask(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    """Ask a server with two workers and the embedded store, and one on Elasticsearch."""
    data = tmp_path_factory.mktemp("micrometrics") / "data"
    if request.param == "crew":
        with running_server(data, workers=2) as running:
            asking = Asking(running)
            fill(asking)
            yield asking
        return
    node, prefix = request.getfixturevalue("elasticsearch_url"), unique_name("micrometrics")
    try:
        make_salts(node, prefix)
        with running_server(data, store=node, index_prefix=prefix) as running:
            asking = Asking(running)
            fill(asking)
            refresh_indices(node, prefix)
            yield asking
    finally:
        delete_indices(node, prefix)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with running_server(tmp_path_factory.mktemp("micrometrics") / "alone", event_max_bytes=20_000) as running:
        yield Asking(running)


@pytest.mark.parametrize(
    ("query", "which"),
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
        ("last=0&tags=unheard", []),
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
def test_a_report_has_the_documents_that_its_filters_let_through(ask: Asking, query: str, which: list[int]) -> None:
    found = [DOCUMENTS[at] for at in which]
    assert ask(f"/api/report?{query}").json() == {"count": len(found), "results": found}
    assert ask(f"/api/report/count?{query}").json() == {"count": len(found)}


def zero(day: int, hour: int = 0) -> dict[str, Any]:
    return {"dateString": f"2017-04-{day}T{hour:02}:00:00.000Z", "sum": 0, "avg": 0, "max": 0, "min": 0}


def one(day: int, hour: int, *measures: float, minute: int = 0) -> dict[str, Any]:
    numbers = dict(zip(("sum", "avg", "max", "min"), measures, strict=True))
    return {"dateString": f"2017-04-{day}T{hour:02}:{minute:02}:00.000Z", **numbers}


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        (
            f"{DAYS}",
            [one(26, 0, 1204.5, 602.25, 1200, 4.5), zero(27), one(28, 0, 0.25, 0.25, 0.25, 0.25)],
        ),
        (
            "period=d&startDate=2017-04-25T22:00:00Z&endDate=2017-04-27&tags=currency=CHF",
            [zero(25), one(26, 0, 4.5, 4.5, 4.5, 4.5)],
        ),
        (
            "period=h&startDate=2017-04-26T12:30:00Z&endDate=2017-04-26T15:30:00Z",
            [zero(26, 12), zero(26, 13), zero(26, 14), one(26, 15, 1200, 1200, 1200, 1200)],
        ),
        (
            "period=m&startDate=2017-04-28T12:17:00Z&endDate=2017-04-28T12:18:30Z",
            [one(28, 12, 0.25, 0.25, 0.25, 0.25, minute=17), {**zero(28), "dateString": "2017-04-28T12:18:00.000Z"}],
        ),
        (f"{DAYS}&type=visit", [zero(26), zero(27), zero(28)]),
        # Without a beginning, the first one is the first document's.
        ("period=h&endDate=2017-04-26T14:00:00Z", [one(26, 12, 4.5, 4.5, 4.5, 4.5), zero(26, 13)]),
        ("endDate=2017-04-20", []),
        ("last=0&type=other", []),
    ],
)
def test_an_aggregate_is_without_gaps(ask: Asking, query: str, rows: list[dict[str, Any]]) -> None:
    found = ask(f"/api/report/aggregate?{query}").json()
    assert [list(row) for row in found] == [["dateString", "date", "sum", "avg", "max", "min"]] * len(rows)
    dates = [int(row.pop("date")) for row in found]
    assert found == rows
    assert [later - before for before, later in pairwise(dates)] == [
        {"d": 86_400_000, "h": 3_600_000, "m": 60_000}[
            "h" if "period=h" in query else "m" if "period=m" in query else "d"
        ]
    ] * max(len(dates) - 1, 0)


def test_an_aggregate_of_everything_goes_on_until_today(ask: Asking) -> None:
    found = ask("/api/report/aggregate?last=0").json()
    assert found[0] == {**one(26, 0, 1204.5, 602.25, 1200, 4.5), "date": "1493164800000"}
    assert len(found) > 3000
    assert {row["sum"] for row in found[3:]} == {0}


def test_an_aggregate_covers_the_last_days_if_nothing_is_said(ask: Asking) -> None:
    assert len(ask("/api/report/aggregate").json()) == 31
    assert len(ask("/api/report/aggregate?period=m&last=2h").json()) in {121, 122}


@pytest.mark.parametrize("path", ["aggregate", "aggregate.csv"])
def test_an_aggregate_of_too_many_rows_is_refused(ask: Asking, path: str) -> None:
    told = ask(f"/api/report/{path}?period=m&startDate=2017-04-26")
    assert told.status == 400
    assert "over 50000 rows for period=m: ask for a shorter time" in told.json()["message"]


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
        ("groupby=unheard&last=0", {}),
        ("groupby=currency&last=0&type=visit", {}),
    ],
)
def test_groups_are_those_of_a_tags_values(ask: Asking, query: str, groups: dict[str, Any]) -> None:
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
def test_unique_values_come_with_what_their_documents_have(ask: Asking, query: str, rows: list[dict[str, Any]]) -> None:
    assert ask(f"/api/report/unique?{query}").json() == {"count": len(rows), "results": rows}


@pytest.mark.parametrize(
    ("query", "found"),
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
def test_tags_are_listed_with_their_values(ask: Asking, query: str, found: dict[str, list[str]]) -> None:
    assert ask(f"/api/tags?{query}").json() == found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("tag=currency", ["CHF", "EUR"]),
        ("tag=currency&type=sale&endDate=2017-04-26T13:00:00Z", ["CHF"]),
        ("tag=n", ["7"]),
        ("tag=unheard", []),
        ("tag=currency&last=1d", []),
    ],
)
def test_the_values_of_a_tag_are_listed(ask: Asking, query: str, found: list[str]) -> None:
    assert ask(f"/api/tag-values?{query}").json() == found


@pytest.mark.parametrize(
    ("query", "found"),
    [("", ["sale", "visit"]), ("tags=currency", ["sale"]), ("last=3h", []), ("type=visit", ["visit"])],
)
def test_types_are_listed(ask: Asking, query: str, found: list[str]) -> None:
    assert ask(f"/api/types?{query}").json() == {"count": len(found), "results": found}


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
def test_each_report_is_a_table_too(ask: Asking, path: str, lines: list[str]) -> None:
    told = ask(f"/api/report{path}")
    assert told.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert told.body.decode() == "".join(f"{line}\r\n" for line in lines)


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
def test_what_cannot_be_asked_is_refused_in_the_protocols_own_shape(ask: Asking, path: str, word: str) -> None:
    told = ask(f"/api/{path}")
    assert (told.status, told.headers["Content-Type"]) == (400, "application/json")
    assert told.headers["Access-Control-Allow-Origin"] == "*"
    found = told.json()
    assert (found["statusCode"], found["error"]) == (400, "Bad Request")
    assert word in found["message"]


def test_an_answer_that_has_not_changed_is_not_sent_again(ask: Asking) -> None:
    first = ask("/api/report?last=0")
    assert first.headers["Access-Control-Allow-Origin"] == "*"
    assert ask("/api/report?last=0", If_None_Match=first.headers["ETag"]).status == 304


def test_the_batch_was_answered_with_its_documents_and_the_resend_with_the_same(ask: Asking) -> None:
    found = ask("/api/track/batch", {"events": EVENTS}, Idempotency_Key=IDEMPOTENCY_KEY).json()
    sent_address = {**DOCUMENTS[3], "data": EVENTS[3]["data"]}
    assert found == [*DOCUMENTS[:3], sent_address, DOCUMENTS[4]]


@pytest.mark.clock
def test_what_is_tracked_singly_and_by_pixel_is_reported(alone: Asking) -> None:
    kind = unique_name("kind")
    tracked = alone("/api/track", {"type": kind, "tags": {"a": [1, {"b": None}]}, "value": 2.0})
    assert (tracked.status, tracked.headers["Content-Type"]) == (200, "application/json")
    pixel = alone(f"/t.gif?type={kind}&tags=tag1,tag2&userId=99", User_agent="Firefox", Referer="https://a.example/b")
    assert (pixel.status, pixel.headers["Content-Type"], pixel.body) == (200, "image/gif", TRANSPARENT_GIF)
    assert "no-store" in pixel.headers["Cache-Control"]
    alone.server.wait_until_shipped()
    first, second = alone(f"/api/report?type={kind}").json()["results"]
    assert first == tracked.json()
    assert second["tags"] == {"tag1": True, "tag2": True}
    assert second["data"] == {"userAgent": "Firefox", "referrer": "https://a.example/b", "ip": "127.0.0.0"}
    assert (second["userId"], second["value"], second["tagKeys"]) == ("99", 1, ["tag1", "tag2"])


def test_views_and_downloads_that_are_tracked_are_in_the_items_report(alone: Asking) -> None:
    item = unique_name("item")
    alone("/api/track", {"type": "view", "tags": {"id": item}, "data": {"referrer": "https://b.example/c?d"}})
    alone(f"/t.gif?type=download&tags=id:{item},format:KML")
    alone.server.wait_until_shipped()
    found = alone.server.get(f"/tock/{item}.json")
    assert list(found["views"].values()) == [1]
    assert found["downloads"] == {"kml": 1}
    assert found["referers"] == {"b.example/c": 1}


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"{", 400, "is no JSON"),
        ({"tags": "a"}, 400, '"type" is required'),
        ({"type": "a", "colour": 1}, 400, '"colour" is not allowed'),
        ({"type": "x" * 2000}, 400, "event is over 1024 bytes"),
        ({"type": "a", "createdOn": "2500-01-01"}, 400, "more than a day ahead"),
        ({"type": "a", "createdOn": "1960-01-01"}, 400, "is no time"),
        ({"type": "a", "data": {"x": "x" * 30_000}}, 413, "over event_max_bytes"),
    ],
)
def test_an_event_that_cannot_be_taken_is_refused(alone: Asking, body: Any, status: int, word: str) -> None:
    told = alone("/api/track", body)
    assert told.status == told.json()["statusCode"] == status
    assert word in told.json()["message"]
    assert told.headers["Access-Control-Allow-Origin"] == "*"


def test_one_bad_event_of_a_batch_fails_none_of_its_neighbours(alone: Asking) -> None:
    kind = unique_name("kind")
    events = [{"type": kind, "value": 1}, {"type": kind, "data": {"x": "x" * 30_000}}, {"kind": kind}, {"type": kind}]
    told = alone("/api/track/batch", {"events": events})
    found = told.json()
    assert told.status == 200
    assert [each.get("statusCode") for each in found] == [None, 413, 400, None]
    assert [bool(each.get("error")) for each in found] == [False, True, True, False]
    alone.server.wait_until_shipped()
    assert alone(f"/api/report?type={kind}").json()["results"] == [found[0], found[3]]


@pytest.mark.parametrize(
    "query", ["", "?tags=a", "?type=a&colour=1", f"?type={'x' * 2000}", "?type=a&createdOn=soon", "?type=%ff&x"]
)
def test_a_pixel_is_a_picture_whatever_is_asked(alone: Asking, query: str) -> None:
    told = alone(f"/t.gif{query}")
    assert (told.status, told.headers["Content-Type"], told.body) == (200, "image/gif", TRANSPARENT_GIF)
    assert told.headers["X-Metronome-Error"]


def test_an_event_that_is_sent_again_with_its_key_is_kept_once(alone: Asking) -> None:
    kind, again = unique_name("kind"), unique_name("again")
    found = [alone("/api/track", {"type": kind}, Idempotency_Key=again).json()["_id"] for _ in range(2)]
    assert found[0] == found[1]
    alone.server.wait_until_shipped()
    assert alone(f"/api/report/count?type={kind}").json() == {"count": 1}


@pytest.mark.parametrize("name", ["a b", 'quote"d', "dött.ed", "star*", "%", "=1+1", "x" * 200])
def test_tags_may_have_any_name(alone: Asking, name: str) -> None:
    kind = unique_name("kind")
    alone("/api/track", {"type": kind, "tags": {name: "=cmd"}})
    alone.server.wait_until_shipped()
    assert alone(f"/api/tags?type={kind}").json() == {name: ["=cmd"]}
    assert list(alone(f"/api/report/groupby?type={kind}&groupby={quote(name)}").json()) == ["=cmd"]
    assert alone(f"/api/report/unique?type={kind}&unique=tags.{quote(name)}").json()["count"] == 1
    names, row = csv.reader(io.StringIO(alone(f"/api/report.csv?type={kind}").body.decode(), newline=""))
    assert (names[1], row[1]) == (f"tags.{name}", "'=cmd")


@pytest.mark.parametrize("path", ["/api/track", "/api/track/batch"])
def test_only_the_methods_of_the_protocol_are_taken(alone: Asking, path: str) -> None:
    assert alone(path).status == 405
    assert alone("/t.gif", b"", "POST").status == 405


def test_keys_are_asked_for_by_their_scopes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    sender, reader = create_key(data, "shop", Scope.TICK), create_key(data, "board", Scope.QUERY)
    with running_server(data, public="none") as running:
        ask = Asking(running)
        sent = {"type": "sale"}
        assert ask("/api/track", sent).status == 401
        assert ask("/api/track", sent).json()["error"] == "Unauthorized"
        assert "WWW-Authenticate" in ask("/api/track", sent).headers
        assert ask("/api/track", sent, Authorization=f"Bearer {reader}").status == 403
        assert ask("/api/track", sent, Authorization=f"Bearer {sender}").status == 200
        assert ask(f"/api/track/batch?key={sender}", {"events": [sent]}).status == 200
        refused = ask("/t.gif?type=sale")
        assert (refused.status, refused.body) == (200, TRANSPARENT_GIF)
        assert "needs a key" in refused.headers["X-Metronome-Error"]
        assert "X-Metronome-Error" not in ask(f"/t.gif?type=sale&key={sender}").headers
        running.wait_until_shipped()
        assert ask("/api/types").status == ask("/api/report.csv").status == 401
        assert ask(f"/api/report?key={sender}").status == 403
        assert ask(f"/api/report/count?key={reader}").json() == {"count": 3}
        assert ask("/api/report/count", Authorization=f"Bearer {reader}").json() == {"count": 3}
    assert all(sender not in str(document) for document in read_stored_documents(data))


def test_no_whole_address_gets_to_the_disk(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_server(data) as running:
        ask = Asking(running)
        ask("/api/track", {"type": "a", "data": {"ip": "198.51.100.77"}})
        ask("/api/track", {"type": "a", "tags": "b", "data": "ip:198.51.100.77"})
        ask.server.wait_until_shipped()
        found = ask("/api/report").json()["results"]
        assert [each["data"] for each in found] == [{"ip": "198.51.100.0"}] * 2
    assert [b"198.51.100.77" in orjson.dumps(document) for document in read_stored_documents(data)] == [False] * 2
