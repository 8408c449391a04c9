"""Robots by their user agents: their names, and what they are for.

The names come from two lists that others maintain: ``crawler-user-agents``, which also says what each robot is for, and
COUNTER's own list (``counter-robots``), whose robots data repositories must not count. A robot in neither is recognized
by words in its user agent (``MyBot/1.0``) or by the URL of its owner.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

import orjson
from ua_parser import Domain, UserAgent
from ua_parser.core import Matcher
from ua_parser.lazy import UserAgentMatcher
from ua_parser.regex import Resolver

from metronome.enrich.caches import read_table


class Robot(NamedTuple):
    """A robot.

    Attributes:
        name: as it calls itself.
        kind: search, ai, seo, social (previews of links), monitor, feed, archive or other.

    """

    name: str
    kind: str


class _RobotPattern(NamedTuple):
    """A pattern, and the kind of the robots that match it; None if the list does not say."""

    pattern: str
    kind: str | None


_SEO_PATTERN: Final = re.compile(r"\bSEO\b|backlink|search engine optimi", re.IGNORECASE)
_LIBRARY_TAG: Final = "http-library"
_CRAWLER_LIBRARY_PATTERN: Final = re.compile(r"crawl|spider|bot|scrapy|httrack|larbin|colly", re.IGNORECASE)
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
_LETTERS: Final = re.compile(r"[A-Za-z]*", re.ASCII)
_LETTERS_AT_END: Final = re.compile(r"[A-Za-z]{0,40}\Z", re.ASCII)
_TOKEN_AT_END: Final = re.compile(r"[\w.!-]{0,40}\Z", re.ASCII)
_ROBOT_NAME_PATTERN: Final = re.compile(r"[\w.+!-]+(?: [\w.+!-]+)*", re.ASCII)
_ROBOT_NAME_MAX_CHARACTERS: Final = 64


def detect_robot(user_agent: str) -> Robot | None:
    """Return the robot that a user agent names: a listed one, or one that calls itself a bot.

    Args:
        user_agent: of at most a few hundred characters, without lone surrogates.

    """
    resolver, patterns = _load_known_robots()
    found = resolver(user_agent, Domain.USER_AGENT).user_agent
    if found is None:
        return _detect_by_word(user_agent)
    name = _expand_robot_name(user_agent, found.family)
    return Robot(name, _kind_by_name(name) or patterns[int(found.major or 0)].kind or "other")


def detect_unlisted_robot(user_agent: str) -> Robot | None:
    """Return the robot of a user agent that is neither known to `detect_robot` nor a person's tool.

    COUNTER's list (Code of Practice for Research Data, https://doi.org/10.7287/peerj.preprints.26505v1) is used with
    two exceptions: its plain words must be whole words, and the ``ambiguous_patterns`` in data/robots.toml are left
    out, because ``motor`` is part of ``motorola``.

    Args:
        user_agent: as that of `detect_robot`.

    """
    found = _load_counter_robots()(user_agent, Domain.USER_AGENT).user_agent
    if found is not None:
        return Robot(_expand_robot_name(user_agent, found.family), "other")
    owner = _OWNER_URL_PATTERN.search(user_agent)
    if owner is None:
        return None
    browser_products = read_table("robots")["browser_products"]
    products = [name for name in _PRODUCT_PATTERN.findall(user_agent) if name.lower() not in browser_products]
    name = (products[0] if products else owner[1])[:_ROBOT_NAME_MAX_CHARACTERS]
    return Robot(name, _classify_by_word(name))


@cache
def _load_known_robots() -> tuple[Resolver, list[_RobotPattern]]:
    signs = list(_iterate_robot_patterns())
    return _build_resolver([sign.pattern for sign in signs]), signs


@cache
def _load_counter_robots() -> Resolver:
    lines = files("counter_robots").joinpath("data", "robot.txt").read_text().splitlines()
    used = [line for line in lines if line and line not in read_table("robots")["ambiguous_patterns"]]
    patterns = [rf"\b{line}\b" if line.isalnum() else line for line in used]
    return _build_resolver(patterns)


def _iterate_robot_patterns() -> Iterator[_RobotPattern]:
    robots = orjson.loads(files("crawleruseragents").joinpath("crawler-user-agents.json").read_bytes())
    table = read_table("robots")
    for robot in robots:
        pattern, tags = robot["pattern"], robot.get("tags", ())
        if pattern in table["ambiguous_patterns"] or (
            _LIBRARY_TAG in tags and _CRAWLER_LIBRARY_PATTERN.search(pattern) is None
        ):
            continue
        kind = next((kind for tag, kind in table["kinds_by_tag"].items() if tag in tags), None)
        yield _RobotPattern(pattern, kind or ("seo" if _SEO_PATTERN.search(robot.get("description", "")) else None))


def _build_resolver(patterns: list[str]) -> Resolver:
    """Combine patterns so that a text is matched against all of them at once, in time linear in its length.

    The user agent parser's engine does this. Its "family" is the text that matched, and its "major version" here is the
    position of the pattern.
    """
    matchers: list[Matcher[UserAgent]] = [
        UserAgentMatcher(f"({pattern})", None, str(position)) for position, pattern in enumerate(patterns)
    ]
    return Resolver((matchers, [], []))


def _detect_by_word(text: str) -> Robot | None:
    found = _ROBOT_WORD_PATTERN.search(text)
    if found is None or _is_phone_name(text, found):
        return None
    before = _TOKEN_AT_END.search(text, max(0, found.start() - _ROBOT_NAME_MAX_CHARACTERS), found.start())
    name = f"{before[0] if before else ''}{found[0]}".lstrip("-._!")
    return Robot(name, _kind_by_name(name) or _classify_by_word(text))


def _is_phone_name(text: str, found: re.Match[str]) -> bool:
    """Return whether a word is part of a phone's name (``M bot 60``): robots append their version to their name."""
    return "Android" in text and text[found.end() : found.end() + 1] != "/"


def _kind_by_name(name: str) -> str | None:
    kinds: dict[str, str] = read_table("robots")["kinds_by_name"]
    return kinds.get(name.lower())


def _classify_by_word(text: str) -> str:
    return next((kind for pattern, kind in _KINDS_BY_WORD if pattern.search(text)), "other")


def _expand_robot_name(text: str, part: str) -> str:
    """Return the name that a robot calls itself, of which a pattern matched a part, or matched a URL."""
    if "/" in part.rstrip("/"):
        word = _ROBOT_WORD_PATTERN.search(text)
        part = word[0] if word is not None else part
    # The name precedes the URL of the owner, which often contains it as well.
    start = text.lower().find(part.lower()) if text.isascii() else text.find(part)
    if start >= 0:
        end = start + len(part)
        before = _LETTERS_AT_END.search(text, max(0, start - _ROBOT_NAME_MAX_CHARACTERS), start)
        after = _LETTERS.match(text, end)
        part = f"{before[0] if before else ''}{text[start:end]}{after[0] if after else ''}"
    name = _ROBOT_NAME_PATTERN.search(part)
    return (name[0] if name else part)[:_ROBOT_NAME_MAX_CHARACTERS]
