"""Robots by their user agents: which one it is, and what it is for.

The names come from two lists that others keep: ``crawler-user-agents``, which also says what each robot is for, and
COUNTER's own list (``counter-robots``), whose robots data repositories have to leave out. What neither knows is told by
its words (`MyBot/1.0`) or by the address that robots leave of their owners.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

import orjson
from ua_parser_rs import UserAgentExtractor


class Robot(NamedTuple):
    """A robot: its name, and what it is for.

    The kind is one of search, ai, seo, social (previews of links), monitor, feed, archive, other.
    """

    name: str
    kind: str


class _Sign(NamedTuple):
    """A pattern of a list, and the kind of the robots that have it; None where the list does not say."""

    pattern: str
    kind: str | None


_KINDS_BY_TAG: Final = (
    ("ai-crawler", "ai"),
    ("search-engine", "search"),
    ("social-preview", "social"),
    ("feed-reader", "feed"),
    ("archiver", "archive"),
    ("monitoring", "monitor"),
)
"""What the list's tags are here, the telling ones first. Its ``seo`` is a pool of all that fits nowhere else."""
_SEO: Final = re.compile(r"\bSEO\b|backlink|search engine optimi", re.IGNORECASE)
_LIBRARY_TAG: Final = "http-library"
_LIBRARIES_OF_ROBOTS: Final = re.compile(r"crawl|spider|bot|scrapy|httrack|larbin|colly", re.IGNORECASE)
_KINDS_BY_NAME: Final = {
    "ahrefsbot": "seo",
    "barkrowler": "seo",
    "blexbot": "seo",
    "dataforseobot": "seo",
    "dotbot": "seo",
    "googleother": "other",
    "mj12bot": "seo",
    "rogerbot": "seo",
    "semrushbot": "seo",
    "serpstatbot": "seo",
    "siteauditbot": "seo",
    "zoominfobot": "seo",
}
"""Where the list says nothing or something else."""
_NOT_ONLY_ROBOTS: Final = frozenset(
    {
        r"008\/",
        r"^Silk\/",
        r"AP3A\.240617\.008",
        "Butterfly",
        r"Code\/1\.",
        r"Fetch\/",
        "Fluid",
        "MetaIAB Facebook",
        "Sonic",
        "TSM-turingos",
        r"Trae\/",
        "Viber",
        "speedy",
        # Of COUNTER's list:
        r"[^a]fish",
        r"^MSIE",
        r"ELinks\/",
        "Wanadoo",
        "baidu",
        "bot",
        "cfnetwork",
        "combine",
        "core",
        "cursor",
        "custo",
        "docomo",
        "google",
        "libhttp",
        "libwww",
        r"mail\.ru",
        "motor",
        "myweb",
        r"ng\/2\.",
        "pioneer",
        "sunrise",
        "titan",
        "yahoo",
        "yandex",
        "zeus",
    }
)
"""Patterns that people's programs, phones and providers have too. The robots of Google and the like are in the lists
by their own names besides, and any other ``bot`` is found as a word."""

_WORD: Final = re.compile(
    r"(?<!cu)(?:bot|crawler|crawl|spider|scraper|fetcher|archiver|indexer|harvester|headless|health.?check(?:er)?|monitor|monitoring|"
    r"link.?check(?:er)?|link.?preview|uptime|validator)(?![a-z])",
    re.IGNORECASE | re.ASCII,
)
_KINDS_BY_WORD: Final = (
    (re.compile(r"monitor|uptime|status|health", re.IGNORECASE), "monitor"),
    (re.compile(r"feed|rss", re.IGNORECASE), "feed"),
    (re.compile(r"archiv", re.IGNORECASE), "archive"),
    (re.compile(r"preview", re.IGNORECASE), "social"),
    (re.compile(r"seo|backlink", re.IGNORECASE), "seo"),
)
_OWNER: Final = re.compile(r"[+;( ]https?://(?:www\.)?([^\s/;,()]+)", re.IGNORECASE)
_PRODUCT: Final = re.compile(r"(?<![\w.-])([A-Za-z][\w.!-]{1,60})/v?\d", re.ASCII)
_PARTS_OF_BROWSERS: Final = """
    applewebkit chrome chromium edg edge epiphany firefox gecko khtml konqueror mobile mozilla opera opr presto safari
    seamonkey trident ubuntu version
"""
_NO_NAMES: Final = frozenset(_PARTS_OF_BROWSERS.split())
_LETTERS: Final = re.compile(r"[A-Za-z]*", re.ASCII)
_LETTERS_AT_END: Final = re.compile(r"[A-Za-z]{0,40}\Z", re.ASCII)
_TOKEN_AT_END: Final = re.compile(r"[\w.!-]{0,40}\Z", re.ASCII)
_NAME: Final = re.compile(r"[\w.+!-]+(?: [\w.+!-]+)*", re.ASCII)
_LONGEST_NAME: Final = 64


