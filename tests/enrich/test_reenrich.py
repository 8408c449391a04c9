"""Stored documents are enriched again: newer results replace older ones, and nothing else changes."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metronome.enrich.countries import CountryLookup
from metronome.enrich.enrichment import ENRICH_VERSION, Enrichment
from metronome.enrich.reenrich import list_changed_fields, reenrich_document
from metronome.event import DocumentContext, Event, IngestConfig, build_document
from metronome.fields import ENRICHED_FIELDS

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
SEARCH = "https://www.google.com/search?q=open+data"
HEAD = {"@timestamp": "2015-01-22T12:00:00.000Z", "event_id": "e", "@version": "1", "event": "view"}
SALTS = {"2015-01-22": b"s" * 32}


def country(code: str | None) -> CountryLookup:
    """Return an enrichment that knows one country."""
    return CountryLookup(lambda _: code)


ENRICHMENT = Enrichment(country("NL"), frozenset({"spam.example"}))
KINDS = (ENRICHMENT, Enrichment(), Enrichment(country(None)), Enrichment(None, frozenset({"google.com"})))


def again(fields: dict[str, Any], enrichment: Enrichment = ENRICHMENT) -> dict[str, Any] | None:
    found = reenrich_document(orjson.dumps({**HEAD, **fields}), enrichment)
    return None if found is None else orjson.loads(found)


def enriched(fields: dict[str, Any], enrichment: Enrichment = ENRICHMENT) -> dict[str, Any]:
    """Return the enriched document of a new event."""
    door = DocumentContext(
        HEAD["@timestamp"], None, "2030-01-01T00:00:00.000Z", IngestConfig(enrichment=enrichment), SALTS
    )
    found: dict[str, Any] = orjson.loads(build_document(Event(fields), door, "e"))
    return found


def test_reenriching_adds_everything_but_the_visitor() -> None:
    fields = {"agent": FIREFOX, "clientip": "81.2.69.0", "referer": SEARCH}
    new = enriched(fields)
    del new["visitor"], new["session"]
    stored = {**HEAD, "agent": FIREFOX, "clientip": "81.2.69.0", "referer": new["referer"], "referer_url": SEARCH}
    assert again(stored) == new


def test_current_documents_are_unchanged() -> None:
    assert again(enriched({"agent": FIREFOX, "clientip": "81.2.69.7", "referer": SEARCH})) is None
    assert again({"id": "a"}) is None


def test_newer_results_replace_older_ones() -> None:
    before = enriched({"clientip": "81.2.69.7", "agent": FIREFOX}, Enrichment(country("BE")))
    after = again(before)
    assert after == {**before, "country": "NL"}
    assert list(list_changed_fields(orjson.dumps(before), orjson.dumps(after))) == ["country"]


def test_outdated_fields_are_removed() -> None:
    before = enriched({"referer": "https://spam.example/", "agent": FIREFOX})
    assert before["bot"] == "referer spam"
    after = again(before, Enrichment())
    assert after is not None
    assert "bot" not in after
    assert "bot_kind" not in after
    assert set(list_changed_fields(orjson.dumps(before), orjson.dumps(after))) == {"bot", "bot_kind"}


def test_fields_without_inputs_are_unchanged() -> None:
    before = {
        "browser": "Firefox",
        "bot": "x",
        "country": "NL",
        "channel": "search",
        "utm_source": "s",
        "error_group": "g",
        "enrich_version": ENRICH_VERSION,
    }
    assert again(before) is None
    assert again({**before, "clientip": "81.2.69.0"}, Enrichment()) is None


def test_fields_of_the_sender_are_unchanged_in_any_version() -> None:
    own = {"agent": GOOGLEBOT, "clientip": "81.2.69.0", "country": "BE", "bot": "ours"}
    first = again(own)
    assert first is not None
    assert (first["country"], first["bot"], first["enrich_kept"]) == ("BE", "ours", "bot,country")
    assert "bot_kind" not in first
    assert again(first) is None
    assert again(enriched(own)) is None


def test_sender_that_denies_a_bot_is_respected() -> None:
    before = enriched({"agent": GOOGLEBOT, "bot": False, "clientip": "81.2.69.7"}, Enrichment(country("BE")))
    after = again(before)
    assert after is not None
    assert (after["country"], "bot" in after, "bot_kind" in after) == ("NL", False, False)


def test_older_version_is_raised() -> None:
    before = {**enriched({"agent": FIREFOX}), "enrich_version": 0}
    after = again(before)
    assert after == {**before, "enrich_version": ENRICH_VERSION}
    assert list(list_changed_fields(orjson.dumps(before), orjson.dumps(after))) == []


_texts = st.one_of(
    st.none(),
    st.text(max_size=20),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [FIREFOX, GOOGLEBOT, SEARCH, "https://spam.example/?utm_source=x", "google.com/search", "HTTP 404"]
    ),
)
_documents = st.builds(
    lambda fields, event, marks: {**HEAD, **fields, "event": event, **marks},
    st.dictionaries(
        st.sampled_from(
            sorted(
                {
                    *ENRICHED_FIELDS,
                    "agent",
                    "ua",
                    "url",
                    "referer",
                    "referer_url",
                    "clientip",
                    "message",
                    "status",
                    "note",
                }
            )
        ),
        _texts,
        max_size=12,
    ),
    st.sampled_from(["view", "download", "error", "rated"]),
    st.sampled_from(
        [
            {},
            {},
            {"enrich_version": 1},
            {"enrich_version": 0, "enrich_kept": "bot,country,what"},
            {"enrich_version": 1, "enrich_kept": 7},
        ]
    ),
)


@settings(deadline=None)  # The first agent has tables read for it.
@given(_documents, st.sampled_from(KINDS), st.sampled_from(KINDS))
def test_reenriching_is_idempotent_and_changes_enriched_fields_only(
    doc: dict[str, Any], now: Enrichment, later: Enrichment
) -> None:
    line = orjson.dumps(doc)
    assert now.derive_fields(doc).keys() <= now.list_derivable_fields(doc) <= ENRICHED_FIELDS
    first = reenrich_document(line, now)
    if first is None:
        return
    found = orjson.loads(first)
    assert list(found)[:2] == ["@timestamp", "event_id"]
    kept = set(str(doc.get("enrich_kept")).split(",")) if "enrich_version" in doc else ENRICHED_FIELDS
    own = {
        name: value
        for name, value in doc.items()
        if name not in ENRICHED_FIELDS or (name in kept and value not in (None, ""))
    }
    for mark in ("enrich_version", "enrich_kept"):
        own.pop(mark, None)
    assert {name: found[name] for name in own} == own
    assert found["enrich_version"] == ENRICH_VERSION
    assert reenrich_document(first, now) is None
    second = reenrich_document(first, later)
    assert second is None or {name: orjson.loads(second)[name] for name in own} == own


@settings(deadline=None)  # The first agent has tables read for it.
@given(st.sampled_from(KINDS), st.sampled_from([FIREFOX, GOOGLEBOT, ""]), st.sampled_from([SEARCH, "", "spam.example"]))
@pytest.mark.parametrize("own", [{}, {"country": "BE"}, {"bot": False}, {"browser": ["x"]}, {"os": None}])
def test_reenriching_a_new_document_changes_nothing(
    own: dict[str, Any], kind: Enrichment, agent: str, referer: str
) -> None:
    fields = {"agent": agent, "referer": referer, "clientip": "81.2.69.77", "url": "https://a.example/?utm_id=1"}
    assert again(enriched({**fields, **own}, kind), kind) is None
