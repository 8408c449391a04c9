"""Campaigns: what the address of a page says of the link that led there."""

import re
from itertools import product
from typing import Final
from urllib.parse import parse_qsl

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
which it also takes as it wrote them when it was called Piwik."""
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
"""Advertisers put these to the links of what they are paid for, and to no other. Facebook's ``fbclid`` is not among
them: it stands in every link that leaves Facebook."""
_PAID_MEDIUM: Final = "cpc"

_CAMPAIGN_PATTERN: Final = re.compile(
    r"[?&#](?:utm_|mtm_|matomo_|pk_|piwik_|" + "|".join(f"{name}=" for name in _CLICK_ID_SOURCES) + ")"
)
_QUERY_START: Final = re.compile(r"[?#]")
_SEPARATORS: Final = str.maketrans("?#", "&&")


def parse_campaign(url: str) -> dict[str, str]:
    """Return the campaign that an address names in its query or its fragment.

    Where it names no source and medium, but somebody's click on an advertisement, these are told from that.

    Args:
        url: the address of the page that was visited; a path with its query will do.

    Returns:
        Those of ``utm_source``, ``utm_medium``, ``utm_campaign``, ``utm_term`` and ``utm_content`` that are there, each
        of at most 200 characters; the first of two of one name counts.

    """
    if _CAMPAIGN_PATTERN.search(url) is None:
        return {}
    begin = _QUERY_START.search(url)
    first = begin.end() if begin else 0
    found: dict[str, str] = {}
    clicked = None
    for name, value in parse_qsl(url[first : first + _QUERY_MAX_CHARACTERS].translate(_SEPARATORS), errors="replace"):
        field = _FIELD_BY_PARAMETER.get(name)
        if field is not None:
            text = value.strip()[:_VALUE_MAX_CHARACTERS]
            if text:
                found.setdefault(field, text)
        elif name in _CLICK_ID_SOURCES:
            clicked = clicked or _CLICK_ID_SOURCES[name]
    if clicked and not found.keys() & {"utm_source", "utm_medium"}:
        found |= {"utm_source": clicked, "utm_medium": _PAID_MEDIUM}
    return {field: found[field] for field in _CAMPAIGN_FIELDS if field in found}
