"""User agents: browsers, their operating systems and devices, and tools.

Tools fetch on behalf of people: curl, wget, libraries of programming languages, download managers. COUNTER counts
requests of tools separately as machine access, which unlike that of robots is usage (Code of Practice for Research
Data, https://doi.org/10.7287/peerj.preprints.26505v1).
"""

import re
from functools import cache
from typing import Final, NamedTuple

from counter_robots import is_machine
from ua_parser import OS, Domain, UserAgent, load_lazy_builtins
from ua_parser.regex import Resolver

from metronome.enrich.caches import cached, read_table
from metronome.enrich.robots import detect_robot, detect_unlisted_robot

_CONSOLE_PATTERN: Final = re.compile(r"playstation|nintendo|xbox|steam ?deck|\bouya\b", re.ASCII)
_TV_PATTERN: Final = re.compile(
    r"smart-?tv|hbbtv|web0s|webos.?tv|netcast|bravia|apple ?tv|googletv|google tv|android tv|crkey|roku|viera|vidaa|"
    r"\bdtv\b|\baft[a-z]{1,4}\b|\btv safari|\blg browser|opera tv|shield android|mibox",
    re.ASCII,
)
_TABLET_PATTERN: Final = re.compile(
    r"ipad|tablet(?! pc)|playbook|kindle|\bkf[a-z]{2,5}\b|\bsm-[tx]\d|\bgt-p\d|nexus (?:7|9|10)\b|xoom|mediapad|"
    r"matepad|lenovo tb",
    re.ASCII,
)
_MOBILE_PATTERN: Final = re.compile(
    r"iphone|ipod|mobi|phone|blackberry|\bbb10\b|opera mini|symbian|symbos|nokia|kaios|\bj2me\b|midp|\bpalm|webos|"
    r"\bbada\b|meego|maemo|windows ce",
    re.ASCII,
)
_MOBILE_SYSTEMS: Final = frozenset({"Android", "iOS"})
_DESKTOP_SYSTEMS: Final = frozenset(
    """
    AmigaOS;Arch Linux;CentOS;Chrome OS;Debian;DragonFly;Fedora;FreeBSD;Gentoo;Haiku;Kubuntu;Linux;Linux Mint;Lubuntu;
    Mac OS;macOS;Mageia;Mandriva;NetBSD;OpenBSD;openSUSE;OS/2;Puppy;Red Hat;Slackware;Solaris;SunOS;SUSE;Ubuntu;
    VectorLinux;Windows;Xubuntu
    """.replace("\n    ", "").split(";")
)


def classify_device(user_agent: str, os: str | None) -> str:
    """Return the kind of device that a browser runs on: desktop, mobile, tablet, tv, console or other.

    A user agent may hide it: an iPad that requests desktop pages claims to be a Macintosh.

    Args:
        user_agent: the user agent.
        os: the operating system in it (see `ParsedUserAgent`).

    """
    words = user_agent.lower()
    if _CONSOLE_PATTERN.search(words):
        return "console"
    if _TV_PATTERN.search(words):
        return "tv"
    if _TABLET_PATTERN.search(words) or (os == "Android" and "mobi" not in words and words.startswith("mozilla/")):
        return "tablet"
    if os in _MOBILE_SYSTEMS or _MOBILE_PATTERN.search(words):
        return "mobile"
    return "desktop" if os in _DESKTOP_SYSTEMS else "other"


class Tool(NamedTuple):
    """A tool, and its major version if the user agent has one."""

    name: str
    version: str | None


_BROWSER_PREFIXES: Final = ("Mozilla/", "Opera/", "Dalvik/", "BlackBerry", "Lynx/", "Links ", "ELinks", "w3m/")
_TOKEN: Final = re.compile(r"(?<![^\s;,(])([A-Za-z][\w.:+-]{0,60})(?:[/ ]v?(\d{1,4})(?![\w-]))?", re.ASCII)
_POWERSHELL: Final = re.compile(r"(?:Windows)?PowerShell/v?(\d{1,4})", re.ASCII)
_FIRST_TOKEN: Final = re.compile(r"[^\s/;,()]{1,64}")
_NOT_TOOL_PATTERN: Final = re.compile(r"PlayStation|PS4Application|cfnetwork|librss|FirePHP", re.IGNORECASE)
_MAX_TOKENS: Final = 24


def detect_tool(user_agent: str) -> Tool | None:
    """Return the tool that a user agent names; None for a browser or an unknown program.

    Args:
        user_agent: of at most a few hundred characters.

    """
    if user_agent.startswith(_BROWSER_PREFIXES):
        shell = _POWERSHELL.search(user_agent) if "PowerShell/" in user_agent else None
        return Tool("PowerShell", shell[1]) if shell else None
    if "Mozilla/" in user_agent or _NOT_TOOL_PATTERN.search(user_agent):
        return None
    tools, languages = _load_tools()
    language = None
    for count, found in enumerate(_TOKEN.finditer(user_agent)):
        if count == _MAX_TOKENS:
            break
        token, version = found[1].lower(), found[2]
        if version is None and found.start():
            continue
        name = tools.get(token)
        if name is not None:
            return Tool(name, version)
        if language is None and token in languages:
            language = Tool(languages[token], version)
    if language is not None:
        return language
    first = _FIRST_TOKEN.search(user_agent)
    return Tool(first[0], None) if first and is_machine(user_agent) else None


