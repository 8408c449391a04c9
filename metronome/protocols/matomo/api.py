"""What is spoken at ``/`` and ``/index.php``: as much of Matomo's API as its log importer asks for.

Sources: https://developer.matomo.org/api-reference/reporting-api#SitesManager, and which of its methods the log
importer calls: the site's address before it starts, and the site of each host where it was given none.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import orjson

from metronome.errors import (
    Forbidden,
    Malformed,
    MetronomeError,
    NotFound,
    PayloadTooLarge,
    Unauthorized,
    describe_to_client,
)
from metronome.event import IngestConfig
from metronome.protocol import IngestResult, ParsedRequest, Reply, Request, http_error_headers, problem_reply
from metronome.protocols.matomo.requests import MatomoParameters, extract_token, parse_parameters

_SITE_ID: Final = 1
_SITE_ID_PATTERN = re.compile(r"0*[1-9]\d{0,9}", re.ASCII)
_HOST_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?", re.ASCII)
_FALLBACK_HOST: Final = "localhost"


class _ApiCall(NamedTuple):
    parameters: MatomoParameters
    main_url: str


def extract_key(request: Request) -> str:
    """Return ``token_auth`` (see `Dialect.key`)."""
    return extract_token(request)


def parse(request: Request) -> ParsedRequest:
    """Find what a call of the API asks for (see `Dialect.read`).

    Raises:
        Malformed: nobody answers such a call here.
        Unauthorized: it came without a key, and the importer would find out only later that nobody believes it.
        NotFound: it is no call of the API.
        Forbidden: the same, of one whose key is for something else.

    """
    given = parse_parameters(request.query, request.body)
    if given.get("module") != "API":
        raise NotFound(f"nothing answers at {request.path[:100]} but calls of Matomo's API, with module=API")
    if not request.is_trusted:
        wrong = Forbidden if extract_token(request) else Unauthorized
        raise wrong("Matomo's log importer needs a key with the scope import, as its --token-auth")
    method = _API_METHODS.get(str(given.get("method")))
    if method is None:
        raise Malformed(f"of Matomo's API, only these are answered here: {', '.join(_API_METHODS)}")
    return ParsedRequest(
        [], is_batch=False, context=method(_ApiCall(given, _main_url(request.config, request.headers)))
    )


def reply(_: Request, parsed: ParsedRequest, __: IngestResult) -> Reply:
    """Answer a call (see `Dialect.reply`)."""
    return Reply(200, orjson.dumps(parsed.context), "application/json")


def reply_error(request: Request, error: MetronomeError) -> Reply:
    """Describe the error, to a call of the API in Matomo's own shape (see `Dialect.refuse`)."""
    try:
        is_call = parse_parameters(request.query, request.body).get("module") == "API"
    except (Malformed, PayloadTooLarge):
        is_call = False
    if not is_call:
        return problem_reply(error)
    answer = {"result": "error", "message": describe_to_client(error)}
    return Reply(error.http_status, orjson.dumps(answer), "application/json", http_error_headers(error))


def _site_from_id(call: _ApiCall) -> Any:
    number = str(call.parameters.get("idSite", ""))
    if _SITE_ID_PATTERN.fullmatch(number) is None:
        raise Malformed("idSite is missing or no number: send that of the site, as idSite=1")
    return _site_info(int(number), call)


def _all_sites(call: _ApiCall) -> Any:
    return {str(_SITE_ID): _site_info(_SITE_ID, call)}


def _sites_from_url(_: _ApiCall) -> Any:
    return [{"idsite": _SITE_ID}]


def _create_token(_: _ApiCall) -> Any:
    raise Malformed("there are no passwords here: make a key with `metronome keys create`, and send it as token_auth")


_API_METHODS: Final[Mapping[str, Callable[[_ApiCall], Any]]] = {
    "SitesManager.getSiteFromId": _site_from_id,
    "SitesManager.getAllSites": _all_sites,
    "SitesManager.getSitesIdFromSiteUrl": _sites_from_url,
    "UsersManager.createAppSpecificTokenAuth": _create_token,
}


def _site_info(number: int, call: _ApiCall) -> dict[str, Any]:
    name = call.main_url.partition("://")[2]
    return {"idsite": number, "name": name, "main_url": call.main_url, "timezone": "UTC", "type": "website"}


def _main_url(config: IngestConfig, headers: Mapping[str, str]) -> str:
    """Return what paths in a log are to be put behind: one of the operator's hosts, else this service's own."""
    if config.own_hosts:
        return "https://" + min(config.own_hosts, key=lambda host: (len(host), host))
    host = headers.get("Host", "")
    return "http://" + (host if _HOST_PATTERN.fullmatch(host) else _FALLBACK_HOST)