def read_robot(text: str) -> Robot | None:
    """Return the robot that a user agent names: one of the list, or one that calls itself a bot.

    Args:
        text: the user agent, of at most some hundred characters and without lone surrogates.

    """
    extractor, signs = _known_robots()
    found = extractor.extract(text)
    if found is None:
        return _by_word(text)
    name = _whole_name(text, found.family)
    return Robot(name, _KINDS_BY_NAME.get(name.lower()) or signs[int(found.major or 0)].kind or "other")


def read_other_robot(text: str) -> Robot | None:
    """Return the robot of a user agent that `read_robot` does not know, and that is no tool of a person's.

    COUNTER's list (Code of Practice for Research Data, https://doi.org/10.7287/peerj.preprints.26505v1) is used as it
    is, but that its bare words have to stand alone, and that those of `_NOT_ONLY_ROBOTS` are left out: ``motor`` is
    in ``motorola``.

    Args:
        text: as that of `read_robot`.

    """
    extractor, _ = _counter_robots()
    found = extractor.extract(text)
    if found is not None:
        return Robot(_whole_name(text, found.family), "other")
    owner = _OWNER.search(text)
    if owner is None:
        return None
    products = [name for name in _PRODUCT.findall(text) if name.lower() not in _NO_NAMES]
    name = (products[0] if products else owner[1])[:_LONGEST_NAME]
    return Robot(name, _kind_by_word(name))


@cache
def _known_robots() -> tuple[UserAgentExtractor, list[_Sign]]:
    signs = list(_signs_of_list())
    return _extractor([sign.pattern for sign in signs]), signs


@cache
def _counter_robots() -> tuple[UserAgentExtractor, list[str]]:
    lines = files("counter_robots").joinpath("data", "robot.txt").read_text().splitlines()
    used = [line for line in lines if line and line not in _NOT_ONLY_ROBOTS]
    patterns = [rf"\b{line}\b" if line.isalnum() else line for line in used]
    return _extractor(patterns), patterns


def _signs_of_list() -> Iterator[_Sign]:
    robots = orjson.loads(files("crawleruseragents").joinpath("crawler-user-agents.json").read_bytes())
    for robot in robots:
        pattern, tags = robot["pattern"], robot.get("tags", ())
        if pattern in _NOT_ONLY_ROBOTS or (_LIBRARY_TAG in tags and _LIBRARIES_OF_ROBOTS.search(pattern) is None):
            continue
        kind = next((kind for tag, kind in _KINDS_BY_TAG if tag in tags), None)
        yield _Sign(pattern, kind or ("seo" if _SEO.search(robot.get("description", "")) else None))


def _extractor(patterns: list[str]) -> UserAgentExtractor:
    """Put patterns together so that a text is held against all of them at once, in time linear in its length.

    The engine is that of the user agent parser; what it calls the family is the text that matched, and the major
    version is the place in the list.
    """
    return UserAgentExtractor(
        (f"({pattern})", None, str(place), None, None, None) for place, pattern in enumerate(patterns)
    )


def _by_word(text: str) -> Robot | None:
    found = _WORD.search(text)
    if found is None or _is_phone(text, found):
        return None
    before = _TOKEN_AT_END.search(text, max(0, found.start() - _LONGEST_NAME), found.start())
    name = f"{before[0] if before else ''}{found[0]}".lstrip("-._!")
    return Robot(name, _KINDS_BY_NAME.get(name.lower()) or _kind_by_word(text))


def _is_phone(text: str, found: re.Match[str]) -> bool:
    """Tell whether a word is part of a phone's name (``M bot 60``): robots write their version after theirs."""
    return "Android" in text and text[found.end() : found.end() + 1] != "/"


def _kind_by_word(text: str) -> str:
    return next((kind for pattern, kind in _KINDS_BY_WORD if pattern.search(text)), "other")


def _whole_name(text: str, part: str) -> str:
    """Return the name that a robot gives itself, of which a pattern matched a part, or matched an address."""
    if "/" in part.rstrip("/"):
        word = _WORD.search(text)
        part = word[0] if word is not None else part
    # The name comes before the address of an owner, which often has it too.
    start = text.lower().find(part.lower()) if text.isascii() else text.find(part)
    if start >= 0:
        end = start + len(part)
        before = _LETTERS_AT_END.search(text, max(0, start - _LONGEST_NAME), start)
        after = _LETTERS.match(text, end)
        part = f"{before[0] if before else ''}{text[start:end]}{after[0] if after else ''}"
    name = _NAME.search(part)
    return (name[0] if name else part)[:_LONGEST_NAME]
