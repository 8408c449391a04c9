"""One thing that Matomo tracks, as the fields of an event.

What Matomo's parameters are called in an event.

Source: https://developer.matomo.org/api-reference/tracking-api; of media and crashes, what Matomo's trackers send.
"""

import re
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from metronome.enrich.addresses import normalize_address, set_client
from metronome.errors import Malformed
from metronome.event import REPEATED_FIELDS
from metronome.fields import REFERRER_FIELDS, TIMESTAMP_FIELDS
from metronome.items import ItemPattern, request_path
from metronome.protocols.matomo.requests import MatomoParameters
from metronome.times import format_timestamp, parse_timestamp

TEXT_PARAMETERS: Final = {
    "action_name": "title",
    "url": "url",
    "urlref": "referer",
    "ua": "agent",
    "lang": "lang",
    "uid": "user",
    "download": "download",
    "link": "link",
    "search": "search",
    "search_cat": "search_category",
    "e_c": "category",
    "e_a": "action",
    "e_n": "name",
    "c_n": "content",
    "c_p": "content_piece",
    "c_t": "content_target",
    "c_i": "content_interaction",
    "idgoal": "goal",
    "ec_id": "order",
    "ec_items": "items",
    "_pks": "product",
    "_pkn": "product_name",
    "_pkc": "product_category",
    "ma_id": "media",
    "ma_ti": "media_title",
    "ma_re": "media_url",
    "ma_mt": "media_type",
    "ma_pn": "media_player",
    "ma_se": "media_segments",
    "cra": "message",
    "cra_tp": "error_type",
    "cra_ct": "error_category",
    "cra_st": "error_stack",
    "cra_ru": "error_url",
    "cvar": "cvar",
    "_cvar": "visit_cvar",
    "e_cvar": "event_cvar",
    "_rcn": "campaign",
    "_rck": "campaign_keyword",
    "_ref": "first_referer",
    "data": "data",
    "uadata": "uadata",
    "res": "res",
    "pv_id": "pv_id",
    "cs": "charset",
}
"""Those that are text. Of Matomo's JSON, the text stays as it is."""

NUMBER_PARAMETERS: Final = {
    "idsite": "idsite",
    "search_count": "search_count",
    "e_v": "value",
    "revenue": "revenue",
    "ec_st": "subtotal",
    "ec_tx": "tax",
    "ec_sh": "shipping",
    "ec_dt": "discount",
    "_pkp": "product_price",
    "ma_st": "media_seconds",
    "ma_le": "media_length",
    "ma_ps": "media_progress",
    "ma_ttp": "media_seconds_to_play",
    "ma_w": "media_width",
    "ma_h": "media_height",
    "ma_fs": "media_fullscreen",
    "cra_rl": "error_line",
    "cra_rc": "error_column",
    "pf_net": "pf_net",
    "pf_srv": "pf_srv",
    "pf_tfr": "pf_tfr",
    "pf_dm1": "pf_dm1",
    "pf_dm2": "pf_dm2",
    "pf_onl": "pf_onl",
    "gt_ms": "gt_ms",
    "bw_bytes": "bytes",
    "http_status": "status",
    "h": "h",
    "m": "m",
    "s": "s",
    "_refts": "first_referer_at",
    "_idts": "first_visit_at",
    "_viewts": "last_visit_at",
    "_ects": "last_order_at",
    "_idvc": "visits",
    "_idn": "new_visitor",
    **{name: name for name in ("cookie", "fla", "java", "dir", "qt", "realp", "pdf", "wma", "gears", "ag")},
}
"""Those that are numbers; what is none stays the text that it is."""

GEO_TEXT_PARAMETERS: Final = ("country", "region", "city")
GEO_NUMBER_PARAMETERS: Final = ("lat", "long")

SPECIAL_PARAMETERS: Final = frozenset(
    {"_id", "cid", "cip", "cdt", "cdo", "bots", "ping", *GEO_TEXT_PARAMETERS, *GEO_NUMBER_PARAMETERS}
)
"""Those that say what is looked at before anything is kept."""

IGNORED_PARAMETERS: Final = frozenset(
    {"rec", "r", "rand", "apiv", "token_auth", "send_image", "queuedtracking", "dp", "debug", "tracker_install_check"}
)
"""Those that are of the wire alone; one of them is a secret."""

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
"""Names that mean something in an event: an unknown parameter of that name gets `UNKNOWN_PARAMETER_PREFIX`."""

UNKNOWN_PARAMETER_PREFIX: Final = "matomo_"


