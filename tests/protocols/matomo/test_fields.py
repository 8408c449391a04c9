"""Conversion of Matomo's parameters to the fields of an event."""

import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import Malformed
from metronome.event import DocumentContext, Event, IngestConfig, build_document
from metronome.items import ItemPattern
from metronome.protocol import Request
from metronome.protocols.matomo.fields import (
    NUMBER_PARAMETERS,
    SPECIAL_PARAMETERS,
    TEXT_PARAMETERS,
    build_event_fields,
)

ARRIVAL = "2026-01-22T12:00:00.000Z"
SENDER = "192.0.2.7"
UNTRUSTED = Request(b"", "", 1, client_ip=SENDER, received_at=ARRIVAL)
TRUSTED = UNTRUSTED._replace(is_trusted=True)
DATASETS = ItemPattern(re.compile(r"^/datasets/(?P<id>[^/.]+)(\.(?P<format>\w+))?$"))
PAGE = "https://example.org/data/wells?page=2#top"


def fields(request: Request = UNTRUSTED, /, **parameters: Any) -> dict[str, Any]:
    return build_event_fields({"idsite": "1", "rec": "1", **parameters}, request)


def without_common_fields(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in {"idsite", "clientip"}}


@pytest.mark.parametrize(("name", "field"), [*TEXT_PARAMETERS.items()])
def test_text_parameters_become_fields_unchanged(name: str, field: str) -> None:
    assert fields(**{name: "Ä /x.y"})[field] == "Ä /x.y"


@pytest.mark.parametrize(
    ("name", "field"), [(name, field) for name, field in NUMBER_PARAMETERS.items() if name != "idsite"]
)
@pytest.mark.parametrize(
    ("value", "number"), [("12", 12), ("-1.5", -1.5), (".5", 0.5), (7, 7), (2.5, 2.5), (True, 1), ("much", "much")]
)
def test_number_parameters_become_numbers_if_they_are_valid(
    name: str, field: str, value: object, number: object
) -> None:
    event = fields(**{name: value})[field]
    assert (event, type(event)) == (number, type(number))


@pytest.mark.parametrize("form", ["١٢", "1e5", "0x10", "nan", "inf", "1" * 30, "1_000", " 1"])
def test_unusual_number_formats_stay_text(form: str) -> None:
    assert fields(pf_net=form)["pf_net"] == form


