"""Channels: what kind of place a visit came from."""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from metronome.enrich.referrer_sources import ReferrerSource, find_campaign_source, find_referrer_source
from metronome.enrich.referrers import extract_host

_CACHED_MAX_CHARACTERS: Final = 256
_EMAIL_MEDIUM: Final = re.compile(r"e-?mails?|e_mail|newsletters?|mailings?", re.IGNORECASE)
_HOST_PATTERN: Final = re.compile(r".*[.:].*|localhost", re.DOTALL)
_HOST_MAX_CHARACTERS: Final = 128


class Channel(NamedTuple):
    """Where a visit came from.

    ``channel`` is one of search, social, ai (an assistant's answer), email, campaign, referral, internal, direct; and
    ``referer_group`` what the place is called (Google, Facebook, …), or else its host.
    """

    channel: str | None = None
    referer_group: str | None = None


_DIRECT: Final = Channel("direct")
_INTERNAL: Final = Channel("internal")


def classify_channel(
    referrer: str | None,
    campaign_medium: str | None,
    campaign_source: str | None,
    *,
    is_internal: bool,
    has_campaign: bool,
) -> Channel:
    """Tell the channel of a visit.

    A campaign counts before the referer, for whoever made the link wrote it down. Two of them are told apart: those of
    emails by their medium, and those of assistants by their source, which puts its name to all its links.

    Args:
        referrer: as `metronome.enrich.referrers.normalise_referer` returns it; any other address will do.
        campaign_medium: what the page's address says of its campaign's medium.
        campaign_source: likewise of its source.
        is_internal: whether the referer is a page of the same site.
        has_campaign: whether the page's address names a campaign at all.

    """
    if len(referrer or "") + len(campaign_medium or "") + len(campaign_source or "") > _CACHED_MAX_CHARACTERS:
        return _classify_uncached(referrer, campaign_medium, campaign_source, is_internal, has_campaign)
    return _classify_cached(referrer, campaign_medium, campaign_source, is_internal, has_campaign)


def _classify_uncached(
    referer: str | None,
    medium: str | None,
    source: str | None,
    internal: bool,  # noqa: FBT001  # by position, a cache finds it sooner
    campaign: bool,  # noqa: FBT001
) -> Channel:
    host = "" if internal else _plausible_referrer_host(referer or "")
    origin = find_referrer_source(host) if host else None
    if campaign:
        return _classify_campaign(medium or "", find_campaign_source(source or ""), origin, host)
    if internal:
        return _INTERNAL
    if not host:
        return _DIRECT
    return Channel(*origin) if origin is not None else Channel("referral", host)


_classify_cached = lru_cache(maxsize=32_768)(_classify_uncached)


def _classify_campaign(
    medium: str, source: ReferrerSource | None, referrer_source: ReferrerSource | None, host: str
) -> Channel:
    place = source or referrer_source
    group = place.name if place is not None else host or None
    if _EMAIL_MEDIUM.fullmatch(medium.strip()):
        return Channel("email", group)
    if source is not None and source.channel == "ai":
        return Channel(*source)
    return Channel("campaign", group)


def _plausible_referrer_host(referer: str) -> str:
    """Return the host, and nothing where a referer is a word that no browser sent."""
    host = extract_host(referer)[:_HOST_MAX_CHARACTERS]
    named = _HOST_PATTERN.fullmatch(host) is not None or "/" in referer
    return host if named else ""
