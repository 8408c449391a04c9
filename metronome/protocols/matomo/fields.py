"""One thing that Matomo tracks, as the fields of an event.

What Matomo's parameters are called in an event.

Source: https://developer.matomo.org/api-reference/tracking-api; of media and crashes, what Matomo's trackers send.
"""

import re
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from metronome.enrich.addresses import read_address
from metronome.errors import Malformed
from metronome.event import REFERER_NAMES, REPEATED, TIME_NAMES
from metronome.items import ItemRule
from metronome.protocols.access_logs.formats import add_client, path_of
from metronome.protocols.matomo.requests import Parameters
from metronome.times import read_stamp, stamp_of

TEXTS: Final = {
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

NUMBERS: Final = {
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

PLACE_TEXTS: Final = ("country", "region", "city")
PLACE_NUMBERS: Final = ("lat", "long")

HANDLED: Final = frozenset({"_id", "cid", "cip", "cdt", "cdo", "bots", "ping", *PLACE_TEXTS, *PLACE_NUMBERS})
"""Those that say what is looked at before anything is kept."""

DROPPED: Final = frozenset(
    {"rec", "r", "rand", "apiv", "token_auth", "send_image", "queuedtracking", "dp", "debug", "tracker_install_check"}
)
"""Those that are of the wire alone; one of them is a secret."""

TAKEN: Final = frozenset(
    {
        *TEXTS.values(),
        *NUMBERS.values(),
        *TIME_NAMES,
        *REFERER_NAMES,
        *("id", "event", "format", "event_id", "session", "visitor", "user", "bot", "duration"),
        *("clientip", "clienthost", "referer_url", "method", REPEATED),
    }
)
"""Names that mean something in an event: an unknown parameter of that name gets `PREFIX`."""

PREFIX: Final = "matomo_"


_BELIEVED_FOR: Final = timedelta(days=1)
_SEEN: Final = 200
_SHOWN: Final = 200
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(\d{1,18}(\.\d{0,18})?|\.\d{1,18})", re.ASCII)
_SECONDS = re.compile(r"-?(\d{1,10})", re.ASCII)
_FILE_FORMAT = re.compile(r"[^/]\.([A-Za-z0-9]{1,16})\Z", re.ASCII)
_FAILED_PAGE = re.compile(r"([1-5]\d\d)\W{1,3}URL = ", re.ASCII)
"""The title that Matomo's log importer and its advice for error pages give to what did not go well."""
_OF_TRACKERS: Final = frozenset({"r", "rand", "_id", "cid", "pv_id", "send_image"})
_STATUS = re.compile(r"[1-5]\d\d", re.ASCII)
_USUAL_RULE = ItemRule()


class Setting(NamedTuple):
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

    rule: ItemRule
    sender: str
    arrival: str
    believed: bool
    agent: str = ""
    lang: str = ""
    page: str = ""


def fields_of(parameters: Parameters, setting: Setting) -> dict[str, Any]:
    """Make an event's fields of the parameters of one thing.

    Args:
        parameters: under Matomo's names.
        setting: what else is known.

    Raises:
        Malformed: it names no site, does not ask to be recorded, or says of a time what it may not.

    """
    given = {name: value for name, value in parameters.items() if value is not None and value != ""}
    _check(given)
    fields = _renamed(given)
    if "url" not in fields and "referer" not in fields and setting.page:
        fields["url"] = setting.page
    _add_sender(fields, given, setting)
    stamp = _time(given, setting)
    if stamp is not None:
        fields["@timestamp"] = stamp
    if setting.believed:
        fields.update({name: _text(given[name]) for name in PLACE_TEXTS if name in given})
        fields.update({name: _number(given[name]) for name in PLACE_NUMBERS if name in given})
    if _flag(given, "bots"):
        # The sender wants it counted whatever its agent looks like.
        fields["bot"] = False
    _classify(fields, given, setting.rule)
    return fields


def _check(given: Parameters) -> None:
    site = _text(given.get("idsite", ""))
    if not (_INTEGER.fullmatch(site) and int(site) > 0):
        raise Malformed("idsite is missing or no number: send that of the site, as idsite=1")
    if not _flag(given, "rec"):
        raise Malformed("rec=1 is missing: without it, Matomo's trackers mean that nothing is to be recorded")


def _renamed(given: Parameters) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in given.items():
        if name in TEXTS:
            fields[TEXTS[name]] = _text(value)
        elif name in NUMBERS:
            fields[NUMBERS[name]] = _number(value)
        elif name not in HANDLED and name not in DROPPED:
            fields[PREFIX + name if name in TAKEN else name] = value
    return fields


def _add_sender(fields: dict[str, Any], given: Parameters, setting: Setting) -> None:
    visitor = given.get("cid", given.get("_id"))
    if visitor is not None:
        fields["visitor"] = _text(visitor)
    address = _text(given.get("cip", ""))
    if address and (setting.believed or read_address(address) == read_address(setting.sender)):
        add_client(fields, address)
    elif setting.sender:
        add_client(fields, setting.sender)
    if not address:
        # Whoever names an address speaks of another's visit, whose agent the request's own is not.
        for name, header in (("agent", setting.agent), ("lang", setting.lang)):
            if header:
                fields.setdefault(name, header)


def _time(given: Parameters, setting: Setting) -> str | None:
    """Return when it happened, where the thing says so: at ``cdt``, or so many seconds before (``cdo``)."""
    stamp = None
    if "cdt" in given:
        try:
            stamp = read_stamp(given["cdt"])
        except Malformed as error:
            raise Malformed(f"cdt: {error}") from None
    if "cdo" in given:
        stamp = _earlier(stamp or setting.arrival, given["cdo"])
    if stamp is None or setting.believed:
        return stamp
    if setting.arrival and stamp < stamp_of(datetime.fromisoformat(setting.arrival) - _BELIEVED_FOR):
        raise Malformed(
            f"cdt is {stamp}, over 24 hours ago: send it with token_auth, a key of this service with the scope import"
        )
    return stamp


def _earlier(stamp: str, given: object) -> str | None:
    seconds = _SECONDS.fullmatch(_text(given))
    if seconds is None:
        raise Malformed("cdo is no number: send whole seconds, of at most ten digits")
    if not stamp:
        return None
    try:
        return stamp_of(datetime.fromisoformat(stamp) - timedelta(seconds=int(seconds[1])))
    except OverflowError:
        raise Malformed("cdo lies before all time: send fewer seconds") from None


def _classify(fields: dict[str, Any], given: Parameters, rule: ItemRule) -> None:
    """Say what happened, and to which item."""
    event, form = _event(given), None
    page = rule.hit("GET", _SEEN, _path(fields.get("url")))
    item = page.id
    if event == "download":
        path = _path(fields["download"])
        file = rule.hit("GET", _SEEN, path)
        # A file that is no item by itself is of the item on whose page it is.
        item = file.id or item
        form = file.format or _format(path)
    if event in {"view", "download"}:
        if _is_log_line(given):
            _add_request(fields)
            if event == "view":
                # Without scripts nothing was meant by it: it counts as the same line would in a log read here.
                event, form = page.event, page.format
        failed = _FAILED_PAGE.match(fields.get("title", ""))
        if failed is not None:
            fields["status"] = int(failed[1])
        status = fields.get("status", _SEEN)
        outcome = _USUAL_RULE.hit(fields.get("method", "GET"), status if isinstance(status, int) else _SEEN, "/").event
        if outcome != "view":
            event, form = outcome, None
    fields["event"] = event
    if item is not None:
        fields["id"] = item
    if form is not None:
        fields["format"] = form


def _event(given: Parameters) -> str:
    if _flag(given, "ping"):
        return "heartbeat"
    for names, event in _EVENTS:
        if all(name in given for name in names):
            return event
    if "idgoal" in given:
        return "goal" if _text(given["idgoal"]) != "0" else "order" if "ec_id" in given else "cart"
    # What is sent with `ca` is no page that was seen.
    return "action" if _flag(given, "ca") else "view"


_EVENTS: Final = (
    (("cra",), "error"),
    (("ma_id",), "media"),
    (("download",), "download"),
    (("link",), "outlink"),
    (("c_n",), "content"),
    (("e_c", "e_a"), "event"),
    (("search",), "search"),
)
"""What makes a thing what it is, the first one that is there."""


def _is_log_line(given: Parameters) -> bool:
    """Tell whether it is what Matomo's log importer makes of a line, and not what it read of a tracker in one."""
    return "cip" in given and "cvar" in given and given.keys().isdisjoint(_OF_TRACKERS)


def _add_request(fields: dict[str, Any]) -> None:
    """Take a line's status and method from the custom variables in which Matomo's log importer sends them."""
    try:
        variables = orjson.loads(fields["cvar"])
    except orjson.JSONDecodeError:
        return
    for variable in variables.values() if isinstance(variables, dict) else ():
        match variable:
            case ["HTTP-code", str() | int() as status] if _STATUS.fullmatch(str(status)):
                fields.setdefault("status", int(status))
            case ["HTTP-method", str() as method]:
                fields.setdefault("method", method)


def _path(url: str | None) -> str:
    return path_of(url.partition("#")[0]) if url else ""


def _format(path: str) -> str | None:
    """Return what a file's name says of its format: of one that was called a download, any extension counts."""
    usual = _USUAL_RULE.hit("GET", 200, path).format
    if usual is not None:
        return usual
    found = _FILE_FORMAT.search(path)
    return found[1].lower() if found else None


def _flag(given: Parameters, name: str) -> bool:
    return name in given and _text(given[name]) == "1"


def _text(value: object) -> str:
    """Return a value as it would stand in a query."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        raise Malformed(f"it is nested too deeply to be read: {str(value)[:_SHOWN]}") from None


def _number(value: object) -> Any:
    if isinstance(value, int | float):
        return int(value) if isinstance(value, bool) else value
    text = _text(value)
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text