@cache
def _load_tools() -> tuple[dict[str, str], dict[str, str]]:
    """Return the tools and the languages by their names in lower case."""
    table = read_table("tools")
    tools = {name.lower(): name for name in (*table["libraries"], *table["programs"])}
    return tools, {name.lower(): name for name in table["languages"]}


SCRIPT_DEVICE: Final = "script"

_AGENT_MAX_CHARACTERS: Final = 512
_AGENT_NAME_MAX_CHARACTERS: Final = 64
_VERSION_MAX_CHARACTERS: Final = 16
_BROWSER_AND_OS: Final = Domain.USER_AGENT | Domain.OS
_BROWSER_ALIASES: Final = {
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
"""A browser has one name on all devices."""
_OS_ALIASES: Final = {"Mac OS X": "macOS", "ATV OS X": "tvOS", "Web0S": "webOS"}
_UNKNOWN_FAMILY: Final = "Other"
_APPLE_MAIL: Final = "Apple Mail"
"""Except on a Mac, the parser reports any program with Apple's engine as this."""
_MAJOR_VERSION_PATTERN: Final = re.compile(r"\w[\w ]*", re.ASCII)


class ParsedUserAgent(NamedTuple):
    """What a user agent says; None for what it does not say.

    Attributes:
        browser: the browser, or the tool.
        browser_version: its major version.
        os: the operating system.
        os_version: its major version.
        device: desktop, mobile, tablet, tv, console, script (of a tool) or other.
        bot: the name of a robot. A robot has no browser, because it only pretends to be one.
        bot_kind: the kind of the robot: search, ai, seo, social, monitor, feed, archive or other.

    """

    browser: str | None = None
    browser_version: str | None = None
    os: str | None = None
    os_version: str | None = None
    device: str | None = None
    bot: str | None = None
    bot_kind: str | None = None


_UNKNOWN_AGENT: Final = ParsedUserAgent()


def parse_user_agent(user_agent: str) -> ParsedUserAgent:
    """Return what a user agent says of its sender: a person's browser, a person's tool, or a robot.

    The first call loads the lists, which takes a fifth of a second. Later ones take time linear in the length.

    Args:
        user_agent: only its first 512 characters count.

    Returns:
        All None if *user_agent* is empty or a hyphen.

    """
    return _parse_truncated(user_agent[:_AGENT_MAX_CHARACTERS])


def is_robot(user_agent: str) -> bool:
    """Return whether `parse_user_agent` would say that a user agent is a robot's, in less time."""
    return _is_robot_truncated(user_agent[:_AGENT_MAX_CHARACTERS])


@cached(_AGENT_MAX_CHARACTERS)
def _is_robot_truncated(header: str) -> bool:
    text = header.strip().encode("utf-8", "replace").decode()
    if not text or text == "-":
        return False
    return detect_robot(text) is not None or (detect_tool(text) is None and detect_unlisted_robot(text) is not None)


@cached(_AGENT_MAX_CHARACTERS)
def _parse_truncated(header: str) -> ParsedUserAgent:
    text = header.strip()
    if not text or text == "-":
        return _UNKNOWN_AGENT
    if not text.isascii():
        # The parser's engine rejects lone surrogates, which JSON can carry.
        text = text.encode("utf-8", "replace").decode()
    robot = detect_robot(text)
    if robot is None:
        tool = detect_tool(text)
        if tool is not None:
            return ParsedUserAgent(browser=tool.name, browser_version=tool.version, device=SCRIPT_DEVICE)
        robot = detect_unlisted_robot(text)
    return _parse_browser(text) if robot is None else ParsedUserAgent(bot=robot.name, bot_kind=robot.kind)


def _parse_browser(text: str) -> ParsedUserAgent:
    found = _load_parser()(text, _BROWSER_AND_OS)
    os, os_version = _os_name_and_version(found.os)
    browser, version = _browser_name_and_version(found.user_agent)
    if browser == _APPLE_MAIL and os != "macOS":
        browser = version = None
    return ParsedUserAgent(browser, version, os, os_version, classify_device(text, os))


@cache
def _load_parser() -> Resolver:
    return Resolver(load_lazy_builtins())


def _browser_name_and_version(browser: UserAgent | None) -> tuple[str | None, str | None]:
    if browser is None or browser.family == _UNKNOWN_FAMILY:
        return None, None
    return _BROWSER_ALIASES.get(browser.family, browser.family)[:_AGENT_NAME_MAX_CHARACTERS], _major_version(
        browser.major
    )


def _os_name_and_version(os: OS | None) -> tuple[str | None, str | None]:
    if os is None or os.family == _UNKNOWN_FAMILY:
        return None, None
    return _OS_ALIASES.get(os.family, os.family)[:_AGENT_NAME_MAX_CHARACTERS], _major_version(os.major)


def _major_version(version: str | None) -> str | None:
    found = _MAJOR_VERSION_PATTERN.match(version or "")
    return found[0].rstrip()[:_VERSION_MAX_CHARACTERS] if found else None
