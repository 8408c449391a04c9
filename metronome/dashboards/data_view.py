"""The data view: which indices panels look at, and how Kibana shows what their fields hold."""

from typing import Final

from metronome.dashboards.objects import Json, SavedObjectType, build_saved_object, encode_json

TIME_FIELD: Final = "@timestamp"

MILLISECOND_FIELDS: Final = (
    *("duration", "TTFB", "FCP", "LCP", "INP"),
    *("pf_net", "pf_srv", "pf_tfr", "pf_dm1", "pf_dm2", "pf_onl"),
)
"""The fields whose numbers are milliseconds."""

_DURATION_FORMAT: Final[Json] = {
    "id": "duration",
    "params": {
        "inputFormat": "milliseconds",
        "outputFormat": "humanizePrecise",
        "outputPrecision": 2,
        "useShortSuffix": True,
        "includeSpaceWithSuffix": True,
    },
}
_FIELD_FORMATS: Final[Json] = {
    **{f"{name}.num": _DURATION_FORMAT for name in MILLISECOND_FIELDS},
    "CLS.num": {"id": "number", "params": {"pattern": "0.000"}},
    "bytes.num": {"id": "bytes", "params": {"pattern": "0,0.[0] b"}},
}
_FIELD_LABELS: Final = {
    "TTFB.num": "Time to first byte",
    "FCP.num": "First contentful paint",
    "LCP.num": "Largest contentful paint",
    "CLS.num": "Cumulative layout shift",
    "INP.num": "Interaction to next paint",
    "pf_net.num": "Network (Matomo)",
    "pf_srv.num": "Server (Matomo)",
    "pf_tfr.num": "Transfer (Matomo)",
    "pf_dm1.num": "DOM processing (Matomo)",
    "pf_dm2.num": "DOM completion (Matomo)",
    "pf_onl.num": "On load (Matomo)",
}


def data_view_id(prefix: str) -> str:
    """Return the id of the data view of the events under an index prefix."""
    return f"{prefix}-events"


def build_data_view(prefix: str) -> Json:
    """Return the data view of the events under an index prefix.

    It may be there before the first event is (``allowNoIndex``): panels then say that there is nothing to show.
    """
    attributes = {
        "title": f"{prefix}-*",
        "name": f"{prefix.capitalize()} events",
        "timeFieldName": TIME_FIELD,
        "allowHidden": False,
        "allowNoIndex": True,
        "fields": "[]",
        "fieldAttrs": encode_json({name: {"customLabel": label} for name, label in _FIELD_LABELS.items()}),
        "fieldFormatMap": encode_json(_FIELD_FORMATS),
        "runtimeFieldMap": "{}",
        "sourceFilters": "[]",
        "typeMeta": "{}",
    }
    return build_saved_object(SavedObjectType.DATA_VIEW, data_view_id(prefix), attributes)
