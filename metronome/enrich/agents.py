"""User agents: which browser, on what, and which robots and tools among them."""

import re
from functools import cache, lru_cache
from typing import Final, NamedTuple

from ua_parser import OS, Domain, UserAgent, load_lazy_builtins
from ua_parser.regex import Resolver

from metronome.enrich.devices import device_kind
from metronome.enrich.robots import read_other_robot, read_robot
from metronome.enrich.tools import read_tool

SCRIPT: Final = "script"

_LONGEST: Final = 512
_LONGEST_NAME: Final = 64
_LONGEST_VERSION: Final = 16
_BROWSER_AND_OS: Final = Domain.USER_AGENT | Domain.OS
_BROWSERS: Final = {
    "Chrome Mobile": "Chrome",
    "Chrome Mobile WebView": "Android WebView",
    "Chrome Mobile iOS": "Chrome",
    "Edge Mobile": "Edge",
    "Firefox Mobile": "Firefox",
    "Firefox iOS": "Firefox",
    "IE Mobile": "IE",
    "Mobile Safari": "Safari",
    "Mobile Safari UI/WKWebView": "iOS WebView",
    "Opera Mobile": "Opera",
    "Opera Tablet": "Opera",
}
"""A browser is the same wherever it runs: the device says the rest."""
_SYSTEMS: Final = {"Mac OS X": "macOS", "ATV OS X": "tvOS", "Web0S": "webOS"}
_UNKNOWN: Final = "Other"
_MAIL: Final = "Apple Mail"
"""What the parser takes for it is, but on a Mac, whatever shows pages with Apple's engine."""
_MAJOR: Final = re.compile(r"\w[\w ]*", re.ASCII)


class Agent(NamedTuple):
    """What a user agent tells; None where it does not.

    A robot has a name (``bot``) and a kind (``bot_kind``: search, ai, seo, social, monitor, feed, archive or other) and
    nothing else, for the browser that it pretends to be is none. ``device`` is one of desktop, mobile, tablet, tv,
    console, script, other; a script's ``browser`` is the tool. Versions are the major ones.
    """

    browser: str | None = None
    browser_version: str | None = None
    os: str | None = None
    os_version: str | None = None
    device: str | None = None
    bot: str | None = None
    bot_kind: str | None = None


_NOBODY: Final = Agent()


def read_agent(text: str) -> Agent:
    """Tell what sent a user agent: a person's browser, a tool that a person uses, or a robot.

    The first call loads the lists, which takes a fifth of a second. Each further one takes time linear in the text's
    length, whatever is in it; what comes after 512 characters does not count.

    Args:
        text: as it was sent, or as somebody forwarded it.

    Returns:
        What it tells; all None where *text* is empty or only says that there is none (``-``).

    """
    return _remembered(text) if len(text) <= _LONGEST else _read(text[:_LONGEST])


def _read(given: str) -> Agent:
    text = given.strip()
    if not text or text == "-":
        return _NOBODY
    if not text.isascii():
        # The parser's engine takes no lone surrogates, which JSON can carry.
        text = text.encode("utf-8", "replace").decode()
    robot = read_robot(text)
    if robot is None:
        tool = read_tool(text)
        if tool is not None:
            return Agent(browser=tool.name, browser_version=tool.version, device=SCRIPT)
        robot = read_other_robot(text)
    return _browser_of(text) if robot is None else Agent(bot=robot.name, bot_kind=robot.kind)


_remembered = lru_cache(maxsize=32_768)(_read)


def _browser_of(text: str) -> Agent:
    found = _parser()(text, _BROWSER_AND_OS)
    os, os_version = _os_of(found.os)
    browser, version = _name_of(found.user_agent)
    if browser == _MAIL and os != "macOS":
        browser = version = None
    return Agent(browser, version, os, os_version, device_kind(text, os))


@cache
def _parser() -> Resolver:
    return Resolver(load_lazy_builtins())


def _name_of(browser: UserAgent | None) -> tuple[str | None, str | None]:
    if browser is None or browser.family == _UNKNOWN:
        return None, None
    return _BROWSERS.get(browser.family, browser.family)[:_LONGEST_NAME], _major(browser.major)


def _os_of(os: OS | None) -> tuple[str | None, str | None]:
    if os is None or os.family == _UNKNOWN:
        return None, None
    return _SYSTEMS.get(os.family, os.family)[:_LONGEST_NAME], _major(os.major)


def _major(version: str | None) -> str | None:
    found = _MAJOR.match(version or "")
    return found[0].rstrip()[:_LONGEST_VERSION] if found else None
