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


class _RobotPattern(NamedTuple):
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
_SEO_PATTERN: Final = re.compile(r"\bSEO\b|backlink|search engine optimi", re.IGNORECASE)
_LIBRARY_TAG: Final = "http-library"
_CRAWLER_LIBRARY_PATTERN: Final = re.compile(r"crawl|spider|bot|scrapy|httrack|larbin|colly", re.IGNORECASE)
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
_AMBIGUOUS_PATTERNS: Final = frozenset(
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

_ROBOT_WORD_PATTERN: Final = re.compile(
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
_OWNER_URL_PATTERN: Final = re.compile(r"[+;( ]https?://(?:www\.)?([^\s/;,()]+)", re.IGNORECASE)
_PRODUCT_PATTERN: Final = re.compile(r"(?<![\w.-])([A-Za-z][\w.!-]{1,60})/v?\d", re.ASCII)
_BROWSER_PRODUCT_NAMES: Final = """
    applewebkit chrome chromium edg edge epiphany firefox gecko khtml konqueror mobile mozilla opera opr presto safari
    seamonkey trident ubuntu version
"""
_BROWSER_TOKENS: Final = frozenset(_BROWSER_PRODUCT_NAMES.split())
_LETTERS: Final = re.compile(r"[A-Za-z]*", re.ASCII)
_LETTERS_AT_END: Final = re.compile(r"[A-Za-z]{0,40}\Z", re.ASCII)
_TOKEN_AT_END: Final = re.compile(r"[\w.!-]{0,40}\Z", re.ASCII)
_ROBOT_NAME_PATTERN: Final = re.compile(r"[\w.+!-]+(?: [\w.+!-]+)*", re.ASCII)
_ROBOT_NAME_MAX_CHARACTERS: Final = 64


def detect_robot(user_agent: str) -> Robot | None:
    """Return the robot that a user agent names: one of the list, or one that calls itself a bot.

    Args:
        user_agent: the user agent, of at most some hundred characters and without lone surrogates.

    """
    extractor, signs = _load_known_robots()
    found = extractor.extract(user_agent)
    if found is None:
        return _detect_by_word(user_agent)
    name = _expand_robot_name(user_agent, found.family)
    return Robot(name, _KINDS_BY_NAME.get(name.lower()) or signs[int(found.major or 0)].kind or "other")


def detect_unlisted_robot(user_agent: str) -> Robot | None:
    """Return the robot of a user agent that `detect_robot` does not know, and that is no tool of a person's.

    COUNTER's list (Code of Practice for Research Data, https://doi.org/10.7287/peerj.preprints.26505v1) is used as it
    is, but that its bare words have to stand alone, and that those of `_AMBIGUOUS_PATTERNS` are left out: ``motor`` is
    in ``motorola``.

    Args:
        user_agent: as that of `detect_robot`.

    """
    extractor, _ = _load_counter_robots()
    found = extractor.extract(user_agent)
    if found is not None:
        return Robot(_expand_robot_name(user_agent, found.family), "other")
    owner = _OWNER_URL_PATTERN.search(user_agent)
    if owner is None:
        return None
    products = [name for name in _PRODUCT_PATTERN.findall(user_agent) if name.lower() not in _BROWSER_TOKENS]
    name = (products[0] if products else owner[1])[:_ROBOT_NAME_MAX_CHARACTERS]
    return Robot(name, _classify_by_word(name))


@cache
def _load_known_robots() -> tuple[UserAgentExtractor, list[_RobotPattern]]:
    signs = list(_iterate_robot_patterns())
    return _build_extractor([sign.pattern for sign in signs]), signs


@cache
def _load_counter_robots() -> tuple[UserAgentExtractor, list[str]]:
    lines = files("counter_robots").joinpath("data", "robot.txt").read_text().splitlines()
    used = [line for line in lines if line and line not in _AMBIGUOUS_PATTERNS]
    patterns = [rf"\b{line}\b" if line.isalnum() else line for line in used]
    return _build_extractor(patterns), patterns


def _iterate_robot_patterns() -> Iterator[_RobotPattern]:
    robots = orjson.loads(files("crawleruseragents").joinpath("crawler-user-agents.json").read_bytes())
    for robot in robots:
        pattern, tags = robot["pattern"], robot.get("tags", ())
        if pattern in _AMBIGUOUS_PATTERNS or (
            _LIBRARY_TAG in tags and _CRAWLER_LIBRARY_PATTERN.search(pattern) is None
        ):
            continue
        kind = next((kind for tag, kind in _KINDS_BY_TAG if tag in tags), None)
        yield _RobotPattern(pattern, kind or ("seo" if _SEO_PATTERN.search(robot.get("description", "")) else None))


def _build_extractor(patterns: list[str]) -> UserAgentExtractor:
    """Put patterns together so that a text is held against all of them at once, in time linear in its length.

    The engine is that of the user agent parser; what it calls the family is the text that matched, and the major
    version is the place in the list.
    """
    return UserAgentExtractor(
        (f"({pattern})", None, str(place), None, None, None) for place, pattern in enumerate(patterns)
    )


def _detect_by_word(text: str) -> Robot | None:
    found = _ROBOT_WORD_PATTERN.search(text)
    if found is None or _is_phone_name(text, found):
        return None
    before = _TOKEN_AT_END.search(text, max(0, found.start() - _ROBOT_NAME_MAX_CHARACTERS), found.start())
    name = f"{before[0] if before else ''}{found[0]}".lstrip("-._!")
    return Robot(name, _KINDS_BY_NAME.get(name.lower()) or _classify_by_word(text))


def _is_phone_name(text: str, found: re.Match[str]) -> bool:
    """Tell whether a word is part of a phone's name (``M bot 60``): robots write their version after theirs."""
    return "Android" in text and text[found.end() : found.end() + 1] != "/"


def _classify_by_word(text: str) -> str:
    return next((kind for pattern, kind in _KINDS_BY_WORD if pattern.search(text)), "other")


def _expand_robot_name(text: str, part: str) -> str:
    """Return the name that a robot gives itself, of which a pattern matched a part, or matched an address."""
    if "/" in part.rstrip("/"):
        word = _ROBOT_WORD_PATTERN.search(text)
        part = word[0] if word is not None else part
    # The name comes before the address of an owner, which often has it too.
    start = text.lower().find(part.lower()) if text.isascii() else text.find(part)
    if start >= 0:
        end = start + len(part)
        before = _LETTERS_AT_END.search(text, max(0, start - _ROBOT_NAME_MAX_CHARACTERS), start)
        after = _LETTERS.match(text, end)
        part = f"{before[0] if before else ''}{text[start:end]}{after[0] if after else ''}"
    name = _ROBOT_NAME_PATTERN.search(part)
    return (name[0] if name else part)[:_ROBOT_NAME_MAX_CHARACTERS]
