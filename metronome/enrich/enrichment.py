"""The step that makes answers worth reading: what follows from an event's own fields is put beside them.

It works on the document as it is to be stored, with its address already cut, so that whoever has the stored document
can work out the same again (`metronome.enrich.reenrich`). Only the visitor needs what is not stored: the whole address
and the salt of the day.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from metronome.enrich.addresses import normalize_address
from metronome.enrich.campaigns import parse_campaign
from metronome.enrich.channels import classify_channel
from metronome.enrich.countries import CountryLookup
from metronome.enrich.error_fingerprint import error_fingerprint
from metronome.enrich.referrers import extract_host, is_referrer_spam
from metronome.enrich.user_agents import parse_user_agent
from metronome.enrich.visitors import hash_visitor

ENRICH_VERSION: Final = 1
"""To be raised when the same fields give something else: `metronome reenrich` then brings older documents up to it."""
ENRICH_VERSION_FIELD: Final = "enrich_version"
ENRICH_KEPT_FIELD: Final = "enrich_kept"
"""Names the fields, with commas between, that look like those made here but are the sender's own."""

BOT_FIELDS: Final = ("bot", "bot_kind")
USER_AGENT_RESULT_FIELDS: Final = (*BOT_FIELDS, "browser", "browser_version", "os", "os_version", "device")
CHANNEL_FIELDS: Final = ("channel", "referer_group")
CAMPAIGN_FIELDS: Final = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content")
COUNTRY_FIELD: Final = "country"
ERROR_GROUP_FIELD: Final = "error_group"
VISIT_EVENTS: Final = frozenset({"view", "download"})
"""The events that have a channel: somebody came."""
NO_SALTS: Final[Mapping[str, bytes]] = MappingProxyType({})
EMPTY_VALUES: Final = (None, "")

_DEPENDENT_FIELDS: Final = {"bot": "bot_kind", "browser": "browser_version", "os": "os_version"}
"""What is said of a field's value, and so must not be of another one."""
_SPAM_BOT_FIELDS: Final = {"bot": "referer spam", "bot_kind": "spam"}
_CACHE_SIZE: Final = 16_384
_CACHED_MAX_CHARACTERS: Final = 256
"""Longer texts are worked out each time: strangers must not fill the memory."""
_SCHEME_PATTERN: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_STATUS_PATTERN: Final = re.compile(r"[1-5]\d\d", re.ASCII)


class _PageInfo(NamedTuple):
    """What the address of a page says: its host, without ``www.``, and the campaign that led there."""

    site: str = ""
    campaign: Mapping[str, str] = MappingProxyType({})
    medium: str | None = None
    source: str | None = None


class _ReferrerInfo(NamedTuple):
    """Where a visit came from."""

    channel: Mapping[str, str]
    is_spam: bool


_NO_PAGE: Final = _PageInfo()


