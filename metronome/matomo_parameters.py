"""Matomo's tracking parameters and the event fields they correspond to.

The server reads this table to convert requests to events, the middleware to convert events to requests. The module
imports nothing of Metronome, as the middleware is loaded into other people's services.

Sources: https://developer.matomo.org/api-reference/tracking-api; for media and crashes, what Matomo's trackers send.
"""

from typing import Final, NamedTuple


class Parameter(NamedTuple):
    """A parameter with a field of its own.

    Attributes:
        name: in Matomo's requests.
        field: of the event.
        is_number: whether the value is a number. Other values are text; JSON keeps its text.
        is_sent: whether the middleware sends the field as this parameter.

    """

    name: str
    field: str
    is_number: bool = False
    is_sent: bool = False


def _text(name: str, field: str) -> Parameter:
    return Parameter(name, field)


def _sent_text(name: str, field: str) -> Parameter:
    return Parameter(name, field, is_sent=True)


def _number(name: str, field: str = "") -> Parameter:
    return Parameter(name, field or name, is_number=True)


def _sent_number(name: str, field: str) -> Parameter:
    return Parameter(name, field, is_number=True, is_sent=True)


PARAMETERS: Final = (
    # The page and its visitor.
    _number("idsite"),
    _sent_text("action_name", "title"),
    _sent_text("url", "url"),
    _sent_text("urlref", "referer"),
    _sent_text("ua", "agent"),
    _sent_text("lang", "lang"),
    _sent_text("uid", "user"),
    _text("uadata", "uadata"),
    _text("pv_id", "pv_id"),
    _text("cs", "charset"),
    _text("data", "data"),
    _text("cvar", "cvar"),
    _text("_cvar", "visit_cvar"),
    _text("e_cvar", "event_cvar"),
    _text("_rcn", "campaign"),
    _text("_rck", "campaign_keyword"),
    _text("_ref", "first_referer"),
    _number("_refts", "first_referer_at"),
    _number("_idts", "first_visit_at"),
    _number("_viewts", "last_visit_at"),
    _number("_ects", "last_order_at"),
    _number("_idvc", "visits"),
    _number("_idn", "new_visitor"),
    _number("h"),
    _number("m"),
    _number("s"),
    # The browser.
    _text("res", "res"),
    *(_number(name) for name in ("cookie", "fla", "java", "dir", "qt", "realp", "pdf", "wma", "gears", "ag")),
    # Downloads, outlinks, searches, events, content.
    _sent_text("download", "download"),
    _sent_text("link", "link"),
    _sent_text("search", "search"),
    _sent_text("search_cat", "search_category"),
    _sent_number("search_count", "search_count"),
    _sent_text("e_c", "category"),
    _text("e_a", "action"),
    _text("e_n", "name"),
    _number("e_v", "value"),
    _sent_text("c_n", "content"),
    _sent_text("c_p", "content_piece"),
    _sent_text("c_t", "content_target"),
    _sent_text("c_i", "content_interaction"),
    # Goals, orders and products.
    _sent_text("idgoal", "goal"),
    _sent_number("revenue", "revenue"),
    _sent_text("ec_id", "order"),
    _sent_text("ec_items", "items"),
    _sent_number("ec_st", "subtotal"),
    _sent_number("ec_tx", "tax"),
    _sent_number("ec_sh", "shipping"),
    _sent_number("ec_dt", "discount"),
    _sent_text("_pks", "product"),
    _sent_text("_pkn", "product_name"),
    _sent_text("_pkc", "product_category"),
    _sent_number("_pkp", "product_price"),
    # Media.
    _text("ma_id", "media"),
    _text("ma_ti", "media_title"),
    _text("ma_re", "media_url"),
    _text("ma_mt", "media_type"),
    _text("ma_pn", "media_player"),
    _text("ma_se", "media_segments"),
    _number("ma_st", "media_seconds"),
    _number("ma_le", "media_length"),
    _number("ma_ps", "media_progress"),
    _number("ma_ttp", "media_seconds_to_play"),
    _number("ma_w", "media_width"),
    _number("ma_h", "media_height"),
    _number("ma_fs", "media_fullscreen"),
    # Crashes.
    _text("cra", "message"),
    _sent_text("cra_tp", "error_type"),
    _text("cra_ct", "error_category"),
    _sent_text("cra_st", "error_stack"),
    _text("cra_ru", "error_url"),
    _number("cra_rl", "error_line"),
    _number("cra_rc", "error_column"),
    # The request as the server saw it, and page performance.
    _number("bw_bytes", "bytes"),
    _sent_number("http_status", "status"),
    _number("pf_net"),
    _number("pf_srv"),
    _number("pf_tfr"),
    _number("pf_dm1"),
    _number("pf_dm2"),
    _number("pf_onl"),
    _number("gt_ms"),
)

EVENT_PARAMETERS: Final = (
    (("cra",), "error"),
    (("ma_id",), "media"),
    (("download",), "download"),
    (("link",), "outlink"),
    (("c_n",), "content"),
    (("e_c", "e_a"), "event"),
    (("search",), "search"),
)
"""Parameters that decide what a request tracks, and the event: the first row whose parameters are all present."""

NON_EVENT_PARAMETERS: Final = frozenset({"link", "search", "c_n", "idgoal", "_pks"})
"""With one of these, the middleware sends no category and action: Matomo would track an event instead."""
