"""Channels: what kind of place a visit came from."""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from metronome.enrich.referrer_sources import Origin, origin_called, origin_of
from metronome.enrich.referrers import referer_host

_REMEMBERED_CHARACTERS: Final = 256
_EMAIL_MEDIUM: Final = re.compile(r"e-?mails?|e_mail|newsletters?|mailings?", re.IGNORECASE)
_IS_HOST: Final = re.compile(r".*[.:].*|localhost", re.DOTALL)
_LONGEST_HOST: Final = 128


class Channel(NamedTuple):
    """Where a visit came from.

    ``channel`` is one of search, social, ai (an assistant's answer), email, campaign, referral, internal, direct; and
    ``referer_group`` what the place is called (Google, Facebook, …), or else its host.
    """

    channel: str | None = None
    referer_group: str | None = None


_DIRECT: Final = Channel("direct")
_INTERNAL: Final = Channel("internal")


def channel_of(
    referer: str | None,
    url_medium: str | None,
    url_source: str | None,
    *,
    internal: bool,
    campaign: bool,
) -> Channel:
    """Tell the channel of a visit.

    A campaign counts before the referer, for whoever made the link wrote it down. Two of them are told apart: those of
    emails by their medium, and those of assistants by their source, which puts its name to all its links.

    Args:
        referer: as `metronome.enrich.referrers.normalise_referer` returns it; any other address will do.
        url_medium: what the page's address says of its campaign's medium.
        url_source: likewise of its source.
        internal: whether the referer is a page of the same site.
        campaign: whether the page's address names a campaign at all.

    """
    if len(referer or "") + len(url_medium or "") + len(url_source or "") > _REMEMBERED_CHARACTERS:
        return _channel_of(referer, url_medium, url_source, internal, campaign)
    return _remembered(referer, url_medium, url_source, internal, campaign)


def _channel_of(
    referer: str | None,
    medium: str | None,
    source: str | None,
    internal: bool,  # noqa: FBT001  # by position, a cache finds it sooner
    campaign: bool,  # noqa: FBT001
) -> Channel:
    host = "" if internal else _host_of(referer or "")
    origin = origin_of(host) if host else None
    if campaign:
        return _channel_of_campaign(medium or "", origin_called(source or ""), origin, host)
    if internal:
        return _INTERNAL
    if not host:
        return _DIRECT
    return Channel(*origin) if origin is not None else Channel("referral", host)


_remembered = lru_cache(maxsize=32_768)(_channel_of)


def _channel_of_campaign(medium: str, source: Origin | None, origin: Origin | None, host: str) -> Channel:
    place = source or origin
    group = place.name if place is not None else host or None
    if _EMAIL_MEDIUM.fullmatch(medium.strip()):
        return Channel("email", group)
    if source is not None and source.channel == "ai":
        return Channel(*source)
    return Channel("campaign", group)


def _host_of(referer: str) -> str:
    """Return the host, and nothing where a referer is a word that no browser sent."""
    host = referer_host(referer)[:_LONGEST_HOST]
    named = _IS_HOST.fullmatch(host) is not None or "/" in referer
    return host if named else ""
