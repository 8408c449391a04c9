"""Tools that people let fetch for them: curl, wget, libraries of programming languages, download managers.

COUNTER counts what they fetch as a machine's access, apart from people's and, unlike that of robots, as usage
(Code of Practice for Research Data, https://doi.org/10.7287/peerj.preprints.26505v1).
"""

import re
from typing import Final, NamedTuple

from counter_robots import is_machine


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
_BY_NAME: Final = {name.lower(): name for name in f"{_LIBRARIES} {_PROGRAMS}".split()}
_BY_LANGUAGE: Final = {name.lower(): name for name in _LANGUAGES.split()}

_AS_BROWSERS_BEGIN: Final = ("Mozilla/", "Opera/", "Dalvik/", "BlackBerry", "Lynx/", "Links ", "ELinks", "w3m/")
_TOKEN: Final = re.compile(r"(?<![^\s;,(])([A-Za-z][\w.:+-]{0,60})(?:[/ ]v?(\d{1,4})(?![\w-]))?", re.ASCII)
_POWERSHELL: Final = re.compile(r"(?:Windows)?PowerShell/v?(\d{1,4})", re.ASCII)
_FIRST: Final = re.compile(r"[^\s/;,()]{1,64}")
_NOT_TOOLS: Final = re.compile(r"PlayStation|PS4Application|cfnetwork|librss|FirePHP", re.IGNORECASE)
_TOKENS_LOOKED_AT: Final = 24


def read_tool(text: str) -> Tool | None:
    """Return the tool that a user agent names, or None where it is a browser's or of something unknown.

    Args:
        text: the user agent, of at most some hundred characters.

    """
    if text.startswith(_AS_BROWSERS_BEGIN):
        shell = _POWERSHELL.search(text) if "PowerShell/" in text else None
        return Tool("PowerShell", shell[1]) if shell else None
    if "Mozilla/" in text or _NOT_TOOLS.search(text):
        return None
    language = None
    for count, found in enumerate(_TOKEN.finditer(text)):
        if count == _TOKENS_LOOKED_AT:
            break
        token, version = found[1].lower(), found[2]
        if version is None and found.start():
            continue
        name = _BY_NAME.get(token)
        if name is not None:
            return Tool(name, version)
        if language is None and token in _BY_LANGUAGE:
            language = Tool(_BY_LANGUAGE[token], version)
    if language is not None:
        return language
    first = _FIRST.search(text)
    return Tool(first[0], None) if first and is_machine(text) else None