_UNTRUSTED_MAX_AGE: Final = timedelta(days=1)
_VIEWED_STATUS: Final = 200
_SHOWN_CHARACTERS: Final = 200
_INTEGER_PATTERN = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_DECIMAL_PATTERN = re.compile(r"[+-]?(\d{1,18}(\.\d{0,18})?|\.\d{1,18})", re.ASCII)
_SECONDS_PATTERN = re.compile(r"-?(\d{1,10})", re.ASCII)
_FILE_EXTENSION_PATTERN = re.compile(r"[^/]\.([A-Za-z0-9]{1,16})\Z", re.ASCII)
_ERROR_TITLE_PATTERN = re.compile(r"([1-5]\d\d)\W{1,3}URL = ", re.ASCII)
"""The title that Matomo's log importer and its advice for error pages give to what did not go well."""
_TRACKER_PARAMETERS: Final = frozenset({"r", "rand", "_id", "cid", "pv_id", "send_image"})
_STATUS_PATTERN = re.compile(r"[1-5]\d\d", re.ASCII)
_DEFAULT_ITEM_PATTERN = ItemPattern()


class TrackingContext(NamedTuple):
    """What is known of a thing besides what it says.

    Attributes:
        rule: finds the item in the path of a URL.
        sender: the address that the request came from, or nothing.
        arrival: the stamp at which it came.
        believed: whether the sender may say of any time, address and place that it happened then and there.
        agent: the sender's user agent, or nothing.
        lang: the sender's languages, or nothing.
        page: the page that the request was sent from, where that is what is tracked; or nothing.

    """

    item_pattern: ItemPattern
    client_ip: str
    received_at: str
    is_trusted: bool
    user_agent: str = ""
    accept_language: str = ""
    page_url: str = ""


def build_event_fields(parameters: MatomoParameters, context: TrackingContext) -> dict[str, Any]:
    """Make an event's fields of the parameters of one thing.

    Args:
        parameters: under Matomo's names.
        context: what else is known.

    Raises:
        Malformed: it names no site, does not ask to be recorded, or says of a time what it may not.

    """
    given = {name: value for name, value in parameters.items() if value is not None and value != ""}
    _check_required(given)
    fields = _rename_parameters(given)
    if "url" not in fields and "referer" not in fields and context.page_url:
        fields["url"] = context.page_url
    _set_client_fields(fields, given, context)
    stamp = _parse_time(given, context)
    if stamp is not None:
        fields["@timestamp"] = stamp
    if context.is_trusted:
        fields.update({name: _to_text(given[name]) for name in GEO_TEXT_PARAMETERS if name in given})
        fields.update({name: _parse_number(given[name]) for name in GEO_NUMBER_PARAMETERS if name in given})
    if _is_flag_set(given, "bots"):
        # The sender wants it counted whatever its agent looks like.
        fields["bot"] = False
    _set_event_and_item(fields, given, context.item_pattern)
    return fields


def _check_required(given: MatomoParameters) -> None:
    site = _to_text(given.get("idsite", ""))
    if not (_INTEGER_PATTERN.fullmatch(site) and int(site) > 0):
        raise Malformed("idsite is missing or no number: send that of the site, as idsite=1")
    if not _is_flag_set(given, "rec"):
        raise Malformed("rec=1 is missing: without it, Matomo's trackers mean that nothing is to be recorded")


def _rename_parameters(given: MatomoParameters) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in given.items():
        if name in TEXT_PARAMETERS:
            fields[TEXT_PARAMETERS[name]] = _to_text(value)
        elif name in NUMBER_PARAMETERS:
            fields[NUMBER_PARAMETERS[name]] = _parse_number(value)
        elif name not in SPECIAL_PARAMETERS and name not in IGNORED_PARAMETERS:
            fields[UNKNOWN_PARAMETER_PREFIX + name if name in RESERVED_FIELDS else name] = value
    return fields


def _set_client_fields(fields: dict[str, Any], given: MatomoParameters, context: TrackingContext) -> None:
    visitor = given.get("cid", given.get("_id"))
    if visitor is not None:
        fields["visitor"] = _to_text(visitor)
    address = _to_text(given.get("cip", ""))
    if address and (context.is_trusted or normalize_address(address) == normalize_address(context.client_ip)):
        set_client(fields, address)
    elif context.client_ip:
        set_client(fields, context.client_ip)
    if not address:
        # Whoever names an address speaks of another's visit, whose agent the request's own is not.
        for name, header in (("agent", context.user_agent), ("lang", context.accept_language)):
            if header:
                fields.setdefault(name, header)


