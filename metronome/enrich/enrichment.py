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

from metronome.enrich.addresses import read_address
from metronome.enrich.campaigns import campaign_of
from metronome.enrich.channels import channel_of
from metronome.enrich.countries import Countries
from metronome.enrich.error_fingerprint import fold_message
from metronome.enrich.referrers import is_spam, referer_host
from metronome.enrich.user_agents import read_agent
from metronome.enrich.visitors import visitor_of

VERSION: Final = 1
"""To be raised when the same fields give something else: `metronome reenrich` then brings older documents up to it."""
VERSION_NAME: Final = "enrich_version"
KEPT_NAME: Final = "enrich_kept"
"""Names the fields, with commas between, that look like those made here but are the sender's own."""

AGENT_NAMES: Final = ("agent", "user_agent", "ua")
BOT_FIELDS: Final = ("bot", "bot_kind")
MACHINE_FIELDS: Final = (*BOT_FIELDS, "browser", "browser_version", "os", "os_version", "device")
CHANNEL_FIELDS: Final = ("channel", "referer_group")
CAMPAIGN_FIELDS: Final = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content")
COUNTRY: Final = "country"
ERROR_GROUP: Final = "error_group"
MADE: Final = frozenset({*MACHINE_FIELDS, *CHANNEL_FIELDS, *CAMPAIGN_FIELDS, COUNTRY, ERROR_GROUP})
"""All that is made of what a document holds."""
INPUTS: Final = frozenset({*AGENT_NAMES, "clientip", "referer", "referer_url", "url", "message", "status"})
"""The names of documents' fields without which there is nothing to be made."""

VISITS: Final = frozenset({"view", "download"})
"""The events that have a channel: somebody came."""
NO_SALTS: Final[Mapping[str, bytes]] = MappingProxyType({})
NOTHING: Final = (None, "")

_BELONGING: Final = {"bot": "bot_kind", "browser": "browser_version", "os": "os_version"}
"""What is said of a field's value, and so must not be of another one."""
_SPAM: Final = {"bot": "referer spam", "bot_kind": "spam"}
_REMEMBERED: Final = 16_384
_REMEMBERED_CHARACTERS: Final = 256
"""Longer texts are worked out each time: strangers must not fill the memory."""
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_STATUS: Final = re.compile(r"[1-5]\d\d", re.ASCII)


class _Address(NamedTuple):
    """What the address of a page says: its host, without ``www.``, and the campaign that led there."""

    site: str = ""
    campaign: Mapping[str, str] = MappingProxyType({})
    medium: str | None = None
    source: str | None = None


class _Origin(NamedTuple):
    """Where a visit came from."""

    channel: Mapping[str, str]
    is_spam: bool


_NOWHERE: Final = _Address()


