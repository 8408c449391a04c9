"""Enrichment: which fields are added to which events, and which never change."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metronome.enrich.countries import CountryLookup
from metronome.enrich.enrichment import ENRICH_VERSION, Enrichment
from metronome.event import DocumentContext, Event, IngestConfig, build_document
from metronome.fields import ENRICHED_FIELDS

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1"
)
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
SEARCH = "https://www.google.com/search?q=open+data"
PAGE = "https://data.example.org/wells"


LOWLANDS = CountryLookup(lambda address: "NL" if address.startswith("81.2.69.") else None)
OWN_HOSTS = frozenset({"own.example"})
ENRICHMENT = Enrichment(LOWLANDS, frozenset({"spam.example"}), OWN_HOSTS)
CONTEXT = DocumentContext(
    received_at="2015-01-22T12:00:00.000Z",
    min_timestamp=None,
    max_timestamp="2030-01-01T00:00:00.000Z",
    config=IngestConfig(own_hosts=OWN_HOSTS, enrichment=ENRICHMENT),
)
PLAIN = DocumentContext(CONTEXT.received_at, None, CONTEXT.max_timestamp, IngestConfig(own_hosts=OWN_HOSTS))


def made(**fields: Any) -> dict[str, Any]:
    """Return the document of an event."""
    found: dict[str, Any] = orjson.loads(build_document(Event(fields), CONTEXT, "spare"))
    return found


def added(**fields: Any) -> dict[str, Any]:
    """Return the fields that enrichment adds to an event."""
    plain: dict[str, Any] = orjson.loads(build_document(Event(fields), PLAIN, "spare"))
    found = made(**fields)
    assert found.items() >= plain.items()
    return {name: value for name, value in found.items() if name not in plain}


def test_enriches_a_visit() -> None:
    found = added(agent=FIREFOX, clientip="81.2.69.77", referer=SEARCH, url=f"{PAGE}?utm_term=wells")
    assert (
        found.items()
        >= {
            "browser": "Firefox",
            "os": "Linux",
            "device": "desktop",
            "country": "NL",
            "utm_term": "wells",
            "referer_group": "Google",
            "enrich_version": ENRICH_VERSION,
        }.items()
    )
    assert found["browser_version"].startswith("140")
    assert "bot" not in found


@pytest.mark.parametrize("name", ["agent", "user_agent", "ua"])
def test_user_agent_has_several_aliases(name: str) -> None:
    assert added(**{name: IPHONE})["device"] == "mobile"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"id": "a", "event": "view", "duration": 7, "title": "T"},
        {"id": "a", "agent": "", "url": None, "clientip": "", "referer": ""},
        {"event": "rated", "url": PAGE, "message": "good", "status": 404},
        {"clientip": "198.51.100.7"},
        {"agent": 7, "url": 7, "referer_url": 7, "message": 7, "status": True},
        {"event": "error", "status": "teapot"},
    ],
)
def test_event_without_inputs_is_unchanged(fields: dict[str, Any]) -> None:
    assert added(**fields) == {}


@pytest.mark.parametrize(
    ("fields", "channel"),
    [
        ({"referer": SEARCH}, "search"),
        ({"referer": SEARCH, "format": "csv"}, "search"),
        ({"url": PAGE}, "direct"),
        ({"agent": FIREFOX}, "direct"),
        ({"referer": "https://other.example/page"}, "referral"),
        ({"referer": "https://www.own.example/a", "url": PAGE}, "internal"),
        ({"referer": "https://data.example.org/", "url": PAGE}, "internal"),
        ({"referer": "http://www.example.net/a", "url": "https://WWW.example.net:8443/b"}, "internal"),
        ({"url": f"{PAGE}?utm_source=news&utm_campaign=spring"}, "campaign"),
        ({"clientip": "81.2.69.7"}, None),
        ({"event": "rated", "referer": SEARCH, "agent": FIREFOX, "url": PAGE}, None),
    ],
)
def test_every_visit_has_a_channel(fields: dict[str, Any], channel: str | None) -> None:
    assert made(**fields).get("channel") == channel


def test_country_follows_from_the_anonymized_address() -> None:
    assert added(clientip="81.2.69.77") == {"country": "NL", "enrich_version": ENRICH_VERSION}
    assert "country" not in orjson.loads(
        build_document(
            Event({"clientip": "81.2.69.77"}),
            DocumentContext(CONTEXT.received_at, None, CONTEXT.max_timestamp),
            "spare",
        )
    )


def test_bots_are_named_unless_the_sender_objects() -> None:
    found = added(agent=GOOGLEBOT)
    assert "google" in found["bot"].lower()
    assert found["bot_kind"]
    for vouched in (False, 0, "0", "false"):
        found = made(agent=GOOGLEBOT, bot=vouched)
        assert (found.get("bot"), found.get("bot_kind"), found["enrich_kept"]) == (None, None, "bot")
    for nothing in (None, ""):
        assert made(agent=GOOGLEBOT, bot=nothing)["bot"] == added(agent=GOOGLEBOT)["bot"]
    found = made(agent=GOOGLEBOT, bot="ours")
    assert (found["bot"], found.get("bot_kind"), found["enrich_kept"]) == ("ours", None, "bot")


@pytest.mark.parametrize("event", ["view", "download", "rated"])
def test_referrer_spam_is_a_bot(event: str) -> None:
    found = made(event=event, referer="https://www.spam.example/buy?now", agent=FIREFOX)
    assert (found["bot"], found["bot_kind"]) == ("referer spam", "spam")
    assert "bot" not in made(event=event, referer="https://www.spam.example/buy", agent=FIREFOX, bot=False)


def test_errors_are_grouped_by_message_or_status() -> None:
    one, other = (made(event="error", message=f"no row {number} of table 7")["error_group"] for number in (41, 4711))
    assert one == other
    assert made(event="error", status=404)["error_group"] == "HTTP 404"
    assert made(event="error", status="503", message="")["error_group"] == "HTTP 503"
    assert "error_group" not in made(event="view", status=200, message="fine", url=PAGE)


def test_fields_of_the_sender_are_kept_and_listed() -> None:
    found = made(agent=FIREFOX, clientip="81.2.69.77", country="BE", browser="Mine", referer=SEARCH)
    assert (found["country"], found["browser"], found["os"]) == ("BE", "Mine", "Linux")
    assert found["enrich_kept"] == "browser,country"
    # The version belongs to the browser of the sender.
    assert "browser_version" not in found
    assert "enrich_kept" not in made(agent=FIREFOX, country=None, browser="")
    assert made(country="BE") == {**made(), "country": "BE"}


def test_odd_values_of_the_sender_are_not_replaced() -> None:
    found = made(agent=FIREFOX, browser=["Mine"])
    assert "browser" not in found
    assert found["params"] == {"browser": '["Mine"]'}
    assert found["enrich_kept"] == "browser"


@pytest.mark.parametrize("mark", [{"enrich_version": 1}, {"enrich_kept": "bot"}])
def test_enriched_events_are_not_enriched_again(mark: dict[str, Any]) -> None:
    assert added(agent=GOOGLEBOT, referer=SEARCH, clientip="81.2.69.7", **mark) == {}


@pytest.mark.parametrize("length", [300, 600, 100_000])
def test_long_texts_are_enriched_without_the_cache(length: int) -> None:
    long = "x" * length
    found = made(agent=f"{FIREFOX} {long}", url=f"{PAGE}/{long}", referer=f"https://data.example.org/{long}")
    assert found["channel"] == "internal"
    assert found["enrich_version"] == ENRICH_VERSION


_texts = st.one_of(
    st.none(),
    st.text(max_size=20),
    st.integers(),
    st.sampled_from([FIREFOX, GOOGLEBOT, SEARCH, PAGE, "https://spam.example/", "http://[", "://", "http://a@b:c/?#"]),
)
_telling = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("agent", "ua", "url", "referer", "referer_url", "message", "status", "event", "format", "clientip", "bot"),
        _texts,
    )
    | {"event": st.sampled_from(["view", "error", "x"]), "clientip": st.ip_addresses().map(str)},
)
_own = st.dictionaries(st.sampled_from(sorted({*ENRICHED_FIELDS, "visitor", "session", "id"})), _texts, max_size=4)


@settings(deadline=None)  # The first agent has tables read for it.
@given(_telling, _own)
def test_enrichment_never_changes_fields_of_the_sender(telling: dict[str, Any], own: dict[str, Any]) -> None:
    event = Event({**telling, **own})
    plain = orjson.loads(build_document(event, PLAIN, "spare"))
    found = orjson.loads(
        build_document(
            event,
            replace(CONTEXT, salts={"2015-01-22": b"s" * 32}),
            "spare",
        )
    )
    assert {name: found[name] for name, value in plain.items() if value not in (None, "")} == {
        name: value for name, value in plain.items() if value not in (None, "")
    }
    new = found.keys() - plain.keys()
    assert new <= {*ENRICHED_FIELDS, "visitor", "session", "enrich_version", "enrich_kept"}
    assert bool(new) == ("enrich_version" in found)
