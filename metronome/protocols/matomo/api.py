"""What is spoken at ``/`` and ``/index.php``: as much of Matomo's API as its log importer asks for.

Sources: https://developer.matomo.org/api-reference/reporting-api#SitesManager, and which of its methods the log
importer calls: the site's address before it starts, and the site of each host where it was given none.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import orjson

from metronome.errors import Malformed, MetronomeError, NoKey, NoSuchPage, NotAllowed, TooLarge
from metronome.protocol import Outcome, Readings, Reply, Request, Site, headers_of, problem, sentence
from metronome.protocols.matomo.requests import Parameters, parameters, token

_ONLY_SITE: Final = 1
_SITE_NUMBER = re.compile(r"0*[1-9]\d{0,9}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?", re.ASCII)
_SPARE_HOST: Final = "localhost"


class _Call(NamedTuple):
    parameters: Parameters
    main_url: str


def key(request: Request) -> str:
    """Return ``token_auth`` (see `Dialect.key`)."""
    return token(request)


def read(request: Request) -> Readings:
    """Find what a call of the API asks for (see `Dialect.read`).

    Raises:
        Malformed: nobody answers such a call here.
        NoKey: it came without a key, and the importer would find out only later that nobody believes it.
        NoSuchPage: it is no call of the API.
        NotAllowed: the same, of one whose key is for something else.

    """
    given = parameters(request.query, request.body)
    if given.get("module") != "API":
        raise NoSuchPage(f"nothing answers at {request.path[:100]} but calls of Matomo's API, with module=API")
    if not request.believed:
        wrong = NotAllowed if token(request) else NoKey
        raise wrong("Matomo's log importer needs a key with the scope import, as its --token-auth")
    method = _METHODS.get(str(given.get("method")))
    if method is None:
        raise Malformed(f"of Matomo's API, only these are answered here: {', '.join(_METHODS)}")
    return Readings([], batch=False, notes=method(_Call(given, _main_url(request.site, request.headers))))


def reply(_: Request, readings: Readings, __: Outcome) -> Reply:
    """Answer a call (see `Dialect.reply`)."""
    return Reply(200, orjson.dumps(readings.notes), "application/json")


def refuse(request: Request, error: MetronomeError, status: int) -> Reply:
    """Describe the error, to a call of the API in Matomo's own shape (see `Dialect.refuse`)."""
    try:
        is_call = parameters(request.query, request.body).get("module") == "API"
    except (Malformed, TooLarge):
        is_call = False
    if not is_call:
        return problem(error, status)
    answer = {"result": "error", "message": sentence(error)}
    return Reply(status, orjson.dumps(answer), "application/json", headers_of(error))


def _site_from_id(call: _Call) -> Any:
    number = str(call.parameters.get("idSite", ""))
    if _SITE_NUMBER.fullmatch(number) is None:
        raise Malformed("idSite is missing or no number: send that of the site, as idSite=1")
    return _site(int(number), call)


def _all_sites(call: _Call) -> Any:
    return {str(_ONLY_SITE): _site(_ONLY_SITE, call)}


def _sites_from_url(_: _Call) -> Any:
    return [{"idsite": _ONLY_SITE}]


def _token(_: _Call) -> Any:
    raise Malformed("there are no passwords here: make a key with `metronome keys create`, and send it as token_auth")


_METHODS: Final[Mapping[str, Callable[[_Call], Any]]] = {
    "SitesManager.getSiteFromId": _site_from_id,
    "SitesManager.getAllSites": _all_sites,
    "SitesManager.getSitesIdFromSiteUrl": _sites_from_url,
    "UsersManager.createAppSpecificTokenAuth": _token,
}


def _site(number: int, call: _Call) -> dict[str, Any]:
    name = call.main_url.partition("://")[2]
    return {"idsite": number, "name": name, "main_url": call.main_url, "timezone": "UTC", "type": "website"}


def _main_url(site: Site, headers: Mapping[str, str]) -> str:
    """Return what paths in a log are to be put behind: one of the operator's hosts, else this service's own."""
    if site.own_hosts:
        return "https://" + min(site.own_hosts, key=lambda host: (len(host), host))
    host = headers.get("Host", "")
    return "http://" + (host if _HOST.fullmatch(host) else _SPARE_HOST)