def _parse_time(given: MatomoParameters, context: TrackingContext) -> str | None:
    """Return when it happened, where the thing says so: at ``cdt``, or so many seconds before (``cdo``)."""
    stamp = None
    if "cdt" in given:
        try:
            stamp = parse_timestamp(given["cdt"])
        except Malformed as error:
            raise Malformed(f"cdt: {error}") from None
    if "cdo" in given:
        stamp = _subtract_offset(stamp or context.received_at, given["cdo"])
    if stamp is None or context.is_trusted:
        return stamp
    if context.received_at and stamp < format_timestamp(
        datetime.fromisoformat(context.received_at) - _UNTRUSTED_MAX_AGE
    ):
        raise Malformed(
            f"cdt is {stamp}, over 24 hours ago: send it with token_auth, a key of this service with the scope import"
        )
    return stamp


def _subtract_offset(stamp: str, given: object) -> str | None:
    seconds = _SECONDS_PATTERN.fullmatch(_to_text(given))
    if seconds is None:
        raise Malformed("cdo is no number: send whole seconds, of at most ten digits")
    if not stamp:
        return None
    try:
        return format_timestamp(datetime.fromisoformat(stamp) - timedelta(seconds=int(seconds[1])))
    except OverflowError:
        raise Malformed("cdo lies before all time: send fewer seconds") from None


def _set_event_and_item(fields: dict[str, Any], given: MatomoParameters, item_pattern: ItemPattern) -> None:
    """Say what happened, and to which item."""
    event, form = _event_name(given), None
    page = item_pattern.classify("GET", _VIEWED_STATUS, _url_path(fields.get("url")))
    item = page.id
    if event == "download":
        path = _url_path(fields["download"])
        file = item_pattern.classify("GET", _VIEWED_STATUS, path)
        # A file that is no item by itself is of the item on whose page it is.
        item = file.id or item
        form = file.format or _file_format(path)
    if event in {"view", "download"}:
        if _is_from_log_importer(given):
            _set_request_from_cvar(fields)
            if event == "view":
                # Without scripts nothing was meant by it: it counts as the same line would in a log read here.
                event, form = page.event, page.format
        failed = _ERROR_TITLE_PATTERN.match(fields.get("title", ""))
        if failed is not None:
            fields["status"] = int(failed[1])
        status = fields.get("status", _VIEWED_STATUS)
        outcome = _DEFAULT_ITEM_PATTERN.classify(
            fields.get("method", "GET"), status if isinstance(status, int) else _VIEWED_STATUS, "/"
        ).event
        if outcome != "view":
            event, form = outcome, None
    fields["event"] = event
    if item is not None:
        fields["id"] = item
    if form is not None:
        fields["format"] = form


def _event_name(given: MatomoParameters) -> str:
    if _is_flag_set(given, "ping"):
        return "heartbeat"
    for names, event in _EVENT_RULES:
        if all(name in given for name in names):
            return event
    if "idgoal" in given:
        return "goal" if _to_text(given["idgoal"]) != "0" else "order" if "ec_id" in given else "cart"
    # What is sent with `ca` is no page that was seen.
    return "action" if _is_flag_set(given, "ca") else "view"


_EVENT_RULES: Final = (
    (("cra",), "error"),
    (("ma_id",), "media"),
    (("download",), "download"),
    (("link",), "outlink"),
    (("c_n",), "content"),
    (("e_c", "e_a"), "event"),
    (("search",), "search"),
)
"""What makes a thing what it is, the first one that is there."""


def _is_from_log_importer(given: MatomoParameters) -> bool:
    """Tell whether it is what Matomo's log importer makes of a line, and not what it read of a tracker in one."""
    return "cip" in given and "cvar" in given and given.keys().isdisjoint(_TRACKER_PARAMETERS)


def _set_request_from_cvar(fields: dict[str, Any]) -> None:
    """Take a line's status and method from the custom variables in which Matomo's log importer sends them."""
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


def _url_path(url: str | None) -> str:
    return request_path(url.partition("#")[0]) if url else ""


def _file_format(path: str) -> str | None:
    """Return what a file's name says of its format: of one that was called a download, any extension counts."""
    usual = _DEFAULT_ITEM_PATTERN.classify("GET", 200, path).format
    if usual is not None:
        return usual
    found = _FILE_EXTENSION_PATTERN.search(path)
    return found[1].lower() if found else None


def _is_flag_set(given: MatomoParameters, name: str) -> bool:
    return name in given and _to_text(given[name]) == "1"


def _to_text(value: object) -> str:
    """Return a value as it would stand in a query."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        raise Malformed(f"it is nested too deeply to be read: {str(value)[:_SHOWN_CHARACTERS]}") from None


def _parse_number(value: object) -> Any:
    if isinstance(value, int | float):
        return int(value) if isinstance(value, bool) else value
    text = _to_text(value)
    if _INTEGER_PATTERN.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL_PATTERN.fullmatch(text) else text
