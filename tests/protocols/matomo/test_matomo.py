"""Requests of the Matomo Tracking API, and the replies."""

import json
from typing import Any, Final
from urllib.parse import quote, urlencode

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metronome.errors import Malformed, PayloadTooLarge, SpoolFull, Unauthorized
from metronome.event import Event
from metronome.protocol import IngestResult, ParsedRequest, Reply, Request
from metronome.protocols.matomo import tracker
from metronome.web.gif import ERROR_HEADER, TRANSPARENT_GIF

FORM: Final = "application/x-www-form-urlencoded"
HEX: Final = "0123456789abcdef"
SECRET: Final = "a" * 32
VIEW: Final = "idsite=1&rec=1&url=https%3A%2F%2Fexample.org%2Fa"


def get(query: str, **headers: str) -> Request:
    return Request(b"", "", 100, "GET", "/matomo.php", query, headers, "192.0.2.7", "2026-01-22T12:00:00.000Z")


def post(body: bytes | str | object, query: str = "", **headers: str) -> Request:
    text = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else orjson.dumps(body)
    return get(query, **headers)._replace(body=text, content_type=FORM, method="POST")


def events(request: Request) -> list[Any]:
    """Return the fields of a request's events, or the error message of entries that are rejected."""
    parsed = list(tracker.parse(request).events)
    return [event.fields if isinstance(event, Event) else str(event) for event in parsed]


def reply_to(
    request: Request, rejected: dict[int, Malformed | PayloadTooLarge] | None = None, accepted: int = 1
) -> Reply:
    return tracker.reply(request, tracker.parse(request), IngestResult(accepted, rejected or {}))


JS: Final = (
    f"&idsite=1&rec=1&r=314159&h=9&m=5&s=7&url={quote('https://example.org/data/wells?x=1', safe='')}"
    f"&urlref={quote('https://news.example/a', safe='')}&_id={HEX}&_idn=1&send_image=0&_refts=0"
)
JS_BROWSER: Final = (
    "&pdf=1&qt=0&realp=0&wma=0&fla=0&java=0&ag=0&cookie=1&res=1920x1080"
    f"&uadata={quote(orjson.dumps({'brands': [], 'platform': 'Linux'}).decode())}"
)
CART: Final = '[["s","n",["c"],10,2]]'
JS_FIELDS: Final = {
    "idsite": 1,
    "h": 9,
    "m": 5,
    "s": 7,
    "url": "https://example.org/data/wells?x=1",
    "id": "/data/wells",
    "referer": "https://news.example/a",
    "visitor": HEX,
    "new_visitor": 1,
    "first_referer_at": 0,
    "clientip": "192.0.2.7",
}


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        (f"action_name=Wells{JS}&pf_net=0&pf_srv=12&pf_tfr=3&pf_dm1=40&pf_dm2=5&pf_onl=1&pv_id=aB3dE6",
         {"event": "view", "title": "Wells", "pf_net": 0, "pf_srv": 12, "pf_tfr": 3, "pf_dm1": 40, "pf_dm2": 5,
          "pf_onl": 1, "pv_id": "aB3dE6"}),
        (f"ping=1{JS}&pv_id=aB3dE6", {"event": "heartbeat", "pv_id": "aB3dE6"}),
        (f"link={quote('https://other.example/x', safe='')}{JS}",
         {"event": "outlink", "link": "https://other.example/x"}),
        (f"download={quote('https://example.org/data/wells.zip', safe='')}{JS}",
         {"event": "download", "download": "https://example.org/data/wells.zip", "id": "/data/wells.zip",
          "format": "zip"}),
        (f"e_c=Map&e_a=zoom&e_n=in&e_v=2&ca=1{JS}",
         {"event": "event", "category": "Map", "action": "zoom", "name": "in", "value": 2, "ca": "1"}),
        (f"c_n=Banner&c_p=a.png&c_t=%2Ft&ca=1{JS}",
         {"event": "content", "content": "Banner", "content_piece": "a.png", "content_target": "/t", "ca": "1"}),
        (f"c_i=click&c_n=Banner&ca=1{JS}",
         {"event": "content", "content_interaction": "click", "content": "Banner", "ca": "1"}),
        (f"search=deep%20wells&search_cat=maps&search_count=12{JS}",
         {"event": "search", "search": "deep wells", "search_category": "maps", "search_count": 12}),
        (f"idgoal=2&revenue=1.5{JS}", {"event": "goal", "goal": "2", "revenue": 1.5}),
        (f"idgoal=0&ec_id=A1&revenue=20&ec_st=18&ec_tx=2&ec_items={quote(CART)}{JS}&_ects=1",
         {"event": "order", "goal": "0", "order": "A1", "revenue": 20, "subtotal": 18, "tax": 2,
          "items": CART, "last_order_at": 1}),
    ],
)  # fmt: skip
def test_requests_of_matomo_js_are_stored_completely(query: str, fields: dict[str, Any]) -> None:
    browser = {"pdf": 1, "qt": 0, "realp": 0, "wma": 0, "fla": 0, "java": 0, "ag": 0, "cookie": 1, "res": "1920x1080"}
    whole = {**JS_FIELDS, **browser, "uadata": '{"brands":[],"platform":"Linux"}', **fields}
    assert events(get(query + JS_BROWSER)) == [whole]
    assert events(post(query + JS_BROWSER)) == [whole]
    assert events(post(b"", query + JS_BROWSER)) == [whole]
    bulk = f'{{"requests":["?{query}{JS_BROWSER}","?{query}{JS_BROWSER}"],"send_image":0}}'
    assert events(post(bulk)) == [whole, whole]


