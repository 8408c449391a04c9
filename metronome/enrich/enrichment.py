"""Enrichment: add fields to a document that follow from its other fields.

Enrichment works on the document as it is stored, with its IP address truncated, so that the same result can be computed
from a stored document again (`metronome.enrich.reenrich`). Only the visitor needs what is not stored: the whole IP
address and the salt of the day.
"""

import re
from collections.abc import Mapping
from datetime import date, timedelta
from functools import lru_cache, partial
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from metronome.enrich.addresses import normalize_address
from metronome.enrich.caches import CACHED_MAX_CHARACTERS, cached
from metronome.enrich.channels import classify_channel, parse_campaign
from metronome.enrich.countries import CountryLookup
from metronome.enrich.error_fingerprint import error_fingerprint
from metronome.enrich.recent_visitors import FIRST_MINUTES, LAST_MINUTES, RecentVisitors
from metronome.enrich.referrers import extract_host, is_referrer_spam
from metronome.enrich.user_agents import parse_user_agent

ENRICH_VERSION: Final = 2
"""Raise it when the same fields lead to a different result: `metronome reenrich` then updates older documents."""
ENRICH_VERSION_FIELD: Final = "enrich_version"
ENRICH_KEPT_FIELD: Final = "enrich_kept"
"""Lists, with commas, the fields that enrichment could have added but the sender set."""

BOT_FIELDS: Final = ("bot", "bot_kind")
USER_AGENT_RESULT_FIELDS: Final = (*BOT_FIELDS, "browser", "browser_version", "os", "os_version", "device")
CHANNEL_FIELDS: Final = ("channel", "referer_group")
CAMPAIGN_FIELDS: Final = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content")
COUNTRY_FIELD: Final = "country"
ERROR_GROUP_FIELD: Final = "error_group"

VISIT_EVENTS: Final = frozenset({"view", "download"})
"""The events that get a channel."""
NO_SALTS: Final[Mapping[str, bytes]] = MappingProxyType({})
EMPTY_VALUES: Final = (None, "")

_DEPENDENT_FIELDS: Final = {"bot": "bot_kind", "browser": "browser_version", "os": "os_version"}
"""Fields that describe the value of another field, and must not be combined with a value from elsewhere."""
_SPAM_BOT_FIELDS: Final = {"bot": "referer spam", "bot_kind": "spam"}
_CACHE_SIZE: Final = 16_384
_SCHEME_PATTERN: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_STATUS_PATTERN: Final = re.compile(r"[1-5]\d\d", re.ASCII)
_VISITOR_BYTES: Final = 8
_DAY: Final = timedelta(days=1)
_SALT_MAX_BYTES: Final = blake2b.MAX_KEY_SIZE


class _PageInfo(NamedTuple):
    """What follows from a page's URL: its host without ``www.``, and the campaign."""

    site: str = ""
    campaign: Mapping[str, str] = MappingProxyType({})
    medium: str | None = None
    source: str | None = None


class _ReferrerInfo(NamedTuple):
    """What follows from a referrer and a page."""

    channel: Mapping[str, str]
    is_spam: bool


_NO_PAGE: Final = _PageInfo()


