"""What Matomo's clients really send: recorded from them, with their versions."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson
import pytest
from multidict import CIMultiDict

from metronome.event import Event
from metronome.protocol import Endpoint, IngestResult, Reply, Request
from metronome.protocols.registry import ENDPOINTS
from metronome.web.gif import TRANSPARENT_GIF

TOKEN: Final = "b" * 32
HOST: Final = "stats.test:8080"
ARRIVAL: Final = "2015-01-22T19:00:00.000Z"


class Call(NamedTuple):
    """A call of the API, and what is expected."""

    path: str
    body: str
    expected: Any


class Recording(NamedTuple):
    """A request, and the events that it becomes, but for their names."""

    method: str
    target: str
    agent: str
    body: str
    events: list[dict[str, Any]]


RECORDINGS: Final = {
    # matomo-tracker 2.2.4 of npm
    "one view": Recording(
        "GET",
        "/matomo.php?url=http%3A%2F%2Fdata.example.org%2Fpage%2Fone&idsite=1&rec=1",
        "",
        "",
        [
            {
                "url": "http://data.example.org/page/one",
                "idsite": 1,
                "clientip": "192.0.2.1",
                "event": "view",
                "id": "/page/one",
            },
        ],
    ),
    "a page and all about it": Recording(
        "GET",
        "/matomo.php?url=http%3A%2F%2Fdata.example.org%2Fpage%2Fone%3Fx%3D1%26y%3Da%20b&"
        "action_name=Ein%20sch%C3%B6ner%20Titel&ua=Mozilla%2F5.0&urlref=https%3A%2F%2Fexample.org%2Ffrom&e_c=&"
        "_id=0123456789abcdef&cvar=%7B%221%22%3A%5B%22kind%22%2C%22a%22%5D%7D&idsite=1&rec=1",
        "",
        "",
        [
            {
                "url": "http://data.example.org/page/one?x=1&y=a b",
                "title": "Ein schöner Titel",
                "agent": "Mozilla/5.0",
                "referer": "https://example.org/from",
                "cvar": '{"1":["kind","a"]}',
                "idsite": 1,
                "visitor": "0123456789abcdef",
                "clientip": "192.0.2.1",
                "event": "view",
                "id": "/page/one",
            },
        ],
    ),
    "a download": Recording(
        "GET",
        "/matomo.php?url=http%3A%2F%2Fdata.example.org%2Fdata%2Ftable.csv&"
        "download=http%3A%2F%2Fdata.example.org%2Fdata%2Ftable.csv&idsite=1&rec=1",
        "",
        "",
        [
            {
                "url": "http://data.example.org/data/table.csv",
                "download": "http://data.example.org/data/table.csv",
                "idsite": 1,
                "clientip": "192.0.2.1",
                "event": "download",
                "id": "/data/table.csv",
                "format": "csv",
            },
        ],
    ),
    "two in a bulk": Recording(
        "POST",
        "/matomo.php",
        "",
        '{"requests":["?url=http%3A%2F%2Fdata.example.org%2Fpage%2Fone&idsite=1&rec=1",'
        '"?url=http%3A%2F%2Fdata.example.org%2Fpage%2Ftwo&e_c=Videos&e_a=play&e_v=3&idsite=1&rec=1"]}',
        [
            {
                "url": "http://data.example.org/page/one",
                "idsite": 1,
                "clientip": "192.0.2.1",
                "event": "view",
                "id": "/page/one",
            },
            {
                "url": "http://data.example.org/page/two",
                "category": "Videos",
                "action": "play",
                "value": 3,
                "idsite": 1,
                "clientip": "192.0.2.1",
                "event": "event",
                "id": "/page/two",
            },
        ],
    ),
    # import_logs.py of matomo-log-analytics at d1cd2fe, with --enable-bots --enable-http-errors --enable-http-redirects
    "a log": Recording(
        "POST",
        "//piwik.php?queuedtracking=0",
        "Matomo/LogImport",
        '{"token_auth": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "requests": ['
        '{"rec": "1", "apiv": "1", "url": "http://stats.test:8080/page/one?x=1&y=a%20b", '
        '"urlref": "https://example.org/from", "cip": "192.0.2.7", "cdt": "2015-11-22 17:30:00", "idsite": "1", '
        '"queuedtracking": "0", "dp": "1", "ua": "Mozilla/5.0 Firefox/140.0", '
        '"_cvar": "{\\"1\\": [\\"Not-Bot\\", \\"Mozilla/5.0 Firefox/140.0\\"]}", '
        '"cvar": "{\\"1\\": [\\"HTTP-code\\", \\"200\\"]}", "bots": "1", "bw_bytes": 612}, '
        '{"rec": "1", "apiv": "1", "url": "http://stats.test:8080/data/table.csv", "urlref": "", '
        '"cip": "192.0.2.8", "cdt": "2015-11-22 17:30:01", "idsite": "1", "queuedtracking": "0", "dp": "1", '
        '"ua": "Mozilla/5.0 Firefox/140.0", "uid": "alice", '
        '"_cvar": "{\\"1\\": [\\"Not-Bot\\", \\"Mozilla/5.0 Firefox/140.0\\"]}", '
        '"cvar": "{\\"1\\": [\\"HTTP-code\\", \\"200\\"]}", "download": "http://stats.test:8080/data/table.csv", '
        '"bots": "1", "bw_bytes": 5120}, '
        '{"rec": "1", "apiv": "1", "url": "http://stats.test:8080/missing", '
        '"urlref": "https://example.org/page/one", "cip": "192.0.2.8", "cdt": "2015-11-22 17:30:02", '
        '"idsite": "1", "queuedtracking": "0", "dp": "1", "ua": "Mozilla/5.0 Firefox/140.0", '
        '"_cvar": "{\\"1\\": [\\"Not-Bot\\", \\"Mozilla/5.0 Firefox/140.0\\"]}", '
        '"cvar": "{\\"1\\": [\\"HTTP-code\\", \\"404\\"]}", "bots": "1", '
        '"action_name": "404/URL = http%3A%2F%2Fstats.test%3A8080%2Fmissing'
        '/From = https%3A%2F%2Fexample.org%2Fpage%2Fone", '
        '"bw_bytes": 153}, '
        '{"rec": "1", "apiv": "1", "url": "http://stats.test:8080/old", "urlref": "", "cip": "192.0.2.9", '
        '"cdt": "2015-11-22 17:30:03", "idsite": "1", "queuedtracking": "0", "dp": "1", '
        '"ua": "Mozilla/5.0 Firefox/140.0", '
        '"_cvar": "{\\"1\\": [\\"Not-Bot\\", \\"Mozilla/5.0 Firefox/140.0\\"]}", '
        '"cvar": "{\\"1\\": [\\"HTTP-code\\", \\"301\\"]}", "bots": "1", '
        '"action_name": "301/URL = http%3A%2F%2Fstats.test%3A8080%2Fold"}, '
        '{"rec": "1", "apiv": "1", "url": "http://stats.test:8080/page/one", "urlref": "", "cip": "192.0.2.10", '
        '"cdt": "2015-11-22 17:30:04", "idsite": "1", "queuedtracking": "0", "dp": "1", "ua": "Googlebot/2.1", '
        '"_cvar": "{\\"1\\": [\\"Bot\\", \\"Googlebot/2.1\\"]}", '
        '"cvar": "{\\"1\\": [\\"HTTP-code\\", \\"200\\"]}", "bots": "1", "bw_bytes": 612}]}',
        [
            {
                "url": "http://stats.test:8080/page/one?x=1&y=a%20b",
                "referer": "https://example.org/from",
                "idsite": 1,
                "agent": "Mozilla/5.0 Firefox/140.0",
                "visit_cvar": '{"1": ["Not-Bot", "Mozilla/5.0 Firefox/140.0"]}',
                "cvar": '{"1": ["HTTP-code", "200"]}',
                "bytes": 612,
                "clientip": "192.0.2.7",
                "@timestamp": "2015-11-22T17:30:00.000Z",
                "bot": False,
                "status": 200,
                "event": "view",
                "id": "/page/one",
            },
            {
                "url": "http://stats.test:8080/data/table.csv",
                "idsite": 1,
                "agent": "Mozilla/5.0 Firefox/140.0",
                "user": "alice",
                "visit_cvar": '{"1": ["Not-Bot", "Mozilla/5.0 Firefox/140.0"]}',
                "cvar": '{"1": ["HTTP-code", "200"]}',
                "download": "http://stats.test:8080/data/table.csv",
                "bytes": 5120,
                "clientip": "192.0.2.8",
                "@timestamp": "2015-11-22T17:30:01.000Z",
                "bot": False,
                "status": 200,
                "event": "download",
                "id": "/data/table.csv",
                "format": "csv",
            },
            {
                "url": "http://stats.test:8080/missing",
                "referer": "https://example.org/page/one",
                "idsite": 1,
                "agent": "Mozilla/5.0 Firefox/140.0",
                "visit_cvar": '{"1": ["Not-Bot", "Mozilla/5.0 Firefox/140.0"]}',
                "cvar": '{"1": ["HTTP-code", "404"]}',
                "title": "404/URL = http%3A%2F%2Fstats.test%3A8080%2Fmissing"
                "/From = https%3A%2F%2Fexample.org%2Fpage%2Fone",
                "bytes": 153,
                "clientip": "192.0.2.8",
                "@timestamp": "2015-11-22T17:30:02.000Z",
                "bot": False,
                "status": 404,
                "event": "error",
                "id": "/missing",
            },
            {
                "url": "http://stats.test:8080/old",
                "idsite": 1,
                "agent": "Mozilla/5.0 Firefox/140.0",
                "visit_cvar": '{"1": ["Not-Bot", "Mozilla/5.0 Firefox/140.0"]}',
                "cvar": '{"1": ["HTTP-code", "301"]}',
                "title": "301/URL = http%3A%2F%2Fstats.test%3A8080%2Fold",
                "clientip": "192.0.2.9",
                "@timestamp": "2015-11-22T17:30:03.000Z",
                "bot": False,
                "status": 301,
                "event": "request",
                "id": "/old",
            },
            {
                "url": "http://stats.test:8080/page/one",
                "idsite": 1,
                "agent": "Googlebot/2.1",
                "visit_cvar": '{"1": ["Bot", "Googlebot/2.1"]}',
                "cvar": '{"1": ["HTTP-code", "200"]}',
                "bytes": 612,
                "clientip": "192.0.2.10",
                "@timestamp": "2015-11-22T17:30:04.000Z",
                "bot": False,
                "status": 200,
                "event": "view",
                "id": "/page/one",
            },
        ],
    ),
    # the same, with --replay-tracking
    "a log of trackers": Recording(
        "POST",
        "//piwik.php?queuedtracking=0",
        "Matomo/LogImport",
        '{"token_auth": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "requests": ['
        '{"rec": "1", "apiv": "1", "url": "http://www.example.org/page/one", '
        '"urlref": "http://www.example.org/page/one", "cip": "192.0.2.7", "cdt": "2015-11-22 17:30:00", '
        '"idsite": "1", "queuedtracking": "0", "dp": "1", "ua": "Mozilla/5.0 Firefox/140.0", "action_name": "One", '
        '"r": "123456", "h": "18", "m": "30", "s": "0", "_id": "0123456789abcdef", "send_image": "0", '
        '"cvar": "{\\"1\\":[\\"kind\\",\\"a\\"]}"}]}',
        [
            {
                "url": "http://www.example.org/page/one",
                "referer": "http://www.example.org/page/one",
                "idsite": 1,
                "agent": "Mozilla/5.0 Firefox/140.0",
                "title": "One",
                "h": 18,
                "m": 30,
                "s": 0,
                "cvar": '{"1":["kind","a"]}',
                "visitor": "0123456789abcdef",
                "clientip": "192.0.2.7",
                "@timestamp": "2015-11-22T17:30:00.000Z",
                "event": "view",
                "id": "/page/one",
            },
        ],
    ),
}
CALLS: Final = {
    "of one site": Call(
        "//",
        "module=API&format=json&method=SitesManager.getSiteFromId&filter_limit=-1&"
        "token_auth=bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb&idSite=1",
        {
            "idsite": 1,
            "name": "stats.test:8080",
            "main_url": "http://stats.test:8080",
            "timezone": "UTC",
            "type": "website",
        },
    ),
    "to replay trackers": Call(
        "//",
        "module=API&format=json&method=SitesManager.getAllSites&filter_limit=-1&"
        "token_auth=bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        {
            "1": {
                "idsite": 1,
                "name": "stats.test:8080",
                "main_url": "http://stats.test:8080",
                "timezone": "UTC",
                "type": "website",
            }
        },
    ),
    "of any host": Call(
        "/",
        "module=API&format=json&method=SitesManager.getSitesIdFromSiteUrl&filter_limit=-1&"
        "token_auth=bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb&url=www.example.org",
        [{"idsite": 1}],
    ),
}
"""Requests that import_logs.py sends before it starts, and the replies."""


def endpoint_of(method: str, path: str) -> Endpoint:
    """Return the endpoint of a request."""
    return next(
        endpoint for endpoint in ENDPOINTS if (endpoint.method, endpoint.prefix + endpoint.path) == (method, path)
    )


def play(recording: Recording) -> tuple[list[Mapping[str, Any]], Reply]:
    """Return the events of a recorded request and the reply."""
    path, _, query = recording.target.partition("?")
    endpoint = endpoint_of(recording.method, path)
    request = Request(
        recording.body.encode(),
        "",
        100,
        recording.method,
        path.removeprefix(endpoint.prefix),
        query,
        CIMultiDict({"Host": HOST, **({"User-Agent": recording.agent} if recording.agent else {})}),
        client_ip="192.0.2.1",
        received_at=ARRIVAL,
        is_trusted=TOKEN in recording.body,
    )
    parsed = endpoint.protocol.parse(request)
    events = [event.fields for event in parsed.events if isinstance(event, Event)]
    return events, endpoint.protocol.reply(request, parsed, IngestResult(len(events), {}))


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recorded_request_becomes_the_expected_events(name: str) -> None:
    events, _ = play(RECORDINGS[name])
    unnamed = [{field: value for field, value in event.items() if field != "event_id"} for event in events]
    assert unnamed == RECORDINGS[name].events


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recorded_request_gets_the_expected_reply(name: str) -> None:
    recording = RECORDINGS[name]
    events, reply = play(recording)
    assert reply.status == 200
    if recording.method == "GET":
        assert (reply.content_type, reply.body) == ("image/gif", TRANSPARENT_GIF)
        return
    expected = {"status": "success", "tracked": len(events), "invalid": 0}
    # The importer sends a token, and reports the lines with these indices.
    assert orjson.loads(reply.body) == expected | ({"invalid_indices": []} if TOKEN in recording.body else {})


@pytest.mark.parametrize("name", CALLS)
def test_the_first_requests_of_the_importer_are_answered(name: str) -> None:
    path, body, expected = CALLS[name]
    dialect = endpoint_of("POST", path).protocol
    request = Request(body.encode(), "", 100, "POST", headers={"Host": HOST}, is_trusted=True)
    reply = dialect.reply(request, dialect.parse(request), IngestResult(0, {}))
    assert dialect.extract_key(request) == TOKEN
    assert (reply.status, orjson.loads(reply.body)) == (200, expected)


@pytest.mark.parametrize("path", ["/", "/index.php", "/matomo.php", "/piwik.php"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_double_slash_leads_to_the_same_endpoint(method: str, path: str) -> None:
    once, twice = endpoint_of(method, path), endpoint_of(method, f"/{path}")
    assert twice.prefix == "/"
    assert twice._replace(prefix="") == once
