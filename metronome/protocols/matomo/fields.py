"""Convert the parameters of one tracked action to the fields of an event.

Source: https://developer.matomo.org/api-reference/tracking-api.
"""

import re
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from metronome.enrich.addresses import normalize_address, set_client
from metronome.errors import Malformed
from metronome.event import REPEATED_FIELDS
from metronome.fields import REFERRER_FIELDS, TIMESTAMP_FIELDS
from metronome.items import ItemMatch, ItemPattern, event_of_request, url_path
from metronome.matomo_parameters import EVENT_PARAMETERS, PARAMETERS
from metronome.protocol import Request
from metronome.protocols.matomo.requests import MatomoParameters
from metronome.times import format_timestamp, parse_timestamp

TEXT_PARAMETERS: Final = {parameter.name: parameter.field for parameter in PARAMETERS if not parameter.is_number}
NUMBER_PARAMETERS: Final = {parameter.name: parameter.field for parameter in PARAMETERS if parameter.is_number}
GEO_TEXT_PARAMETERS: Final = ("country", "region", "city")
GEO_NUMBER_PARAMETERS: Final = ("lat", "long")
SPECIAL_PARAMETERS: Final = frozenset(
    {"_id", "cid", "cip", "cdt", "cdo", "bots", "ping", *GEO_TEXT_PARAMETERS, *GEO_NUMBER_PARAMETERS}
)
"""Parameters that are validated or interpreted before they become a field."""
IGNORED_PARAMETERS: Final = frozenset(
    {"rec", "r", "rand", "apiv", "token_auth", "send_image", "queuedtracking", "dp", "debug", "tracker_install_check"}
)
"""Parameters of the request, not of the event. ``token_auth`` is a secret, and must not be stored."""
UNKNOWN_PARAMETER_PREFIX: Final = "matomo_"
RESERVED_FIELDS: Final = frozenset(
    {
        *TEXT_PARAMETERS.values(),
        *NUMBER_PARAMETERS.values(),
        *TIMESTAMP_FIELDS,
        *REFERRER_FIELDS,
        *("id", "event", "format", "event_id", "session", "visitor", "user", "bot", "duration"),
        *("clientip", "clienthost", "referer_url", "method", REPEATED_FIELDS),
    }
)
"""Fields with a meaning: an unknown parameter with such a name is stored with `UNKNOWN_PARAMETER_PREFIX`."""

_UNTRUSTED_MAX_AGE: Final = timedelta(days=1)
_OK_STATUS: Final = 200
_QUOTED_CHARACTERS: Final = 200
_INTEGER_PATTERN: Final = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_DECIMAL_PATTERN: Final = re.compile(r"[+-]?(\d{1,18}(\.\d{0,18})?|\.\d{1,18})", re.ASCII)
_SECONDS_PATTERN: Final = re.compile(r"-?(\d{1,10})", re.ASCII)
_FILE_EXTENSION_PATTERN: Final = re.compile(r"[^/]\.([A-Za-z0-9]{1,16})\Z", re.ASCII)
_ERROR_TITLE_PATTERN: Final = re.compile(r"([1-5]\d\d)\W{1,3}URL = ", re.ASCII)
"""The page title of failed requests, as Matomo's log importer sends it and Matomo recommends it for error pages."""
_STATUS_PATTERN: Final = re.compile(r"[1-5]\d\d", re.ASCII)
_TRACKER_PARAMETERS: Final = frozenset({"r", "rand", "_id", "cid", "pv_id", "send_image"})
"""Parameters that trackers send and the log importer does not."""
_DEFAULT_ITEM_PATTERN: Final = ItemPattern()
_ANY_ITEM: Final = ItemMatch("/", None)