@pytest.mark.parametrize(
    ("parameters", "event"),
    [
        ({"url": PAGE, "action_name": "Wells"}, {"event": "view", "id": "/data/wells", "title": "Wells", "url": PAGE}),
        ({"url": "https://example.org"}, {"event": "view", "id": "/", "url": "https://example.org"}),
        ({"url": "https://example.org/a%20b/%C3%A4"}, {"event": "view", "id": "/a b/ä"}),
        ({"url": PAGE, "download": "https://cdn.example.org/files/Wells.KML?x=1"}, {
            "event": "download", "id": "/files/Wells.KML", "format": "kml"}),
        ({"download": "https://example.org/files/wells.tar.gz"}, {"event": "download", "format": "tar.gz"}),
        ({"download": "https://example.org/files/wells.QGZ"}, {"event": "download", "format": "qgz"}),
        ({"download": "https://example.org/files/.hidden"}, {"event": "download", "id": "/files/.hidden"}),
        ({"url": PAGE, "link": "https://other.example/"}, {
            "event": "outlink", "id": "/data/wells", "link": "https://other.example/"}),
        ({"url": PAGE, "e_c": "Map", "e_a": "zoom", "e_n": "in", "e_v": "3", "ca": "1"}, {
            "event": "event", "category": "Map", "action": "zoom", "name": "in", "value": 3}),
        ({"url": PAGE, "search": "wells", "search_cat": "data", "search_count": "0"}, {
            "event": "search", "search": "wells", "search_category": "data", "search_count": 0}),
        ({"idgoal": "3", "revenue": "9.9"}, {"event": "goal", "goal": "3", "revenue": 9.9}),
        ({"idgoal": 0, "ec_id": "A1", "ec_items": '[["s","n","c",1,2]]', "ec_st": "8", "ec_tx": "1.9"}, {
            "event": "order", "order": "A1", "items": '[["s","n","c",1,2]]', "subtotal": 8, "tax": 1.9}),
        ({"idgoal": "0", "revenue": "5"}, {"event": "cart", "revenue": 5}),
        ({"url": PAGE, "_pks": "S1", "_pkn": "Map", "_pkc": '["a"]', "_pkp": "9.5"}, {
            "event": "view", "product": "S1", "product_name": "Map", "product_category": '["a"]',
            "product_price": 9.5}),
        ({"c_n": "ad", "c_p": "a.png", "c_t": "/t", "ca": "1"}, {
            "event": "content", "content": "ad", "content_piece": "a.png", "content_target": "/t"}),
        ({"c_n": "ad", "c_i": "click"}, {"event": "content", "content_interaction": "click"}),
        ({"ma_id": "v1", "ma_ti": "Film", "ma_re": "/f.mp4", "ma_mt": "video", "ma_le": "60", "ma_st": "5"}, {
            "event": "media", "media": "v1", "media_title": "Film", "media_length": 60, "media_seconds": 5}),
        ({"ca": "1", "cra": "x is null", "cra_tp": "TypeError", "cra_st": "at f", "cra_rl": "7"}, {
            "event": "error", "message": "x is null", "error_type": "TypeError", "error_line": 7}),
        ({"ca": "1", "my_plugin": "x"}, {"event": "action", "my_plugin": "x"}),
        ({"ping": "1", "url": PAGE}, {"event": "heartbeat", "id": "/data/wells"}),
        ({"ping": "0", "url": PAGE}, {"event": "view"}),
        ({"dimension7": "gold", "cvar": '{"1":["a","b"]}', "_cvar": {"1": ["a", "b"]}}, {
            "dimension7": "gold", "cvar": '{"1":["a","b"]}', "visit_cvar": '{"1":["a","b"]}'}),
        ({"pf_net": "1", "pf_srv": "2", "pf_tfr": "3", "pf_dm1": "4", "pf_dm2": "5", "pf_onl": "6", "gt_ms": "7"}, {
            "pf_net": 1, "pf_srv": 2, "pf_tfr": 3, "pf_dm1": 4, "pf_dm2": 5, "pf_onl": 6, "gt_ms": 7}),
        ({"res": "1280x1024", "h": "9", "m": "05", "s": "59", "cookie": "1", "pdf": "0"}, {
            "res": "1280x1024", "h": 9, "m": 5, "s": 59, "cookie": 1, "pdf": 0}),
        ({"uid": "ada", "_id": "0123456789abcdef"}, {"user": "ada", "visitor": "0123456789abcdef"}),
        ({"cid": "fedcba9876543210", "_id": "0123456789abcdef"}, {"visitor": "fedcba9876543210"}),
        ({"urlref": "https://news.example/a", "ua": "Mozilla/5.0", "lang": "de"}, {
            "referer": "https://news.example/a", "agent": "Mozilla/5.0", "lang": "de"}),
        ({"e_c": "half an event", "url": PAGE}, {"event": "view", "category": "half an event"}),
    ],
)  # fmt: skip
def test_the_parameters_determine_event_and_item(parameters: dict[str, Any], event: dict[str, Any]) -> None:
    event = fields(**parameters)
    assert {name: event.get(name) for name in event} == event


def test_parameters_of_the_request_are_not_stored() -> None:
    event = fields(rand="1", r="2", apiv="1", send_image="0", token_auth="1" * 32, queuedtracking="0", dp="1", url="")
    assert without_common_fields(event) == {"event": "view"}


@pytest.mark.parametrize("name", ["event", "id", "event_id", "clientip", "@timestamp", "ts", "format", "title", "bot"])
def test_an_unknown_parameter_with_a_reserved_name_is_prefixed(name: str) -> None:
    event = fields(url=PAGE, **{name: "2015-01-22"})
    assert event[f"matomo_{name}"] == "2015-01-22"
    assert (event["event"], event["id"], event["clientip"]) == ("view", "/data/wells", SENDER)
    assert "@timestamp" not in event


def test_bots_that_the_sender_wants_counted_are_not_marked_as_bots() -> None:
    door = DocumentContext(ARRIVAL, None, "2027")
    assert fields(bots="1")["bot"] is False
    assert b'"bot"' not in build_document(Event(fields(bots="1", url=PAGE)), door, "x")
    assert "bot" not in fields(bots="0")


@pytest.mark.parametrize("site", [None, "", "0", "-1", "one", "1.5", [1], {"a": 1}, "\u0661"])
def test_rejects_a_request_without_a_valid_site(site: object) -> None:
    with pytest.raises(Malformed, match="idsite"):
        build_event_fields({"idsite": site, "rec": "1"}, UNTRUSTED)


@pytest.mark.parametrize("rec", [None, "", "0", "2", [1]])
def test_rejects_a_request_without_rec_1(rec: object) -> None:
    with pytest.raises(Malformed, match="rec=1"):
        build_event_fields({"idsite": 1, "rec": rec}, UNTRUSTED)


