"""Flow and time over HTTP: of one item, and of all."""

from collections.abc import Iterator
from http.client import HTTPConnection
from urllib.parse import quote

import orjson
import pytest

from tests.servers import Server, running_server

ITEM = "dir/a b?c#ü.json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server that knows one session: half a minute at an item, then another one."""
    with running_server(tmp_path_factory.mktemp("service") / "data") as running:
        seen = [
            {"session": "s", "ts": "2015-01-22T10:00:00Z", "id": ITEM, "event": "view", "LCP": 1200},
            {"session": "s", "ts": "2015-01-22T10:00:30Z", "id": "b", "event": "view"},
        ]
        running.post_events(orjson.dumps(seen))
        running.wait_until_shipped()
        yield running


FLOW = (
    '{"sessions":1,"entries":1,"exits":0,"entry_share":1.0,"exit_share":0.0,"previous":{},"next":{"b":1}'
    ',"before":[{},{}],"after":[{"b":1},{}]}'
)
FLOW_OF_ALL = (
    '{"sessions":1,"entries":{"ITEM":1},"exits":{"b":1},"transitions":[{"from":"ITEM","to":"b","count":1}]}'
).replace("ITEM", ITEM)
TIME = (
    '{"on_item":{"count":1,"p50":30000.0,"p75":30000.0,"p95":30000.0},'
    '"timings":{"LCP":{"2015-01-22":{"count":1,"p50":1200.0,"p75":1200.0,"p95":1200.0}}}}'
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/flow/{quote(ITEM, safe='')}.json?steps=2", FLOW),
        (f"/flow/{quote(ITEM)}.json?steps=2&from=2015-01-22&to=2015-01-22&limit=5&bots=1&tz=Europe/Zurich", FLOW),
        ("/flow.json?from=-9999w", FLOW_OF_ALL),
        (f"/time/{quote(ITEM, safe='')}.json", TIME),
        ("/time.json?from=2015-01-01&to=2015-02-01&limit=5&bots=1&tz=Europe/Zurich", TIME),
    ],
)
def test_any_item_and_all_can_be_asked_for(server: Server, path: str, expected: str) -> None:
    line = HTTPConnection("127.0.0.1", server.port, timeout=30)
    line.request("GET", path)
    answer = line.getresponse()
    # As text: the order of the keys is part of the answer.
    assert (answer.status, answer.read().decode()) == (200, expected)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    line.request("HEAD", path)
    head = line.getresponse()
    assert (head.status, head.read(), head.headers["ETag"]) == (200, b"", answer.headers["ETag"])
    line.request("GET", path, headers={"If-None-Match": answer.headers["ETag"] or ""})
    known = line.getresponse()
    assert (known.status, known.read()) == (304, b"")
    line.close()


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("/flow/a.json?steps=6", "invalid steps=6: expected one of 1, 2, 3, 4, 5"),
        ("/flow/a.json?steps=0", "invalid steps=0"),
        ("/flow/a.json?interval=day", "unknown parameter 'interval'"),
        ("/flow.json?steps=2", "unknown parameter 'steps'"),
        ("/time/a.json?steps=2", "unknown parameter 'steps'"),
        ("/time.json?tz=Mars", "unknown time zone"),
    ],
)
def test_rejects_invalid_parameters(server: Server, path: str, complaint: str) -> None:
    found = server.get(path)
    assert found["status"] == 400
    assert complaint in str(found)
