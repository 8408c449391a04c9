"""Where visits come from: campaigns in page URLs, sources of referrers, and the channels that follow from both."""

import re
from functools import cache
from itertools import product
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

from metronome.enrich.caches import cached, read_table
from metronome.enrich.referrers import extract_host
from metronome.fields import restore_bytes

_CAMPAIGN_FIELDS: Final = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content")
_VALUE_MAX_CHARACTERS: Final = 200
_QUERY_MAX_CHARACTERS: Final = 4_096

_SHORT_PARAMETERS: Final = {"campaign": "campaign", "cpn": "campaign", "keyword": "term", "kwd": "term"}
_PREFIXED_PARAMETERS: Final = {**_SHORT_PARAMETERS, "source": "source", "medium": "medium", "content": "content"}
_FIELD_BY_PARAMETER: Final = {
    **{field: field for field in _CAMPAIGN_FIELDS},
    **{
        f"{prefix}_{name}": f"utm_{part}"
        for prefix, (name, part) in product(("mtm", "matomo", "pk", "piwik"), _PREFIXED_PARAMETERS.items())
    },
}
"""Google's names, and those of Matomo (https://matomo.org/faq/reports/what-is-campaign-tracking-and-why-it-is-important/),
including those from when it was called Piwik."""
_CLICK_ID_SOURCES: Final = {
    "gclid": "google",
    "gbraid": "google",
    "wbraid": "google",
    "dclid": "google",
    "msclkid": "bing",
    "yclid": "yandex",
    "ttclid": "tiktok",
    "twclid": "twitter",
    "li_fat_id": "linkedin",
    "rdt_cid": "reddit",
}
"""Parameters that advertising networks add to paid links only. Facebook's ``fbclid`` is in every link that leaves
Facebook, so it is not among them."""
_PAID_MEDIUM: Final = "cpc"

_CAMPAIGN_PATTERN: Final = re.compile(
    r"[?&#](?:utm_|mtm_|matomo_|pk_|piwik_|" + "|".join(f"{name}=" for name in _CLICK_ID_SOURCES) + ")"
)
_QUERY_START: Final = re.compile(r"[?#]")
_SEPARATORS: Final = str.maketrans("?#", "&&")

_EMAIL_MEDIUM: Final = re.compile(r"e-?mails?|e_mail|newsletters?|mailings?", re.IGNORECASE)
_HOST_PATTERN: Final = re.compile(r".*[.:].*|localhost", re.DOTALL)
_HOST_MAX_CHARACTERS: Final = 128


def parse_campaign(url: str) -> dict[str, str]:
    """Return the campaign that a page's URL names in its query or its fragment.

    If it names neither source nor medium, but has an advertising network's click ID, both follow from that.

    Args:
        url: the URL of the visited page, or its path and query.

    Returns:
        Those of ``utm_source``, ``utm_medium``, ``utm_campaign``, ``utm_term`` and ``utm_content`` that the URL has,
        truncated to 200 characters. The first parameter of a name counts.

    """
    if _CAMPAIGN_PATTERN.search(url) is None:
        return {}
    begin = _QUERY_START.search(url)
    first = begin.end() if begin else 0
    fields: dict[str, str] = {}
    click_source = None
    query = url[first : first + _QUERY_MAX_CHARACTERS].translate(_SEPARATORS)
    for name, value in parse_qsl(query, errors="surrogateescape"):
        field = _FIELD_BY_PARAMETER.get(name)
        if field is not None:
            text = restore_bytes(value.strip())[:_VALUE_MAX_CHARACTERS]
            if text:
                fields.setdefault(field, text)
        elif name in _CLICK_ID_SOURCES:
            click_source = click_source or _CLICK_ID_SOURCES[name]
    if click_source and not fields.keys() & {"utm_source", "utm_medium"}:
        fields |= {"utm_source": click_source, "utm_medium": _PAID_MEDIUM}
    return {field: fields[field] for field in _CAMPAIGN_FIELDS if field in fields}


class ReferrerSource(NamedTuple):
    """A known site or app that links to others.

    Attributes:
        channel: search, social, ai, email or referral.
        name: such as Google.

    """

    channel: str
    name: str


class Channel(NamedTuple):
    """How a visitor arrived.

    Attributes:
        channel: search, social, ai (the answer of an assistant), email, campaign, referral, internal or direct.
        referer_group: the name of the source, such as Google, or else its host.

    """

    channel: str | None = None
    referer_group: str | None = None