def test_requests_of_the_node_tracker_are_parsed() -> None:
    said = {
        "url": "http://example.com/track/this/url",
        "action_name": "Title",
        "ua": "Node.js v0.10.24",
        "cvar": '{"1":["name","value"]}',
        "idsite": 1,
        "rec": 1,
    }
    one = {
        "url": said["url"],
        "title": "Title",
        "agent": "Node.js v0.10.24",
        "cvar": said["cvar"],
        "idsite": 1,
        "event": "view",
        "id": "/track/this/url",
        "clientip": "192.0.2.7",
    }
    assert events(get(urlencode(said))) == [one]
    visitor = "AA814767-7B1F-5C81-8F1D-8E47AD7D2982"
    more = {"_id": visitor, "cdt": "2026-01-22T02:32:22.867Z", "e_c": "Buy", "e_a": "right", "e_v": "2"}
    bulk = {"requests": ["?" + urlencode({**more, "idsite": 1, "rec": 1})]}
    (event,) = events(post(bulk))
    assert len(event.pop("event_id")) > 30
    assert [event] == [
        {
            "idsite": 1,
            "category": "Buy",
            "action": "right",
            "value": 2,
            "visitor": visitor,
            "clientip": "192.0.2.7",
            "@timestamp": "2026-01-22T02:32:22.867Z",
            "event": "event",
        }
    ]


class TestRequestFormats:
    @pytest.mark.parametrize("address", ["", f"?{VIEW}", f"https://m.example/matomo.php?{VIEW}#x", VIEW])
    def test_bulk_entries_may_be_urls_or_queries(self, address: str) -> None:
        found = events(post({"requests": [address]}))
        assert ([one["id"] for one in found] == ["/a"]) if address else ("idsite" in found[0])

    def test_bulk_entries_may_be_objects(self) -> None:
        found = events(post({"requests": [{"idsite": 1, "rec": 1, "url": "/a", "cvar": {"1": ["a", "b"]}}]}))
        assert (found[0]["id"], found[0]["cvar"]) == ("/a", '{"1":["a","b"]}')

    def test_an_invalid_bulk_entry_does_not_affect_the_others(self) -> None:
        found = events(post({"requests": [f"?{VIEW}", "?idsite=1", None, 7, ["?x"], "?rec=1", f"?{VIEW}"]}))
        assert [type(one) is dict for one in found] == [True, False, False, False, False, False, True]

    def test_a_bulk_entry_with_too_many_parameters_does_not_affect_the_others(self) -> None:
        found = events(post({"requests": ["?" + "a=1&" * 1001, f"?{VIEW}"]}))
        assert ("1000 parameters" in found[0], found[1]["id"]) == (True, "/a")

    def test_a_json_object_may_be_a_single_request(self) -> None:
        assert events(post({"idsite": 1, "rec": 1, "url": "/a", "action_name": "A"}))[0]["title"] == "A"

    def test_the_query_wins_over_the_form(self) -> None:
        assert events(post("idsite=1&rec=1&url=/form", "url=/query"))[0]["id"] == "/query"

    @pytest.mark.parametrize(
        "body",
        [b"{", b'{"requests":[', b"[]", b'["?idsite=1"]', b'{"requests":7}', b'{"requests":{"0":"?x"}}', b"", b"\xff{"],
    )
    def test_rejects_an_invalid_body(self, body: bytes) -> None:
        request = post(body)
        if body == b"\xff{":
            assert "idsite" in events(request)[0]
        else:
            with pytest.raises(Malformed, match=r"array of requests|JSON|empty"):
                tracker.parse(request)

    def test_rejects_a_bulk_with_too_many_entries(self) -> None:
        with pytest.raises(PayloadTooLarge, match="over 100"):
            tracker.parse(post({"requests": ["?x"] * 101}))

    def test_the_page_of_an_image_is_its_referrer(self) -> None:
        page = {"Referer": "https://example.org/page"}
        assert events(get("idsite=1&rec=1", **page))[0]["id"] == "/page"
        assert "id" not in events(post("idsite=1&rec=1", **page))[0]
        assert "referer" not in events(get(VIEW, **page))[0]

    def test_user_agent_and_language_are_taken_from_the_headers(self) -> None:
        found = events(get(VIEW, **{"User-Agent": "Browser/1", "Accept-Language": "de"}))[0]
        assert (found["agent"], found["lang"]) == ("Browser/1", "de")


