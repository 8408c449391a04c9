"""The data view: which indices panels look at, and how Kibana shows what their fields hold."""

from typing import Final

from metronome.dashboards.objects import Json, Kind, json_text, saved_object

TIME: Final = "@timestamp"

MILLISECONDS: Final = (
    *("duration", "TTFB", "FCP", "LCP", "INP"),
    *("pf_net", "pf_srv", "pf_tfr", "pf_dm1", "pf_dm2", "pf_onl"),
)
"""The fields whose numbers are milliseconds."""

_DURATION: Final[Json] = {
    "id": "duration",
    "params": {
        "inputFormat": "milliseconds",
        "outputFormat": "humanizePrecise",
        "outputPrecision": 2,
        "useShortSuffix": True,
        "includeSpaceWithSuffix": True,
    },
}
_FORMATS: Final[Json] = {
    **{f"{name}.num": _DURATION for name in MILLISECONDS},
    "CLS.num": {"id": "number", "params": {"pattern": "0.000"}},
    "bytes.num": {"id": "bytes", "params": {"pattern": "0,0.[0] b"}},
}
_LABELS: Final = {
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


def data_view(prefix: str) -> Json:
    """Return the data view of the events under an index prefix.

    It may be there before the first event is (``allowNoIndex``): panels then say that there is nothing to show.
    """
    attributes = {
        "title": f"{prefix}-*",
        "name": f"{prefix.capitalize()} events",
        "timeFieldName": TIME,
        "allowHidden": False,
        "allowNoIndex": True,
        "fields": "[]",
        "fieldAttrs": json_text({name: {"customLabel": label} for name, label in _LABELS.items()}),
        "fieldFormatMap": json_text(_FORMATS),
        "runtimeFieldMap": "{}",
        "sourceFilters": "[]",
        "typeMeta": "{}",
    }
    return saved_object(Kind.DATA_VIEW, data_view_id(prefix), attributes)