class TestTime:
    @pytest.mark.parametrize(
        ("value", "timestamp"),
        [
            ("1769083200", ARRIVAL),
            (1769083200, ARRIVAL),
            ("2026-01-22 12:00:00", ARRIVAL),
            ("2026-01-22T12:00:00.000Z", ARRIVAL),
            ("2026-01-21 12:00:00", "2026-01-21T12:00:00.000Z"),
        ],
    )
    def test_any_sender_may_set_a_time_within_a_day(self, value: object, timestamp: str) -> None:
        assert fields(cdt=value)["@timestamp"] == timestamp

    def test_rejects_an_older_time_of_an_untrusted_sender(self) -> None:
        with pytest.raises(Malformed, match=r"2026-01-21T11:59:59\.000Z, over 24 hours ago: send a key"):
            fields(cdt="2026-01-21 11:59:59")

    def test_a_trusted_sender_may_set_any_time(self) -> None:
        assert fields(TRUSTED, cdt="2015-01-22 09:30:00")["@timestamp"] == "2015-01-22T09:30:00.000Z"

    @pytest.mark.parametrize("value", ["yesterday", [1], {"a": 1}, "1e999", True])
    def test_rejects_an_invalid_time(self, value: object) -> None:
        with pytest.raises(Malformed, match="cdt: "):
            fields(TRUSTED, cdt=value)

    @pytest.mark.parametrize("offset", ["60", "-60", 60])
    def test_cdo_is_an_offset_in_seconds(self, offset: object) -> None:
        assert fields(cdo=offset)["@timestamp"] == "2026-01-22T11:59:00.000Z"
        assert fields(cdo=offset, cdt="2026-01-22 11:00:00")["@timestamp"] == "2026-01-22T10:59:00.000Z"

    @pytest.mark.parametrize("offset", ["x", "1" * 11, "90000", "9999999999", [5]])
    def test_rejects_an_invalid_or_too_large_offset(self, offset: object) -> None:
        with pytest.raises(Malformed, match=r"cdo|over 24 hours"):
            fields(cdo=offset)


class TestClient:
    @pytest.mark.parametrize(
        ("request_", "address", "clientip"),
        [
            (UNTRUSTED, "", SENDER),
            (UNTRUSTED, "198.51.100.1", SENDER),
            (UNTRUSTED, "::ffff:192.0.2.7", "::ffff:192.0.2.7"),
            (TRUSTED, "198.51.100.1", "198.51.100.1"),
        ],
    )
    def test_only_a_trusted_sender_may_set_another_address(
        self, request_: Request, address: str, clientip: str
    ) -> None:
        assert fields(request_, cip=address)["clientip"] == clientip

    def test_a_host_name_instead_of_an_address_is_the_clienthost(self) -> None:
        assert without_common_fields(fields(TRUSTED, cip="host.example")) == {
            "event": "view",
            "clienthost": "host.example",
        }

    def test_only_a_trusted_sender_may_set_a_location(self) -> None:
        place = {"country": "de", "region": "BE", "city": "Berlin", "lat": "52.5", "long": "13.4"}
        assert without_common_fields(fields(**place)) == {"event": "view"}
        assert without_common_fields(fields(TRUSTED, **place)) == {"event": "view", **place, "lat": 52.5, "long": 13.4}

    def test_user_agent_and_language_default_to_the_headers(self) -> None:
        request = TRUSTED._replace(headers={"User-Agent": "Browser/1", "Accept-Language": "en"})
        assert without_common_fields(fields(request)) == {"event": "view", "agent": "Browser/1", "lang": "en"}
        assert without_common_fields(fields(request, ua="Other/2")) == {
            "event": "view",
            "agent": "Other/2",
            "lang": "en",
        }
        assert without_common_fields(fields(request, cip="198.51.100.1")) == {"event": "view"}

    def test_the_url_defaults_to_the_page_of_the_image(self) -> None:
        required = {"idsite": "1", "rec": "1"}
        assert build_event_fields(required, UNTRUSTED, PAGE)["id"] == "/data/wells"
        assert "url" not in build_event_fields({**required, "urlref": "https://a.example/"}, UNTRUSTED, PAGE)
        assert build_event_fields({**required, "url": "https://example.org/b"}, UNTRUSTED, PAGE)["id"] == "/b"