class TestTokens:
    @pytest.mark.parametrize(
        "request_",
        [
            get(f"{VIEW}&token_auth={SECRET}"),
            post(VIEW, f"token_auth={SECRET}"),
            post(f"{VIEW}&token_auth={SECRET}"),
            post({"requests": [f"?{VIEW}"], "token_auth": SECRET}),
            post({"requests": [f"?{VIEW}", f"?{VIEW}&token_auth={SECRET}"]}),
            post({"requests": [None, {"idsite": 1, "token_auth": SECRET}]}),
            post({"idsite": 1, "rec": 1, "token_auth": SECRET}),
            post(VIEW, "token_auth=another", Authorization=f"Bearer {SECRET}"),
        ],
    )
    def test_the_key_is_found_in_each_place_that_trackers_use(self, request_: Request) -> None:
        assert tracker.extract_key(request_) == SECRET

    @pytest.mark.parametrize(
        "body",
        ["", '{"token_auth":', '{"token_auth":7}', '["token_auth"]', '{"requests":"token_auth"}', "a=token_auth"],
    )
    def test_an_invalid_body_has_no_key(self, body: str) -> None:
        assert tracker.extract_key(post(body)) == ""

    def test_the_key_is_never_stored(self) -> None:
        for request in (get(f"{VIEW}&token_auth={SECRET}"), post({"requests": [f"?{VIEW}&token_auth={SECRET}"]})):
            assert SECRET not in repr(list(tracker.parse(request).events))


class TestEventIds:
    two: Final = {"requests": [f"?{VIEW}&cdt=2026-01-22+11:00:00", f"?{VIEW}&cdt=2026-01-22+11:00:01.5"]}

    @staticmethod
    def event_ids(request: Request) -> list[str | None]:
        return [event.get("event_id") for event in events(request)]

    def test_a_bulk_with_a_time_finer_than_a_second_gets_the_same_ids_again(self) -> None:
        ids = self.event_ids(post(self.two))
        assert len(set(ids)) == 2
        assert ids == self.event_ids(post(self.two))
        assert not set(ids) & set(self.event_ids(post({**self.two, "token_auth": SECRET})))

    def test_an_invalid_entry_does_not_change_the_ids_of_the_others(self) -> None:
        bulk = {"requests": [self.two["requests"][0], None, self.two["requests"][1]]}
        ids = [event["event_id"] for event in events(post(bulk)) if type(event) is dict]
        assert [event_id[-2:] for event_id in ids] == ["-0", "-2"]

    @pytest.mark.parametrize(
        "request_",
        [
            post({"requests": two["requests"][:1]}),
            post({"requests": [f"?{VIEW}&cdt=1769079600"] * 5}),
            post({"requests": [{"idsite": 1, "rec": 1, "cdt": 1769079600}, f"?{VIEW}"]}),
            post({"requests": [f"?{VIEW}"] * 2}),
            post(two, **{"Idempotency-Key": "x"}),
            get(f"{VIEW}&cdt=2026-01-22+11:00:00"),
        ],
    )
    def test_other_requests_get_no_derived_ids(self, request_: Request) -> None:
        assert set(self.event_ids(request_)) == {None}


