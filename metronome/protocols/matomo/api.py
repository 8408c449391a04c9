"""The part of Matomo's Reporting API, at ``/`` and ``/index.php``, that its log importer uses.

The importer queries the site's URL before it starts, and the site of each host if it was started without a site.

Source: https://developer.matomo.org/api-reference/reporting-api#SitesManager.
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
    """Return ``token_auth`` (see `Protocol.extract_key`)."""
    return extract_token(request)


def parse(request: Request) -> ParsedRequest:
    """Answer a call of the API; it holds no events (see `Protocol.parse`).

    Raises:
        Malformed: the method is not supported.
        NotFound: the request is not a call of the API.
        Unauthorized: there is no key. The importer would only find out later that its times are rejected.
        Forbidden: the key lacks the scope import.

    """
    parameters = parse_parameters(request.query, request.body)
    if parameters.get("module") != "API":
        raise NotFound(f"unknown path {request.path[:100]}: only Matomo's API is here, with module=API")
    if not request.is_trusted:
        error_class = Forbidden if extract_token(request) else Unauthorized
        raise error_class("Matomo's log importer needs a key with the scope import as --token-auth")
    method = _API_METHODS.get(str(parameters.get("method")))
    if method is None:
        raise Malformed(f"unsupported method of Matomo's API: use one of {', '.join(_API_METHODS)}")
    result = method(_ApiCall(parameters, _main_url(request.config, request.headers)))
    return ParsedRequest([], is_batch=False, context=result)


def reply(_: Request, parsed: ParsedRequest, __: IngestResult) -> Reply:
    """Reply with the result of the call (see `Protocol.reply`)."""
    return Reply(200, orjson.dumps(parsed.context), "application/json")


def reply_error(request: Request, error: MetronomeError) -> Reply:
    """Describe the error, to a call of the API in Matomo's format (see `Protocol.reply_error`)."""
    try:
        is_call = parse_parameters(request.query, request.body).get("module") == "API"
    except (Malformed, PayloadTooLarge):
        is_call = False
    if not is_call:
        return problem_reply(error)
    body = {"result": "error", "message": describe_to_client(error)}
    return Reply(error.http_status, orjson.dumps(body), "application/json", http_error_headers(error))


def _site_from_id(call: _ApiCall) -> Any:
    number = str(call.parameters.get("idSite", ""))
    if _SITE_ID_PATTERN.fullmatch(number) is None:
        raise Malformed("idSite is missing or not a positive number: send the site's ID, as in idSite=1")
    return _site_info(int(number), call)


def _all_sites(call: _ApiCall) -> Any:
    return {str(_SITE_ID): _site_info(_SITE_ID, call)}


def _sites_from_url(_: _ApiCall) -> Any:
    return [{"idsite": _SITE_ID}]


def _create_token(_: _ApiCall) -> Any:
    raise Malformed("Metronome has no passwords: create a key with `metronome keys create`, and send it as token_auth")


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
    """Return the URL that the importer prefixes to a log's paths: one of the operator's hosts, else this server."""
    if config.own_hosts:
        return "https://" + min(config.own_hosts, key=lambda host: (len(host), host))
    host = headers.get("Host", "")
    return "http://" + (host if _HOST_PATTERN.fullmatch(host) else _FALLBACK_HOST)
