"""What Matomo's parameters are called in an event.

Source: https://developer.matomo.org/api-reference/tracking-api; of media and crashes, what Matomo's trackers send.
"""

from typing import Final

from metronome.event import REFERER_NAMES, REPEATED, TIME_NAMES

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