_DIRECT: Final = Channel("direct")
_INTERNAL: Final = Channel("internal")
_COUNTRY_DOMAIN: Final = r"(?:com?\.)?[a-z]{2,3}"
_SOURCE_PATTERNS: Final = (
    (re.compile(rf"scholar\.google\.{_COUNTRY_DOMAIN}"), ReferrerSource("search", "Google Scholar")),
    (re.compile(rf"news\.google\.{_COUNTRY_DOMAIN}"), ReferrerSource("referral", "Google News")),
    (re.compile(rf"translate\.google\.{_COUNTRY_DOMAIN}"), ReferrerSource("referral", "Google Translate")),
    (
        re.compile(rf"(?:(?:m|ipv[46]|images|encrypted|cse|lens)\.)?google\.{_COUNTRY_DOMAIN}"),
        ReferrerSource("search", "Google"),
    ),
    (re.compile(rf"(?:[a-z]{{2,3}}\.)?mail\.yahoo\.{_COUNTRY_DOMAIN}"), ReferrerSource("email", "Yahoo Mail")),
    (
        re.compile(rf"(?:(?:[a-z]{{2}}|r|m)\.)?(?:images\.)?search\.yahoo\.{_COUNTRY_DOMAIN}"),
        ReferrerSource("search", "Yahoo"),
    ),
    (re.compile(rf"(?:m\.)?yahoo\.{_COUNTRY_DOMAIN}"), ReferrerSource("search", "Yahoo")),
    (re.compile(rf"mail\.yandex\.{_COUNTRY_DOMAIN}"), ReferrerSource("email", "Yandex Mail")),
    (re.compile(rf"(?:m\.)?(?:yandex\.{_COUNTRY_DOMAIN}|ya\.ru)"), ReferrerSource("search", "Yandex")),
    (re.compile(rf"(?:[a-z-]+\.)?pinterest\.{_COUNTRY_DOMAIN}"), ReferrerSource("social", "Pinterest")),
    (re.compile(r"(?:mastodon|mstdn)\.[a-z0-9.-]+"), ReferrerSource("social", "Mastodon")),
)
"""Sources with a host in each country, or that anybody can host."""
_SOURCE_ALIASES: Final = {
    "openai": ReferrerSource("ai", "ChatGPT"),
    "mistral": ReferrerSource("ai", "Le Chat"),
    "twitter": ReferrerSource("social", "X"),
    "yahoo": ReferrerSource("search", "Yahoo"),
    "yandex": ReferrerSource("search", "Yandex"),
}


def classify_channel(
    referrer: str | None,
    campaign_medium: str | None,
    campaign_source: str | None,
    *,
    is_internal: bool,
    has_campaign: bool,
) -> Channel:
    """Return the channel of a visit.

    A campaign takes precedence over the referrer, because the author of the link stated it. Two kinds of campaigns have
    a channel of their own: those of emails, by their medium, and those of AI assistants, which name themselves as the
    source of all their links.

    Args:
        referrer: a URL, or as `metronome.enrich.referrers.normalize_referrer` returns it.
        campaign_medium: the ``utm_medium`` of the page's URL.
        campaign_source: the ``utm_source`` of the page's URL.
        is_internal: whether the referrer is a page of the same site.
        has_campaign: whether the page's URL names a campaign.

    """
    host = "" if is_internal else _plausible_referrer_host(referrer or "")
    source = find_referrer_source(host) if host else None
    if has_campaign:
        return _classify_campaign(campaign_medium or "", find_campaign_source(campaign_source or ""), source, host)
    if is_internal:
        return _INTERNAL
    if not host:
        return _DIRECT
    return Channel(*source) if source is not None else Channel("referral", host)


def _classify_campaign(
    medium: str, campaign_source: ReferrerSource | None, referrer_source: ReferrerSource | None, host: str
) -> Channel:
    source = campaign_source or referrer_source
    group = source.name if source is not None else host or None
    if _EMAIL_MEDIUM.fullmatch(medium.strip()):
        return Channel("email", group)
    if campaign_source is not None and campaign_source.channel == "ai":
        return Channel(*campaign_source)
    return Channel("campaign", group)


def _plausible_referrer_host(referrer: str) -> str:
    """Return the host of a referrer; empty for a single word, which no browser sends."""
    host = extract_host(referrer)[:_HOST_MAX_CHARACTERS]
    return host if "/" in referrer or _HOST_PATTERN.fullmatch(host) else ""


@cached()
def find_referrer_source(host: str) -> ReferrerSource | None:
    """Return the source with this host, or with the nearest domain that it belongs to; None if there is none.

    Args:
        host: in lower case and without ``www.``, or an app's name such as ``com.linkedin.android``.

    """
    sources = _sources_by_host()
    source = sources.get(host)
    if source is not None:
        return source
    for pattern, pattern_source in _SOURCE_PATTERNS:
        if pattern.fullmatch(host):
            return pattern_source
    parent = host.partition(".")[2]
    while parent and source is None:
        source = sources.get(parent)
        parent = parent.partition(".")[2]
    return source


def find_campaign_source(campaign_source: str) -> ReferrerSource | None:
    """Return the source that a campaign names, by its host (``chatgpt.com``) or its name (``perplexity``)."""
    word = campaign_source.strip().lower().replace(" ", "")
    return _sources_by_name().get(word) or (find_referrer_source(word.removeprefix("www.")) if "." in word else None)


@cache
def _sources_by_host() -> dict[str, ReferrerSource]:
    return {
        host: ReferrerSource(channel, name)
        for channel, sources in read_table("referrer_sources").items()
        for name, hosts in sources.items()
        for host in hosts
    }


@cache
def _sources_by_name() -> dict[str, ReferrerSource]:
    by_name = {source.name.lower().replace(" ", ""): source for source in _sources_by_host().values()}
    return by_name | _SOURCE_ALIASES