def build_event_fields(parameters: MatomoParameters, request: Request, page_url: str = "") -> dict[str, Any]:
    """Return the fields of an event.

    Args:
        parameters: of one tracked action.
        request: the request with the parameters.
        page_url: used if the parameters have neither a URL nor a referrer; empty for none.

    Raises:
        Malformed: ``idsite`` or ``rec=1`` is missing, or the time is invalid or not allowed.

    """
    parameters = {name: value for name, value in parameters.items() if value is not None and value != ""}
    _check_required(parameters)
    fields = _rename_parameters(parameters)
    if page_url and "url" not in fields and "referer" not in fields:
        fields["url"] = page_url
    _set_client_fields(fields, parameters, request)
    timestamp = _parse_time(parameters, request)
    if timestamp is not None:
        fields["@timestamp"] = timestamp
    if request.is_trusted:
        fields.update({name: _to_text(parameters[name]) for name in GEO_TEXT_PARAMETERS if name in parameters})
        fields.update({name: _parse_number(parameters[name]) for name in GEO_NUMBER_PARAMETERS if name in parameters})
    if _is_flag_set(parameters, "bots"):
        # The sender wants the event counted whatever its user agent is.
        fields["bot"] = False
    _set_event_and_item(fields, parameters, request.config.item_pattern)
    return fields


def _check_required(parameters: MatomoParameters) -> None:
    site = _to_text(parameters.get("idsite", ""))
    if not (_INTEGER_PATTERN.fullmatch(site) and int(site) > 0):
        raise Malformed("idsite is missing or not a positive number: send the site's ID, as in idsite=1")
    if not _is_flag_set(parameters, "rec"):
        raise Malformed("rec=1 is missing: without it, Matomo's trackers request that nothing is recorded")


def _rename_parameters(parameters: MatomoParameters) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in parameters.items():
        if name in TEXT_PARAMETERS:
            fields[TEXT_PARAMETERS[name]] = _to_text(value)
        elif name in NUMBER_PARAMETERS:
            fields[NUMBER_PARAMETERS[name]] = _parse_number(value)
        elif name not in SPECIAL_PARAMETERS and name not in IGNORED_PARAMETERS:
            fields[UNKNOWN_PARAMETER_PREFIX + name if name in RESERVED_FIELDS else name] = value
    return fields


def _set_client_fields(fields: dict[str, Any], parameters: MatomoParameters, request: Request) -> None:
    visitor = parameters.get("cid", parameters.get("_id"))
    if visitor is not None:
        fields["visitor"] = _to_text(visitor)
    address = _to_text(parameters.get("cip", ""))
    if address and (request.is_trusted or normalize_address(address) == normalize_address(request.client_ip)):
        set_client(fields, address)
    elif request.client_ip:
        set_client(fields, request.client_ip)
    if not address:
        # A sender that names an address reports the visit of another client, which has another user agent.
        for name, header in (("agent", "User-Agent"), ("lang", "Accept-Language")):
            if name not in fields and (value := request.headers.get(header)):
                fields[name] = value


def _parse_time(parameters: MatomoParameters, request: Request) -> str | None:
    """Return ``cdt``, or the time of arrival without it, less ``cdo`` seconds; None if the request has neither."""
    timestamp = None
    if "cdt" in parameters:
        try:
            timestamp = parse_timestamp(parameters["cdt"])
        except Malformed as error:
            raise Malformed(f"cdt: {error}") from None
    if "cdo" in parameters:
        timestamp = _subtract_offset(timestamp or request.received_at, parameters["cdo"])
    if timestamp is None or request.is_trusted:
        return timestamp
    if request.received_at and timestamp < format_timestamp(
        datetime.fromisoformat(request.received_at) - _UNTRUSTED_MAX_AGE
    ):
        raise Malformed(f"cdt is {timestamp}, over 24 hours ago: send a key with the scope import as token_auth")
    return timestamp


def _subtract_offset(timestamp: str, offset: object) -> str | None:
    match = _SECONDS_PATTERN.fullmatch(_to_text(offset))
    if match is None:
        raise Malformed("invalid cdo: expected a whole number of seconds with at most ten digits")
    if not timestamp:
        return None
    try:
        return format_timestamp(datetime.fromisoformat(timestamp) - timedelta(seconds=int(match[1])))
    except OverflowError:
        raise Malformed(f"invalid cdo {match[1]}: the time would be before the year 1") from None