class Enrichment:
    """What is known besides events, and what follows from both.

    Args:
        countries: tells countries of addresses; None where nobody is to know.
        spam_hosts: hosts whose referers are advertisements (see `read_spam_hosts`).
        own_hosts: hosts that are one's own (see `metronome.enrich.referrers.own_hosts`).

    """

    def __init__(
        self,
        countries: CountryLookup | None = None,
        spam_hosts: frozenset[str] = frozenset(),
        own_hosts: frozenset[str] = frozenset(),
    ) -> None:
        self._countries = countries
        self._spam_hosts = spam_hosts
        self._own_hosts = own_hosts
        self._classify_referrer_cached = lru_cache(_CACHE_SIZE)(self._classify_referrer)

    def derive_fields(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        """Return what follows from a document, whoever made which of its fields.

        Args:
            doc: as it is to be stored, or was.

        Returns:
            Those of `metronome.fields.ENRICHED_FIELDS`, none of them empty.

        """
        return self._derive_fields(doc, get_user_agent(doc), _get_page(doc))

    def list_derivable_fields(self, doc: Mapping[str, Any]) -> set[str]:
        """Return the names of what can be worked out from a document, whether anything comes out or not."""
        names: set[str] = set()
        agent, referer, has_url = get_user_agent(doc), get_referrer(doc), _get_page(doc) is not _NO_PAGE
        if agent:
            names.update(USER_AGENT_RESULT_FIELDS)
        if referer:
            names.update(BOT_FIELDS)
        if self._countries is not None and isinstance(doc.get("clientip"), str):
            names.add(COUNTRY_FIELD)
        if has_url:
            names.update(CAMPAIGN_FIELDS)
        if doc.get("event") in VISIT_EVENTS and (agent or referer or has_url):
            names.update(CHANNEL_FIELDS)
        if doc.get("event") == "error" and _error_group(doc):
            names.add(ERROR_GROUP_FIELD)
        return names

    def enrich(
        self,
        doc: dict[str, Any],
        sender_fields: frozenset[str],
        address: object,
        received_at: str,
        salts: Mapping[str, bytes],
    ) -> None:
        """Add to a new document what follows from it, and name its visitor, where the sender did not.

        Args:
            doc: as it is to be stored.
            sender_fields: those of `ENRICHED_FIELDS` that the sender gave, be it to say that they do not hold.
            address: the whole one, as the sender gave it.
            received_at: the stamp at which the event came.
            salts: those that are known, by their UTC days.

        """
        agent, page = get_user_agent(doc), _get_page(doc)
        found = self._derive_fields(doc, agent, page)
        marked = bool(found)
        if sender_fields:
            for name in with_dependent_fields(sender_fields):
                found.pop(name, None)
        if agent and salts and type(address) is str and doc.get("visitor") in EMPTY_VALUES:
            day = doc["@timestamp"][:10]
            salt = salts.get(day) or salts.get(received_at[:10])
            whole = normalize_address(address)
            if salt and whole:
                found["visitor"] = visitor = hash_visitor(salt, day, whole, agent, page.site)
                if doc.get("session") in EMPTY_VALUES:
                    found["session"] = visitor
        if found or marked:
            doc.update(found)
            doc[ENRICH_VERSION_FIELD] = ENRICH_VERSION
            if sender_fields:
                doc[ENRICH_KEPT_FIELD] = ",".join(sorted(sender_fields))

    def _derive_fields(self, doc: Mapping[str, Any], agent: str, page: _PageInfo) -> dict[str, Any]:
        get = doc.get
        found: dict[str, Any] = {}
        if agent:
            found |= (
                _user_agent_fields(agent)
                if len(agent) <= _CACHED_MAX_CHARACTERS
                else _user_agent_fields.__wrapped__(agent)
            )
        address, event, referer = get("clientip"), get("event"), get_referrer(doc)
        if address and self._countries is not None and type(address) is str:
            country = self._countries.find_country(address)
            if country:
                found[COUNTRY_FIELD] = country
        if page.campaign:
            found |= page.campaign
        visits = event in VISIT_EVENTS
        if referer or (visits and (agent or page is not _NO_PAGE)):
            short = len(referer) <= _CACHED_MAX_CHARACTERS
            origin = (self._classify_referrer_cached if short else self._classify_referrer)(
                referer, page.site, page.medium, page.source, bool(page.campaign)
            )
            if visits:
                found |= origin.channel
            if origin.is_spam:
                found |= _SPAM_BOT_FIELDS
        if event == "error":
            group = _error_group(doc)
            if group:
                found[ERROR_GROUP_FIELD] = group
        return found

    def _classify_referrer(
        self,
        referer: str,
        site: str,
        medium: str | None,
        source: str | None,
        campaign: bool,  # noqa: FBT001  # by position, a cache finds it sooner
    ) -> _ReferrerInfo:
        host = extract_host(referer)
        internal = bool(host) and (host == site or host in self._own_hosts)
        channel = classify_channel(referer or None, medium, source, is_internal=internal, has_campaign=campaign)
        spam = bool(referer) and not internal and is_referrer_spam(referer, self._spam_hosts)
        return _ReferrerInfo(_drop_empty(channel._asdict()), spam)


def get_user_agent(doc: Mapping[str, Any]) -> str:
    """Return the user agent of an event, or nothing."""
    get = doc.get
    agent = get("agent") or get("user_agent") or get("ua")
    return agent if type(agent) is str else ""


def get_referrer(doc: Mapping[str, Any]) -> str:
    """Return the referer of a document: the short one, or what was given where that does not count; or nothing."""
    referer = doc.get("referer") or doc.get("referer_url")
    return referer if referer and type(referer) is str else ""


def with_dependent_fields(field_names: frozenset[str]) -> frozenset[str]:
    """Return the sender's own fields together with what would be said of them."""
    return field_names.union([_DEPENDENT_FIELDS[name] for name in field_names if name in _DEPENDENT_FIELDS])


def _drop_empty(fields: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value}


@lru_cache(_CACHE_SIZE)
def _user_agent_fields(agent: str) -> Mapping[str, str]:
    return _drop_empty(parse_user_agent(agent)._asdict())


def _get_page(doc: Mapping[str, Any]) -> _PageInfo:
    url = doc.get("url")
    if not url or type(url) is not str:
        return _NO_PAGE
    return _parse_page_cached(url) if len(url) <= _CACHED_MAX_CHARACTERS else _parse_page(url)


def _parse_page(url: str) -> _PageInfo:
    # A path alone, as servers log it, is on no site that is known.
    site = extract_host(url) if _SCHEME_PATTERN.match(url) else ""
    campaign = parse_campaign(url)
    return _PageInfo(site, campaign, campaign.get("utm_medium"), campaign.get("utm_source"))


_parse_page_cached = lru_cache(_CACHE_SIZE)(_parse_page)


def _error_group(doc: Mapping[str, Any]) -> str:
    message, status = doc.get("message"), doc.get("status")
    if message and type(message) is str:
        return error_fingerprint(message)
    if type(status) in (int, str) and _STATUS_PATTERN.fullmatch(str(status)):
        return f"HTTP {status}"
    return ""
