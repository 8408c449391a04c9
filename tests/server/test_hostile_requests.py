"""Every wire of a real server, attacked: it answers in the protocol's own shape, takes what is good, and goes on."""

import gzip
import re
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metronome.scopes import Scope
from tests.attacks import (
    FORM_HEADERS,
    JSON_HEADERS,
    MIB,
    RawRequest,
    check_responses,
    count_views,
    documented_routes,
    exchange_bytes,
    send_requests,
    still_counting,
)
from tests.installations import create_key
from tests.servers import Server, free_port, running_server, unique_name

pytestmark = pytest.mark.slow  # attacks a real server, over and over

DATA: Final = Path(__file__).parents[1] / "data" / "hostile.ndjson"
SHARED: Final = Path(__file__).parents[3] / "shared" / "data" / "hostile-events.ndjson"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(
        tmp_path_factory.mktemp("hostile") / "open", body_max_bytes=2 * MIB, hit_port=free_port()
    ) as running:
        yield running


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Have a server of two workers that needs keys."""
    folder = tmp_path_factory.mktemp("hostile") / "crew"
    create_key(folder, "someone", Scope.ADMIN)
    with running_server(folder, body_max_bytes=2 * MIB, workers=2) as running:
        yield running


def port_of(server: Server, name: str) -> int:
    return int(str(server.settings[name]))


BODIES: Final = {
    "nothing": b"",
    "NUL": b"\0" * 100,
    "no UTF-8": b"\xff\xfe\xfd",
    "breaks off": b'{"id":"a',
    "open brackets": b"[" * 100_000,
    "open objects": b'{"a":' * 50_000,
    "deep": b'{"id":"a","x":' + b"[" * 900 + b"]" * 900 + b"}",
    "deeper": b'{"id":"a","type":"t","x":' + b'{"a":' * 1100 + b"1" + b"}" * 1100 + b"}",
    "long number": b'{"id":' + b"9" * 5000 + b',"ts":' + b"1" * 30 + b"}",
    "infinite": b'{"id":"a","type":"t","value":1e9999,"ts":1e400,"createdOn":-1e999,"consumer_key":"x"}',
    "surrogates": b'{"id":"\\ud800","type":"\\udfff","consumer_key":"\\ud800","token":"\\udc00","ts":"\\ud83d"}',
    "raw surrogate": b'{"id":"\xed\xa0\x80"}',
    "NUL in it": b'{"id":"a\\u0000b","type":"\\u0000","token":"\\u0000","ts":1,"action":"a","data":"{"}',
    "UTF-16": '{"id":"a"}'.encode("utf-16"),
    "mark": b'\xef\xbb\xbf{"id":"a"}',
    "latin": '{"id":"é"}'.encode("latin-1"),
    "bare": b"null",
    "lists": b"[[[]],1,null,true,{}]",
    "form": b"id=a&id=b&&&=&%=%zz&%00=%ff&" + b"a=1&" * 50,
    "long form": b"&".join(b"f%d=%d" % (n, n) for n in range(3000)),
    "line feeds": b"\n" * 50_000,
    "objects": b"{}\n" * 12_000,
    "many fields": orjson.dumps({"id": "a", "type": "t", **{f"k{n}": n for n in range(10_000)}}),
    "actions": b'{"create":[]}\n{}\n{"create":1}\n[]\nnull\n{"create":{"_id":{"a":1},"_index":5}}\n{"a":1}\n\xff\n',
    "long ids": b'{"index":{"_id":"%b"}}\n{"id":1}\n{"delete":{}}\n{"update":{"_id":"a"}}\n{}\n{"x":1}' % (b"y" * 600),
    "requests": b'{"requests":[null,1,"?idsite=1&rec=1&url=http://[::1","?idsite=1&rec=1&url=http://x/%ff%00",'
    b'{"idsite":[1],"rec":{}},{"idsite":1,"rec":1,"url":{"a":1},"cdt":1e400}],"token_auth":{}}',
    "no requests": b'{"requests":{"a":1},"token_auth":"\\ud800"}',
    "odd types": b'{"type":{"a":1},"tags":[[[]]],"fields":"a:b,,=","value":{"$gt":1},"createdOn":"+275760-09-13",'
    b'"consumer_key":{"a":1},"ts":[],"token":{},"data":{"a":{"b":[null]}}}',
}
TYPES: Final = ("application/json", "application/x-www-form-urlencoded", "application/x-ndjson; charset=\xff")
PACKED: Final = {
    "bomb": ("gzip", gzip.compress(bytes(30 * MIB))),
    "in one another": ("gzip, gzip", gzip.compress(gzip.compress(bytes(30 * MIB)))),
    "breaks off": ("gzip", gzip.compress(b'{"id":"a"}')[:-5]),
    "none": ("gzip, deflate, zstd", b"\x1f\x8b\x08" + b"\xff" * 100),
    "unknown": ("\xff", b"{}"),
    "too often": ("gzip, gzip, gzip, gzip, gzip", b"{}"),
}


@pytest.mark.slow
def test_every_address_answers_any_body_in_its_own_shape(server: Server) -> None:
    wanted = [
        RawRequest(method, path, body, (("Content-Type", kind),))
        for method, path in documented_routes()
        for body in BODIES.values()
        for kind in (TYPES if method in {"POST", "PUT"} else TYPES[:1])
    ]
    wanted += [
        RawRequest(method, path, body, (("Content-Encoding", encoding), *JSON_HEADERS))
        for method, path in documented_routes()
        for encoding, body in (PACKED.values() if method in {"POST", "PUT"} else ())
    ]
    with still_counting(server):
        check_responses(wanted, send_requests(server, wanted))


def test_every_address_answers_any_method(server: Server) -> None:
    methods = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND")
    wanted = [RawRequest(method, path, b"{}") for _, path in documented_routes() for method in methods]
    with still_counting(server):
        check_responses(wanted, send_requests(server, wanted))


# What each protocol takes besides bad neighbours, in one request: where to, with what, as which type.
def native(item: str) -> RawRequest:
    good = b'{"id":"%b"}' % item.encode()
    return RawRequest("POST", "/tick", b"\n".join([b"{", b"\xff\xfe", good, b"[" * 5000, b'{"id":{"a":1e999}}', b"\0"]))


def tracked(item: str) -> RawRequest:
    bad: list[Any] = [None, 1, [], {}, {"type": {"a": 1}}, {"type": "x", "createdOn": "+275760-09-13"}]
    good = {"type": "view", "tags": {"id": item}}
    return RawRequest("POST", "/api/track/batch", orjson.dumps({"events": [*bad, good, *bad]}), JSON_HEADERS)


def bulk(item: str) -> RawRequest:
    good = b'{"create":{}}\n{"id":"%b","event":"view"}' % item.encode()
    lines = [b'{"create":{}}\n\xff\xfe', b'{"index":{"_id":[]}}\n{"id":1}', good, b'{"create":{"_index":7}}\n"x"', b""]
    return RawRequest("POST", "/es/_bulk", b"\n".join(lines), (("Content-Type", "application/x-ndjson"),))


def matomo(item: str) -> RawRequest:
    url = f"?idsite=1&rec=1&url=http%3A%2F%2Fx%2F{item}"
    bad: list[Any] = [None, 7, "", "?", "?idsite=1&rec=1&url=http://[::1", {"idsite": [1]}, f"{url}&cdt=1e400"]
    return RawRequest("POST", "/matomo.php", orjson.dumps({"requests": [*bad, url, *bad]}))


@pytest.mark.parametrize("batch", [native, tracked, bulk, matomo])
def test_a_good_event_among_bad_ones_counts_once(server: Server, batch: Callable[[str], RawRequest]) -> None:
    item = unique_name()
    with still_counting(server):
        (answer,) = send_requests(server, [batch(item)])
        assert answer.status == HTTPStatus.OK
    assert count_views(server, f"/{item}" if batch is matomo else item) == 1


def hostile_events() -> list[bytes]:
    files = [path for path in (DATA, SHARED) if path.exists()]
    return [orjson.loads(line)["body"].encode() for path in files for line in path.read_bytes().splitlines()]


def test_hostile_events_are_taken_or_refused_by_every_protocol(server: Server) -> None:
    events = hostile_events()
    assert len(events) >= 30
    as_json = JSON_HEADERS
    wanted = [
        RawRequest("POST", path, body, as_json) for path in ("/tick", "/api/track", "/es/x/_doc") for body in events
    ]
    wanted += [RawRequest("POST", "/es/_bulk", b"".join(b'{"create":{}}\n%b\n' % body for body in events), as_json)]
    wanted += [RawRequest("POST", "/matomo.php", b'{"requests":[%b]}' % body, as_json) for body in events]
    wanted += [RawRequest("GET", f"/tick.gif?id=a&x={quote(body[:2000])}") for body in events]
    wanted += [RawRequest("GET", f"/t.gif?type=a&data={quote(body[:2000])}") for body in events]
    with still_counting(server):
        check_responses(wanted, send_requests(server, wanted))


IDS: Final = (
    "a/b//c",
    "..",
    "../../etc",
    "%00",
    "a%2fb",
    "%2e%2e%2f",
    "é€😀",
    "%ff%fe",
    "%",
    "%zz",
    "a;b=c",
    "x" * 3000,
)


PLACES: Final = (
    "hit/{} hit/{}?count hit/{}?views tock/{}.json es/{}/_doc/{} tick.gif?id={} t.gif?type=view&tags=id:{} "
    "matomo.php?idsite=1&rec=1&url=http://x/{} api/tag-values?tag={}"
)


def test_ids_may_be_anything(server: Server) -> None:
    named = [one if "%" in one else quote(one, safe="/;=") for one in IDS]
    places = [f"/{place}" for place in PLACES.split()]
    wanted = [RawRequest("GET", place.replace("{}", name)) for place in places for name in named]
    with still_counting(server):
        check_responses(wanted, send_requests(server, wanted))
        alone = [RawRequest("GET", f"/{name}{more}") for name in named for more in ("", "?count", "?views")]
        check_responses(alone, send_requests(server, alone, port_of(server, "hit_port")))
    item = unique_name("a/../%00é/")
    send_requests(server, [RawRequest("GET", "/hit/" + quote(item))])
    assert count_views(server, f"/{item}") == 1


@pytest.mark.slow
def test_addresses_may_have_thousands_of_parameters(server: Server) -> None:
    many = ("&".join(f"a{n}=" for n in range(1200)), "&" * 7000, "a&" * 3500, "x[]=%00&" * 800, "=&" * 3500)
    wanted = [RawRequest(method, f"{path}?{query}") for method, path in documented_routes() for query in many]
    with still_counting(server):
        check_responses(wanted, send_requests(server, wanted))


HEADERS: Final = (
    (("Authorization", "Bearer a"), ("Authorization", "Basic b")),
    (("Authorization", "Basic " + "!" * 3000),),
    (("Authorization", "Bearer \xff\xfe"),),
    (("Authorization", "ApiKey ////"),),
    (("Authorization", "Basic /////w=="),),
    (("X-Forwarded-For", "x" * 8000),),
    (("X-Forwarded-For", ",".join(["203.0.113.9"] * 600)),),
    (("X-Forwarded-For", ", ,,[::1]:80, 999.1.1.1, \xff, fe80::1%eth0"), ("X-Forwarded-For", "unknown")),
    (("Origin", "http://[::1"), ("Origin", "null")),
    (("Origin", "https://\xff\xfe" + "x" * 5000),),
    (("Content-Type", "/;;;=" * 500),),
    (("Content-Type", "multipart/form-data; charset=idna; boundary=" + "x" * 2000),),
    (("Idempotency-Key", "\xff" * 5000), ("Idempotency-Key", "")),
    (("If-None-Match", '"' * 5000), ("Accept-Language", ",;q=" * 1500), ("Referer", "http://[::1/" + "\xff" * 3000)),
    (("User-Agent", "\xff" * 7000), ("Cookie", "=;" * 3000), ("Accept-Encoding", ",".join("*" * 900))),
    tuple((f"X-{number}", "x") for number in range(100)),
)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["server", "crew"])
def test_headers_may_say_anything(request: pytest.FixtureRequest, where: str) -> None:
    server: Server = request.getfixturevalue(where)
    body = b'{"id":"a","type":"a"}'
    wanted = [RawRequest(method, path, body, headers) for method, path in documented_routes() for headers in HEADERS]
    with still_counting(server):
        check_responses(wanted, send_requests(server, wanted))


def test_unknown_keys_are_turned_away_while_ticks_go_on(crew: Server) -> None:
    odd = ["x" * 7000, "%00", "%ff", "é".encode().decode("latin-1"), "a:b", "*", "' or 1=1"]
    keys = [*odd, *(unique_name() for _ in range(400))]
    named = (("/items.json", "Authorization"), ("/metrics", "Authorization"), ("/es/_bulk", "Authorization"))
    wanted = [
        RawRequest("GET" if path != "/es/_bulk" else "POST", path, b"", ((name, f"Bearer {key}"),))
        for key in keys
        for path, name in named
    ]
    wanted += [RawRequest("GET", f"/api/types?key={quote(key)}") for key in keys]
    wanted += [RawRequest("GET", f"/sessions?key={quote(key)}") for key in keys]
    wanted += [
        RawRequest("POST", "/sessions", f"consumer_key={quote(key)}&ts=1".encode(), FORM_HEADERS) for key in keys
    ]
    good = [RawRequest("POST", "/tick", b'{"id":"flood"}')] * 50
    with still_counting(crew):
        answers = send_requests(crew, [*wanted, *good])
    check_responses(wanted, answers[: len(wanted)])
    assert {answer.status for answer in answers[: len(wanted)]} == {HTTPStatus.UNAUTHORIZED}
    assert {answer.status for answer in answers[len(wanted) :]} == {HTTPStatus.NO_CONTENT}
    assert count_views(crew, "flood") == len(good)


BROKEN: Final = {
    "a promise of a terabyte": b"Content-Length: 1000000000000\r\n\r\n{",
    "a promise beyond numbers": b"Content-Length: 1" + b"0" * 30 + b"\r\n\r\n{",
    "less than nothing": b"Content-Length: -1\r\n\r\n{",
    "a chunk of a terabyte": b"Transfer-Encoding: chunked\r\n\r\nffffffffff\r\nabc",
    "no chunk": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "two lengths": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no patience": b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n",
    "many headers": b"".join(b"X%d: y\r\n" % n for n in range(20_000)) + b"\r\n",
    "a long header": b"X: " + b"y" * MIB + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_requests_that_break_off_are_dropped_without_a_word_in_the_log(server: Server, name: str) -> None:
    with still_counting(server):
        # The first report takes memory that stays.
        pass
    before, memory = server.log, server.peak_memory()
    with still_counting(server):
        for path in (b"/tick", b"/es/_bulk", b"/events", b"/matomo.php", b"/api/track", b"/nowhere"):
            came = exchange_bytes(server.port, b"POST %b HTTP/1.1\r\nHost: x\r\n%b" % (path, BROKEN[name]))
            assert not re.search(rb"^HTTP/1\.[01] [25]", came, re.MULTILINE)
    assert server.log == before
    # Each of the bodies has nearly 2 MiB.
    assert server.peak_memory() < memory + 48 * MIB


def test_who_expects_something_is_told_to_go_on_and_answered(server: Server) -> None:
    wanted = [
        RawRequest("POST", "/tick", b'{"id":"patient"}', (("Expect", what),))
        for what in ("100-continue", "200-maybe", "")
    ]
    with still_counting(server):
        answers = send_requests(server, wanted)
    assert [answer.status for answer in answers] == [HTTPStatus.CONTINUE, HTTPStatus.NO_CONTENT, HTTPStatus.NO_CONTENT]
    assert answers[0].body.startswith(b"HTTP/1.1 204 ")
    assert count_views(server, "patient") == len(wanted)


_REQUESTS: Final = st.sampled_from(
    [
        b'POST /tick HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"id":"a"}',
        b'POST /tick HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\na\r\n{"id":"a"}\r\n0\r\n\r\n',
        b"GET /hit/a?count HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[::1]:x/tock/a.json HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"GET /es/x/_doc HTTP/1.0\r\nExpect: 100-continue\r\n\r\n",
    ]
)
_CHANGES: Final = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=4)


@given(wire=_REQUESTS, changes=_CHANGES, end=st.integers(1, 200))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_requests_that_were_changed_on_their_way_harm_nobody(
    server: Server, wire: bytes, changes: list[tuple[int, int]], end: int
) -> None:
    changed = bytearray(wire)
    for at, value in changes:
        changed[at % len(changed)] = value
    came = exchange_bytes(server.port, bytes(changed[:end]))
    assert not re.search(rb"^HTTP/1\.[01] 5", came, re.MULTILINE)
    assert server.get("/health/live")["status"] == "ok"


REFUSED_WHOLE: Final = {
    "no actions": RawRequest("POST", "/es/_bulk", b"x\n" * 900_000),
    "too many lines": RawRequest("POST", "/tick", b"{\n" * 900_000),
    "a long id": RawRequest("POST", "/tick", b'{"id":"%b"}' % (b"x" * 1_900_000)),
    "no requests": RawRequest("POST", "/matomo.php", b'{"requests":[%b1]}' % (b"1," * 900_000)),
}


@pytest.mark.parametrize("name", REFUSED_WHOLE)
@pytest.mark.slow
def test_what_was_refused_is_forgotten(server: Server, name: str) -> None:
    send_requests(server, [REFUSED_WHOLE[name]] * 8)
    memory = server.peak_memory()
    answers = send_requests(server, [REFUSED_WHOLE[name]] * 40)
    assert {answer.status // 100 for answer in answers} == {4}
    # 40 bodies of nearly 2 MiB are 72 MiB.
    assert server.peak_memory() < memory + 64 * MIB