class Enrichment:
    """What is known besides events, and what follows from both.

    Args:
        countries: tells countries of addresses; None where nobody is to know.
        spam_hosts: hosts whose referers are advertisements (see `read_spam_hosts`).
        own_hosts: hosts that are one's own (see `metronome.enrich.referrers.own_hosts`).

    """

    def __init__(
        self,
        countries: Countries | None = None,
        spam_hosts: frozenset[str] = frozenset(),
        own_hosts: frozenset[str] = frozenset(),
    ) -> None:
        self._countries = countries
        self._spam_hosts = spam_hosts
        self._own_hosts = own_hosts
        self._remembered_origin = lru_cache(_REMEMBERED)(self._origin)

    def derived(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        """Return what follows from a document, whoever made which of its fields.

        Args:
            doc: as it is to be stored, or was.

        Returns:
            Fields of `MADE`, none of them empty.

        """
        return self._derived(doc, agent_of(doc), _page_of(doc))

    def workable(self, doc: Mapping[str, Any]) -> set[str]:
        """Return the names of what can be worked out from a document, whether anything comes out or not."""
        names: set[str] = set()
        agent, referer, has_url = agent_of(doc), referer_of(doc), _page_of(doc) is not _NOWHERE
        if agent:
            names.update(MACHINE_FIELDS)
        if referer:
            names.update(BOT_FIELDS)
        if self._countries is not None and isinstance(doc.get("clientip"), str):
            names.add(COUNTRY)
        if has_url:
            names.update(CAMPAIGN_FIELDS)
        if doc.get("event") in VISITS and (agent or referer or has_url):
            names.update(CHANNEL_FIELDS)
        if doc.get("event") == "error" and _error_group(doc):
            names.add(ERROR_GROUP)
        return names

    def add(
        self, doc: dict[str, Any], kept: frozenset[str], address: object, arrival: str, salts: Mapping[str, bytes]
    ) -> None:
        """Add to a new document what follows from it, and name its visitor, where the sender did not.

        Args:
            doc: as it is to be stored.
            kept: those of `MADE` that the sender gave, be it to say that they do not hold.
            address: the whole one, as the sender gave it.
            arrival: the stamp at which the event came.
            salts: those that are known, by their UTC days.

        """
        agent, page = agent_of(doc), _page_of(doc)
        found = self._derived(doc, agent, page)
        marked = bool(found)
        if kept:
            for name in with_belonging(kept):
                found.pop(name, None)
        if agent and salts and type(address) is str and doc.get("visitor") in NOTHING:
            day = doc["@timestamp"][:10]
            salt = salts.get(day) or salts.get(arrival[:10])
            whole = read_address(address)
            if salt and whole:
                found["visitor"] = visitor = visitor_of(salt, day, whole, agent, page.site)
                if doc.get("session") in NOTHING:
                    found["session"] = visitor
        if found or marked:
            doc.update(found)
            doc[VERSION_NAME] = VERSION
            if kept:
                doc[KEPT_NAME] = ",".join(sorted(kept))

    def _derived(self, doc: Mapping[str, Any], agent: str, page: _Address) -> dict[str, Any]:
        get = doc.get
        found: dict[str, Any] = {}
        if agent:
            found |= _machine(agent) if len(agent) <= _REMEMBERED_CHARACTERS else _machine.__wrapped__(agent)
        address, event, referer = get("clientip"), get("event"), referer_of(doc)
        if address and self._countries is not None and type(address) is str:
            country = self._countries.country(address)
            if country:
                found[COUNTRY] = country
        if page.campaign:
            found |= page.campaign
        visits = event in VISITS
        if referer or (visits and (agent or page is not _NOWHERE)):
            short = len(referer) <= _REMEMBERED_CHARACTERS
            origin = (self._remembered_origin if short else self._origin)(
                referer, page.site, page.medium, page.source, bool(page.campaign)
            )
            if visits:
                found |= origin.channel
            if origin.is_spam:
                found |= _SPAM
        if event == "error":
            group = _error_group(doc)
            if group:
                found[ERROR_GROUP] = group
        return found

    def _origin(
        self,
        referer: str,
        site: str,
        medium: str | None,
        source: str | None,
        campaign: bool,  # noqa: FBT001  # by position, a cache finds it sooner
    ) -> _Origin:
        host = referer_host(referer)
        internal = bool(host) and (host == site or host in self._own_hosts)
        channel = channel_of(referer or None, medium, source, internal=internal, campaign=campaign)
        spam = bool(referer) and not internal and is_spam(referer, self._spam_hosts)
        return _Origin(_filled(channel._asdict()), spam)


def agent_of(doc: Mapping[str, Any]) -> str:
    """Return the user agent of an event, or nothing."""
    get = doc.get
    agent = get("agent") or get("user_agent") or get("ua")
    return agent if type(agent) is str else ""


def referer_of(doc: Mapping[str, Any]) -> str:
    """Return the referer of a document: the short one, or what was given where that does not count; or nothing."""
    referer = doc.get("referer") or doc.get("referer_url")
    return referer if referer and type(referer) is str else ""


def with_belonging(kept: frozenset[str]) -> frozenset[str]:
    """Return the sender's own fields together with what would be said of them."""
    return kept.union([_BELONGING[name] for name in kept if name in _BELONGING])


def _filled(fields: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value}


@lru_cache(_REMEMBERED)
def _machine(agent: str) -> Mapping[str, str]:
    return _filled(read_agent(agent)._asdict())


def _page_of(doc: Mapping[str, Any]) -> _Address:
    url = doc.get("url")
    if not url or type(url) is not str:
        return _NOWHERE
    return _remembered_page(url) if len(url) <= _REMEMBERED_CHARACTERS else _read_page(url)


def _read_page(url: str) -> _Address:
    # A path alone, as servers log it, is on no site that is known.
    site = referer_host(url) if _SCHEME.match(url) else ""
    campaign = campaign_of(url)
    return _Address(site, campaign, campaign.get("utm_medium"), campaign.get("utm_source"))


_remembered_page = lru_cache(_REMEMBERED)(_read_page)


def _error_group(doc: Mapping[str, Any]) -> str:
    message, status = doc.get("message"), doc.get("status")
    if message and type(message) is str:
        return fold_message(message)
    if type(status) in (int, str) and _STATUS.fullmatch(str(status)):
        return f"HTTP {status}"
    return ""