class TestItems:
    request = UNTRUSTED._replace(config=IngestConfig(item_pattern=DATASETS))

    @pytest.mark.parametrize(
        ("parameters", "item"),
        [
            ({"url": "https://x.example/datasets/abc"}, ("view", "abc", None)),
            ({"url": "https://x.example/about"}, ("view", None, None)),
            ({"url": "https://x.example/datasets/abc", "download": "https://x.example/datasets/abc.KML"},
             ("download", "abc", "kml")),
            ({"url": "https://x.example/datasets/abc", "download": "https://cdn.example/1.zip"},
             ("download", "abc", "zip")),
            ({"download": "https://x.example/datasets/abc"}, ("download", "abc", None)),
            ({"url": "https://x.example/datasets/abc", "link": "https://x.example/datasets/def"},
             ("outlink", "abc", None)),
        ],
    )  # fmt: skip
    def test_the_item_pattern_finds_the_item(self, parameters: dict[str, str], item: tuple[str, ...]) -> None:
        event = fields(self.request, **parameters)
        assert (event["event"], event.get("id"), event.get("format")) == item


class TestLogImporter:
    """Requests that Matomo's log importer builds from log lines."""

    @staticmethod
    def line(status: str, path: str = "/data/a", **more: str) -> dict[str, Any]:
        variables = orjson.dumps({"1": ["HTTP-code", status], "2": ["HTTP-method", more.pop("method", "GET")]}).decode()
        return fields(
            TRUSTED,
            apiv="1",
            url=f"http://localhost{path}",
            urlref="",
            cip="198.51.100.1",
            cdt="2015-01-22 09:30:00",
            dp="1",
            ua="Mozilla/5.0",
            cvar=variables,
            bw_bytes="512",
            **more,
        )

    @pytest.mark.parametrize(
        ("status", "path", "more", "item"),
        [
            ("200", "/data/a?x=1", {}, ("view", "/data/a", None, 200)),
            ("304", "/data/a", {}, ("view", "/data/a", None, 304)),
            ("200", "/data/a.kml", {}, ("download", "/data/a.kml", "kml", 200)),
            ("200", "/data/a.bin", {"download": "http://localhost/data/a.bin"},
             ("download", "/data/a.bin", "bin", 200)),
            ("404", "/no.zip", {"download": "http://localhost/no.zip", "action_name": "404/URL = x/From = y"},
             ("error", "/no.zip", None, 404)),
            ("301", "/old", {"action_name": "301/URL = x"}, ("request", "/old", None, 301)),
            ("404", "/no", {"action_name": "404 > URL = x"}, ("error", "/no", None, 404)),
            ("500", "/data/a", {}, ("error", "/data/a", None, 500)),
            ("200", "/data/a", {"method": "POST"}, ("request", "/data/a", None, 200)),
        ],
    )  # fmt: skip
    def test_log_lines_count_as_when_metronome_imports_them(
        self, status: str, path: str, more: dict[str, str], item: tuple[object, ...]
    ) -> None:
        event = self.line(status, path, **more)
        assert (event["event"], event["id"], event.get("format"), event["status"]) == item
        assert (event["bytes"], event["clientip"]) == (512, "198.51.100.1")

    def test_a_trackers_request_in_a_log_counts_as_the_tracker_sent_it(self) -> None:
        event = self.line("204", "/data/a.kml", _id="0123456789abcdef", pv_id="abcdef")
        assert (event["event"], event["id"], "status" in event) == ("view", "/data/a.kml", False)

    @pytest.mark.parametrize("variables", ["{broken", "[]", '{"1":"HTTP-code"}', '{"1":["HTTP-code","99999"]}', "7"])
    def test_other_custom_variables_set_no_status(self, variables: str) -> None:
        event = fields(TRUSTED, url=PAGE, cip="198.51.100.1", cvar=variables)
        assert (event["event"], "status" in event) == ("view", False)

    @pytest.mark.parametrize(("title", "event"), [("404/URL = %2Fx/From = ", "error"), ("404 not event", "view")])
    def test_the_title_of_an_error_page_sets_the_event(self, title: str, event: str) -> None:
        assert fields(url=PAGE, action_name=title)["event"] == event


_names = st.sampled_from(
    [*TEXT_PARAMETERS, *NUMBER_PARAMETERS, *SPECIAL_PARAMETERS, "dimension1", "event", "@timestamp"]
) | st.text(max_size=5)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20) | st.just("1"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(_names, _values, max_size=8), st.sampled_from([UNTRUSTED, TRUSTED]))
def test_any_parameters_become_an_event_or_are_rejected(parameters: dict[str, Any], request_: Request) -> None:
    try:
        event = build_event_fields({"idsite": 1, "rec": 1, **parameters}, request_)
        build_document(Event(event), DocumentContext(ARRIVAL, None, "2027"), "spare")
    except Malformed as error:
        orjson.dumps(str(error).encode(errors="backslashreplace").decode())


def test_rejects_values_that_are_nested_too_deeply() -> None:
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    with pytest.raises(Malformed, match="nested too deeply"):
        fields(cvar=deep)