class Enrichment:
    """Compute fields from events and from lists of the operator.

    Args:
        countries: finds the country of an IP address; None to add no countries.
        spam_hosts: hosts of referrer spam (see `metronome.enrich.referrers.parse_spam_hosts`).
        own_hosts: hosts of the operator's sites (see `metronome.enrich.referrers.normalize_own_hosts`).

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
        self._referrer_info = cached(CACHED_MAX_CHARACTERS, _CACHE_SIZE)(self._classify_referrer)

    def derive_fields(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that follow from a stored document, even if the sender set them.

        Returns:
            Those of `metronome.fields.ENRICHED_FIELDS` that have a value.

        """
        fields: dict[str, Any] = {}
        self._add_fields(doc, get_user_agent(doc), _get_page(doc), fields)
        return fields

    def list_derivable_fields(self, doc: Mapping[str, Any]) -> set[str]:
        """Return the names of the fields that can follow from a document, with or without a value."""
        names: set[str] = set()
        user_agent, referrer, has_url = get_user_agent(doc), get_referrer(doc), _get_page(doc) is not _NO_PAGE
        if user_agent:
            names.update(USER_AGENT_RESULT_FIELDS)
        if referrer:
            names.update(BOT_FIELDS)
        if self._countries is not None and isinstance(doc.get("clientip"), str):
            names.add(COUNTRY_FIELD)
        if has_url:
            names.update(CAMPAIGN_FIELDS)
        if doc.get("event") in VISIT_EVENTS and (user_agent or referrer or has_url):
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
        recent_visitors: RecentVisitors | None = None,
    ) -> None:
        """Add to a new document the fields that follow from it, and its visitor, unless the sender set them.

        Args:
            doc: the document as it will be stored.
            sender_fields: the enriched fields that the sender set.
            address: the whole IP address as the sender gave it.
            received_at: the timestamp at which the event was received.
            salts: the known salts by UTC day.
            recent_visitors: finds visitors who were there before midnight; None to begin anew with each day.

        """
        user_agent, page = get_user_agent(doc), _get_page(doc)
        # Nothing of what follows depends on a field that is added.
        fields = doc if not sender_fields else {}
        is_enriched = self._add_fields(doc, user_agent, page, fields)
        if sender_fields:
            for name in with_dependent_fields(sender_fields):
                fields.pop(name, None)
        has_visitor = False
        if user_agent and salts and type(address) is str and doc.get("visitor") in EMPTY_VALUES:
            day = doc["@timestamp"][:10]
            salt = salts.get(day) or salts.get(received_at[:10])
            whole_address = normalize_address(address)
            if salt and whole_address:
                visitor = hash_visitor(salt, day, whole_address, user_agent, page.site)
                if recent_visitors is not None and not FIRST_MINUTES <= doc["@timestamp"][11:16] < LAST_MINUTES:
                    find_earlier = partial(
                        _hash_earlier_visitor, salts, received_at[:10], day, whole_address, user_agent, page.site
                    )
                    visitor = recent_visitors.resolve(visitor, doc["@timestamp"], find_earlier)
                fields["visitor"] = visitor
                has_visitor = True
                if doc.get("session") in EMPTY_VALUES:
                    fields["session"] = visitor
        if has_visitor or is_enriched:
            if sender_fields:
                doc.update(fields)
            doc[ENRICH_VERSION_FIELD] = ENRICH_VERSION
            if sender_fields:
                doc[ENRICH_KEPT_FIELD] = ",".join(sorted(sender_fields))

    def _add_fields(self, doc: Mapping[str, Any], user_agent: str, page: _PageInfo, fields: dict[str, Any]) -> bool:
        """Add to *fields*, which may be *doc*, those that follow from a document; return whether there are any."""
        # A rule that is changed here must also be changed in `list_derivable_fields`.
        get = doc.get
        address, event, referrer = get("clientip"), get("event"), get_referrer(doc)
        has_fields = False
        if user_agent and (of_agent := _user_agent_fields(user_agent)):
            fields.update(of_agent)
            has_fields = True
        if address and self._countries is not None and type(address) is str:
            country = self._countries.find_country(address)
            if country:
                fields[COUNTRY_FIELD] = country
                has_fields = True
        if page.campaign:
            fields.update(page.campaign)
            has_fields = True
        is_visit = event in VISIT_EVENTS
        if referrer or (is_visit and (user_agent or page is not _NO_PAGE)):
            info = self._referrer_info(referrer, page.site, page.medium, page.source, bool(page.campaign))
            if is_visit and info.channel:
                fields.update(info.channel)
                has_fields = True
            if info.is_spam:
                fields.update(_SPAM_BOT_FIELDS)
                has_fields = True
        if event == "error" and (group := _error_group(doc)):
            fields[ERROR_GROUP_FIELD] = group
            has_fields = True
        return has_fields

    def _classify_referrer(
        self,
        referrer: str,
        site: str,
        medium: str | None,
        source: str | None,
        has_campaign: bool,  # noqa: FBT001  # a cache finds positional arguments sooner
    ) -> _ReferrerInfo:
        host = extract_host(referrer)
        is_internal = bool(host) and (host == site or host in self._own_hosts)
        channel = classify_channel(referrer or None, medium, source, is_internal=is_internal, has_campaign=has_campaign)
        is_spam = bool(referrer) and not is_internal and is_referrer_spam(referrer, self._spam_hosts)
        return _ReferrerInfo(_drop_empty(channel._asdict()), is_spam)