class TestReplies:
    def test_a_single_request_is_answered_with_the_image(self) -> None:
        reply = reply_to(get(VIEW))
        assert (reply.status, reply.body, reply.content_type) == (200, TRANSPARENT_GIF, "image/gif")

    @pytest.mark.parametrize(
        "request_",
        [
            get(f"{VIEW}&send_image=0"),
            post(f"{VIEW}&send_image=0"),
            post({"idsite": 1, "rec": 1, "send_image": 0}),
            post({"requests": [f"?{VIEW}"], "send_image": 0}),
        ],
    )
    def test_the_reply_is_empty_with_send_image_0(self, request_: Request) -> None:
        assert (reply_to(request_).status, reply_to(request_).body) == (204, b"")

    def test_an_invalid_request_is_answered_with_its_error(self) -> None:
        with pytest.raises(Malformed, match="no site"):
            reply_to(get("send_image=0"), {0: Malformed("no site")}, 0)

    def test_an_empty_get_is_answered_with_a_description(self) -> None:
        reply = reply_to(get(""))
        assert (reply.status, reply.content_type) == (200, "text/plain")

    @pytest.mark.parametrize(
        ("trusted", "token", "more"),
        [(False, SECRET, {}), (True, "", {}), (True, SECRET, {"invalid_indices": [1, 3]})],
        ids=["no scope import", "no token", "importer"],
    )
    def test_the_reply_to_a_bulk_has_the_counts(self, *, trusted: bool, token: str, more: dict[str, Any]) -> None:
        request = post({"requests": [f"?{VIEW}"] * 4, "token_auth": token})._replace(is_trusted=trusted)
        reply = reply_to(request, {3: Malformed("b"), 1: Malformed("ä\n")}, 2)
        assert (reply.status, reply.content_type) == (200, "application/json")
        assert orjson.loads(reply.body) == {"status": "success", "tracked": 2, "invalid": 2, **more}
        assert reply.headers[ERROR_HEADER] == "??"

    def test_an_empty_bulk_is_valid(self) -> None:
        assert orjson.loads(reply_to(post({"requests": []}), {}, 0).body)["tracked"] == 0

    @pytest.mark.parametrize("body", [b'{"requests":[', b'{"requests":["?x"]}'])
    def test_a_rejected_bulk_gets_an_error_in_matomos_format(self, body: bytes) -> None:
        reply = tracker.reply_error(post(body), SpoolFull("no room"))
        body_ = orjson.loads(reply.body)
        assert (reply.status, body_["status"], body_["tracked"], body_["invalid"]) == (503, "error", 0, 0)
        assert "no room" in body_["message"]
        assert "Retry-After" in reply.headers

    def test_other_errors_are_problem_details(self) -> None:
        reply = tracker.reply_error(get(VIEW), Unauthorized("a key is needed"))
        assert (reply.status, reply.content_type) == (401, "application/problem+json")
        assert "WWW-Authenticate" in reply.headers


_texts = st.text(max_size=20) | st.sampled_from([VIEW, f"?{VIEW}", "?idsite=1&rec=1&cdt=x", "?%", "?a[b]=c&a=%ff"])
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | _texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["requests", "token_auth", "idsite", "rec", "url", "send_image"]), inner)
    ),
    max_leaves=12,
)
_bodies = st.binary(max_size=60) | _texts.map(str.encode) | _json.map(lambda value: json.dumps(value).encode())


@given(_bodies, _texts, st.sampled_from(["GET", "POST"]))
@example(b'{"requests": [null, null, null, null]}', "", "POST")
def test_any_request_is_parsed_or_rejected(body: bytes, query: str, method: str) -> None:
    request = post(body, query)._replace(method=method, max_events=3)
    assert type(tracker.extract_key(request)) is str
    try:
        parsed: ParsedRequest = tracker.parse(request)
    except (Malformed, PayloadTooLarge) as error:
        assert tracker.reply_error(request, error).status == error.http_status  # noqa: PT017  # the reply to the error
        return
    for event in parsed.events:
        assert isinstance(event, Event | Malformed | PayloadTooLarge)
    assert tracker.reply(request, parsed, IngestResult(0, {})).status in {200, 204}


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("action_name=%CF%F0%E8&cs=windows-1251", "При"),
        # The tracker in browsers sends UTF-8 whatever the page's charset is.
        ("action_name=%D0%9F&cs=windows-1251", "П"),
        ("action_name=%CF%F0%E8&cs=rot13", "%CF%F0%E8"),
        ("action_name=%CF%F0%E8", "%CF%F0%E8"),
    ],
)
def test_text_is_in_the_charset_of_the_page(query: str, title: str) -> None:
    for request in (get(f"{VIEW}&{query}"), post({"requests": [f"?{VIEW}&{query}"]})):
        (event,) = events(request)
        assert event["title"] == title