def _set_event_and_item(fields: dict[str, Any], parameters: MatomoParameters, item_pattern: ItemPattern) -> None:
    event, file_format = _event_name(parameters), None
    page = item_pattern.match(_target(fields.get("url", ""), item_pattern))
    item_id = page.id
    if event == "download":
        path = url_path(fields["download"])
        file = item_pattern.match(_target(fields["download"], item_pattern))
        # A file that is not an item belongs to the item of its page.
        item_id = file.id or item_id
        file_format = file.format or _file_format(path)
    if event in {"view", "download"}:
        if _is_from_log_importer(parameters):
            _set_request_from_cvar(fields)
            if event == "view":
                # A log line counts as it does when Metronome imports it.
                event, file_format = event_of_request("GET", _OK_STATUS, page), page.format
        error_title = _ERROR_TITLE_PATTERN.match(fields.get("title", ""))
        if error_title is not None:
            fields["status"] = int(error_title[1])
        status = fields.get("status", _OK_STATUS)
        request_event = event_of_request(
            fields.get("method", "GET"), status if isinstance(status, int) else _OK_STATUS, _ANY_ITEM
        )
        if request_event != "view":
            event, file_format = request_event, None
    fields["event"] = event
    if item_id is not None:
        fields["id"] = item_id
    if file_format is not None:
        fields["format"] = file_format


def _target(url: str, item_pattern: ItemPattern) -> str:
    return item_pattern.target(url) if item_pattern.match_url else url_path(url)


def _event_name(parameters: MatomoParameters) -> str:
    if _is_flag_set(parameters, "ping"):
        return "heartbeat"
    for names, event in EVENT_PARAMETERS:
        if all(name in parameters for name in names):
            return event
    if "idgoal" in parameters:
        if _to_text(parameters["idgoal"]) != "0":
            return "goal"
        return "order" if "ec_id" in parameters else "cart"
    # A request with `ca` is not a page view.
    return "action" if _is_flag_set(parameters, "ca") else "view"


def _is_from_log_importer(parameters: MatomoParameters) -> bool:
    """Return whether Matomo's log importer built the request from a log line, rather than replaying a tracker's."""
    return "cip" in parameters and "cvar" in parameters and parameters.keys().isdisjoint(_TRACKER_PARAMETERS)


def _set_request_from_cvar(fields: dict[str, Any]) -> None:
    """Set status and method from the custom variables in which Matomo's log importer sends them."""
    try:
        variables = orjson.loads(fields["cvar"])
    except orjson.JSONDecodeError:
        return
    for variable in variables.values() if isinstance(variables, dict) else ():
        match variable:
            case ["HTTP-code", str() | int() as status] if _STATUS_PATTERN.fullmatch(str(status)):
                fields.setdefault("status", int(status))
            case ["HTTP-method", str() as method]:
                fields.setdefault("method", method)


def _file_format(path: str) -> str | None:
    """Return the extension of a file that the tracker calls a download, known or not."""
    known_format = _DEFAULT_ITEM_PATTERN.match(path).format
    if known_format is not None:
        return known_format
    match = _FILE_EXTENSION_PATTERN.search(path)
    return match[1].lower() if match else None


def _is_flag_set(parameters: MatomoParameters, name: str) -> bool:
    return name in parameters and _to_text(parameters[name]) == "1"


def _to_text(value: object) -> str:
    """Return a value as it would be in a query."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        raise Malformed(f"nested too deeply: {str(value)[:_QUOTED_CHARACTERS]}") from None


def _parse_number(value: object) -> Any:
    """Return a number where the value is one, otherwise its text."""
    if isinstance(value, int | float):
        return int(value) if isinstance(value, bool) else value
    text = _to_text(value)
    if _INTEGER_PATTERN.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL_PATTERN.fullmatch(text) else text