def get_user_agent(doc: Mapping[str, Any]) -> str:
    """Return the user agent of a document; empty if it has none."""
    get = doc.get
    # `metronome.fields.USER_AGENT_FIELDS`, spelled out for speed.
    user_agent = get("agent") or get("user_agent") or get("ua")
    return user_agent if type(user_agent) is str else ""


def get_referrer(doc: Mapping[str, Any]) -> str:
    """Return the referrer of a document: normalized, or as the sender gave it; empty if it has none."""
    referrer = doc.get("referer") or doc.get("referer_url")
    return referrer if referrer and type(referrer) is str else ""


def with_dependent_fields(field_names: frozenset[str]) -> frozenset[str]:
    """Return these fields and those that describe their values."""
    return field_names.union([_DEPENDENT_FIELDS[name] for name in field_names if name in _DEPENDENT_FIELDS])


def hash_visitor(salt: bytes, day: str, ip_address: str, user_agent: str, site: str) -> str:
    """Return the ID of a visitor, who is identified for one UTC day, without cookies.

    It is a keyed BLAKE2b hash (RFC 7693). Without the salt, which is destroyed after a few days, it is not possible to
    find the IP address by trying all of them, or to link the IDs of different days.

    Args:
        salt: the secret of the day, of about 32 bytes; only the first 64 bytes count.
        day: the day of the salt, such as ``2015-01-31``.
        ip_address: the whole IP address.
        user_agent: the user agent.
        site: the host of the visited page, so that visitors of different sites cannot be linked.

    Returns:
        16 hexadecimal digits.

    """
    # The user agent is last because it alone can contain the separator.
    text = f"{day}\0{ip_address}\0{site}\0{user_agent}"
    return blake2b(text.encode("utf-8", "replace"), digest_size=_VISITOR_BYTES, key=salt[:_SALT_MAX_BYTES]).hexdigest()


def _hash_earlier_visitor(
    salts: Mapping[str, bytes], received_day: str, day: str, address: str, user_agent: str, site: str
) -> str | None:
    """Return the ID of the same person on the day before; None without a salt."""
    earlier = _day_before(day)
    salt = salts.get(earlier) or salts.get(received_day)
    return hash_visitor(salt, earlier, address, user_agent, site) if salt else None


@lru_cache(maxsize=64)
def _day_before(day: str) -> str:
    return (date.fromisoformat(day) - _DAY).isoformat()


def _drop_empty(fields: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value}


@cached(CACHED_MAX_CHARACTERS, _CACHE_SIZE)
def _user_agent_fields(user_agent: str) -> Mapping[str, str]:
    return _drop_empty(parse_user_agent(user_agent)._asdict())


def _get_page(doc: Mapping[str, Any]) -> _PageInfo:
    url = doc.get("url")
    return _parse_page(url) if url and type(url) is str else _NO_PAGE


@cached(CACHED_MAX_CHARACTERS, _CACHE_SIZE)
def _parse_page(url: str) -> _PageInfo:
    # Servers log a path without a host.
    site = extract_host(url) if _SCHEME_PATTERN.match(url) else ""
    campaign = parse_campaign(url)
    return _PageInfo(site, campaign, campaign.get("utm_medium"), campaign.get("utm_source"))


def _error_group(doc: Mapping[str, Any]) -> str:
    message, status = doc.get("message"), doc.get("status")
    if message and type(message) is str:
        return error_fingerprint(message)
    if type(status) in (int, str) and _STATUS_PATTERN.fullmatch(str(status)):
        return f"HTTP {status}"
    return ""
