"""User agents: which browser, on what, and which robots and tools among them.

Kinds of devices, as user agents show them.

Tools that people let fetch for them: curl, wget, libraries of programming languages, download managers.

COUNTER counts what they fetch as a machine's access, apart from people's and, unlike that of robots, as usage
(Code of Practice for Research Data, https://doi.org/10.7287/peerj.preprints.26505v1).
"""

import re
from functools import cache, lru_cache
from typing import Final, NamedTuple

from counter_robots import is_machine
from ua_parser import OS, Domain, UserAgent, load_lazy_builtins
from ua_parser.regex import Resolver

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
    """Return what kind of device a browser runs on.

    What an agent hides cannot be told: an iPad that asks for desktop pages says that it is a Macintosh.

    Args:
        user_agent: the user agent.
        os: the operating system that was found in it, as `metronome.enrich.user_agents.Agent` has it.

    Returns:
        One of desktop, mobile, tablet, tv, console, other.

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
    """A tool: its name, and its major version where it says so."""

    name: str
    version: str | None


_LIBRARIES: Final = """
    aiohttp akka-http Apache-HttpAsyncClient Apache-HttpClient async-http-client axios Boto3 Botocore conda CPython-http
    Dart Deno Bun Faraday fasthttp fsspec go-resty Go-http-client got grpc-go grpc-java-netty grpc-node grpc-python
    GuzzleHttp hackney Hoek HTTP-Tiny http-kit HTTP.jl HTTP_Request2 http.rb HTTPClient httpx HTTPoison httr httr2
    hyper isahc JAX-WS Jakarta Jersey Ktor ky lua-resty-http LWP::Simple libwww-perl MechanicalSoup mechanize
    Mojolicious needle node-fetch node-superagent superagent okhttp pandas perl-http Photon pooch PycURL python-httpx
    python-requests Python-urllib python-urllib3 r-curl ReactorNetty reqwest requests Request-Promise rest-client
    RestSharp scalaj-http Symfony sttp Typhoeus treq uclient-fetch undici unirest-java unirest-net ureq urllib3
    WinHttp WWW-Mechanize Zend_Http_Client
"""
_PROGRAMS: Final = """
    aria2 aws-cli aws-sdk-go aws-sdk-java aws-sdk-js aws-sdk-dotnet Axel ApacheBench containerd Cyberduck curl davfs2
    docker DownThemAll FDM fetch FileZilla GDAL git git-annex git-lfs GetRight gvfs hey HTTPie HTTPie-Go Helm Homebrew
    insomnia JDownloader k6 lftp libdnf MATLAB Mathematica Maven Microsoft-WebDAV-MiniRedir Mono monolith npm pip pnpm
    Postman PostmanRuntime QGIS Rclone RCurl s3cmd s5cmd SAS Stata Subversion SVN Teleport uv vegeta Wget Wget2 wrk yarn
    Zotero ansible-httpget APT-HTTP xh
"""
_LANGUAGES: Final = """
    Clojure CPython Erlang/OTP Go Java Julia libcurl Lua node Node.js Octave OpenJDK perl PHP Python R Ruby Rust Scala
"""
"""Of a language itself and of what many build upon: another name in the same text says more."""
_TOOLS_BY_NAME: Final = {name.lower(): name for name in f"{_LIBRARIES} {_PROGRAMS}".split()}
_LANGUAGES_BY_NAME: Final = {name.lower(): name for name in _LANGUAGES.split()}

_BROWSER_PREFIXES: Final = ("Mozilla/", "Opera/", "Dalvik/", "BlackBerry", "Lynx/", "Links ", "ELinks", "w3m/")
_TOKEN: Final = re.compile(r"(?<![^\s;,(])([A-Za-z][\w.:+-]{0,60})(?:[/ ]v?(\d{1,4})(?![\w-]))?", re.ASCII)
_POWERSHELL: Final = re.compile(r"(?:Windows)?PowerShell/v?(\d{1,4})", re.ASCII)
_FIRST_TOKEN: Final = re.compile(r"[^\s/;,()]{1,64}")
_NOT_TOOL_PATTERN: Final = re.compile(r"PlayStation|PS4Application|cfnetwork|librss|FirePHP", re.IGNORECASE)
_MAX_TOKENS: Final = 24


def detect_tool(user_agent: str) -> Tool | None:
    """Return the tool that a user agent names, or None where it is a browser's or of something unknown.

    Args:
        user_agent: the user agent, of at most some hundred characters.

    """
    if user_agent.startswith(_BROWSER_PREFIXES):
        shell = _POWERSHELL.search(user_agent) if "PowerShell/" in user_agent else None
        return Tool("PowerShell", shell[1]) if shell else None
    if "Mozilla/" in user_agent or _NOT_TOOL_PATTERN.search(user_agent):
        return None
    language = None
    for count, found in enumerate(_TOKEN.finditer(user_agent)):
        if count == _MAX_TOKENS:
            break
        token, version = found[1].lower(), found[2]
        if version is None and found.start():
            continue
        name = _TOOLS_BY_NAME.get(token)
        if name is not None:
            return Tool(name, version)
        if language is None and token in _LANGUAGES_BY_NAME:
            language = Tool(_LANGUAGES_BY_NAME[token], version)
    if language is not None:
        return language
    first = _FIRST_TOKEN.search(user_agent)
    return Tool(first[0], None) if first and is_machine(user_agent) else None


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
"""A browser is the same wherever it runs: the device says the rest."""
_OS_ALIASES: Final = {"Mac OS X": "macOS", "ATV OS X": "tvOS", "Web0S": "webOS"}
_UNKNOWN_FAMILY: Final = "Other"
_APPLE_MAIL: Final = "Apple Mail"
"""What the parser takes for it is, but on a Mac, whatever shows pages with Apple's engine."""
_MAJOR_VERSION_PATTERN: Final = re.compile(r"\w[\w ]*", re.ASCII)


class ParsedUserAgent(NamedTuple):
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


_UNKNOWN_AGENT: Final = ParsedUserAgent()


def parse_user_agent(text: str) -> ParsedUserAgent:
    """Tell what sent a user agent: a person's browser, a tool that a person uses, or a robot.

    The first call loads the lists, which takes a fifth of a second. Each further one takes time linear in the text's
    length, whatever is in it; what comes after 512 characters does not count.

    Args:
        text: as it was sent, or as somebody forwarded it.

    Returns:
        What it tells; all None where *text* is empty or only says that there is none (``-``).

    """
    return _parse_cached(text) if len(text) <= _AGENT_MAX_CHARACTERS else _parse_uncached(text[:_AGENT_MAX_CHARACTERS])


def _parse_uncached(header: str) -> ParsedUserAgent:
    text = header.strip()
    if not text or text == "-":
        return _UNKNOWN_AGENT
    if not text.isascii():
        # The parser's engine takes no lone surrogates, which JSON can carry.
        text = text.encode("utf-8", "replace").decode()
    robot = detect_robot(text)
    if robot is None:
        tool = detect_tool(text)
        if tool is not None:
            return ParsedUserAgent(browser=tool.name, browser_version=tool.version, device=SCRIPT_DEVICE)
        robot = detect_unlisted_robot(text)
    return _parse_browser(text) if robot is None else ParsedUserAgent(bot=robot.name, bot_kind=robot.kind)


_parse_cached = lru_cache(maxsize=32_768)(_parse_uncached)


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
