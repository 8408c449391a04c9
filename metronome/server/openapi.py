"""The description of the HTTP API, as OpenAPI 3.1, at ``GET /openapi.json``.

Its paths and methods are those of the routes, and the parameters of reports are those that the reports accept. What a
route does, and the shape of its response, is in the tables below. The routes that other systems' clients use are listed
with what they are for only: those systems describe them.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import web

from metronome import __version__
from metronome.protocols.micro_metrics.tracking import ENDPOINTS as MICRO_METRICS_ENDPOINTS
from metronome.protocols.microticks.routes import INGEST_PATHS as MICROTICKS_PATHS
from metronome.protocols.native import ENDPOINTS as NATIVE_ENDPOINTS
from metronome.protocols.registry import ENDPOINTS
from metronome.reports import badges, items
from metronome.reports.documents import PAGE_MAX_DOCUMENTS
from metronome.reports.documents import PARAMETERS as DOCUMENT_PARAMETERS
from metronome.reports.query.request import QUERY_PARAMETERS
from metronome.reports.tables import MEDIA_TYPES
from metronome.scopes import Scope
from metronome.server.report_routes import Report, SelectionReport
from metronome.stores.query import TIME_UNITS
from metronome.web.negotiation import Content, cached_response

PATH: Final = "/openapi.json"

Schema = Mapping[str, Any]

_JSON: Final = "application/json"
_NDJSON: Final = "application/x-ndjson"
_PROBLEM: Final = "application/problem+json"
_VARIABLE: Final = re.compile(r"{(\w+)(?::[^}]*)?}")

_ELSEWHERE: Final = re.compile(" /(health|metrics|forget|backup)")
"""The routes that do not belong to those of reports."""

_TEXT: Final[Schema] = {"type": "string"}
_NULLABLE_TEXT: Final[Schema] = {"type": ["string", "null"]}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_NUMBER: Final[Schema] = {"type": ["number", "null"]}
_SHARE: Final[Schema] = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_BOOLEAN: Final[Schema] = {"type": "boolean"}
_COUNTS: Final[Schema] = {"type": "object", "additionalProperties": _COUNT}
_CELL: Final[Schema] = {"type": ["string", "number", "null"]}


def _object(properties: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    return {"type": "object", "required": [*properties], "properties": {**properties, **(optional or {})}}


def _array(entries: Schema) -> Schema:
    return {"type": "array", "items": entries}


_MARKS: Final[dict[str, Schema]] = {
    "exact": {"const": False, "description": "present if numbers are estimated or rounded"},
    "partial": {**_array(_TEXT), "description": "time units that are incomplete"},
}
_PERCENTILES: Final = _object({"count": _COUNT, "p50": _NUMBER, "p75": _NUMBER, "p95": _NUMBER})
_TOCK_PARTS: Final[dict[str, Schema]] = {"views": _COUNTS, "downloads": _COUNTS, "referers": _COUNTS}
_USAGE: Final = _object(
    dict.fromkeys(("total_investigations", "unique_investigations", "total_requests", "unique_requests"), _COUNT)
)
_DOCUMENT_RESULT: Final = _object(
    {
        "accepted": _COUNT,
        "rejected": _array(_object({"index": _COUNT, "error": _TEXT})),
    },
    {"known": _COUNT},
)
_STATUS: Final = _object({"status": _TEXT})
_QUERY_RESULT: Final = _object(
    {"columns": _array(_TEXT), "rows": _array(_array(_CELL)), "total": _COUNT, "exact": _BOOLEAN},
    {"partial": {"type": "object", "additionalProperties": _array(_TEXT)}},
)

_REPORT_SCHEMAS: Final[dict[tuple[str, bool], Schema]] = {
    ("tock", True): _object(_TOCK_PARTS, _MARKS),
    ("tock", False): _object({"items": {"type": "object"}, "totals": {"type": "object"}}, _MARKS),
    ("items", False): _object({"items": _array(_object({"id": _TEXT, "views": _COUNT, "downloads": _COUNT}))}, _MARKS),
    ("flow", True): _object(
        {
            **dict.fromkeys(("sessions", "entries", "exits"), _COUNT),
            **dict.fromkeys(("entry_share", "exit_share"), _SHARE),
            **dict.fromkeys(("previous", "next"), _COUNTS),
        },
        {**dict.fromkeys(("before", "after"), _array(_COUNTS)), **_MARKS},
    ),
    ("flow", False): _object(
        {
            "sessions": _COUNT,
            "entries": _COUNTS,
            "exits": _COUNTS,
            "transitions": _array(_object({"from": _TEXT, "to": _TEXT, "count": _COUNT})),
        },
        _MARKS,
    ),
    ("funnel", False): _object({"steps": _array({"type": "object"})}, _MARKS),
    ("fields", False): _object(
        {
            "fields": _array(
                _object({"name": _TEXT, "type": _NULLABLE_TEXT, "share": _SHARE, "examples": _array(_TEXT)})
            ),
            "events": _COUNT,
        },
        _MARKS,
    ),
    **dict.fromkeys(
        (("time", True), ("time", False)), _object({"on_item": _PERCENTILES, "timings": {"type": "object"}}, _MARKS)
    ),
    **dict.fromkeys(
        (("errors", True), ("errors", False)),
        _object(
            {
                "days": _COUNTS,
                "messages": _array(_object({"message": _TEXT, "count": _COUNT, "sessions": _COUNT})),
                "browsers": _array(_object({"browser": _TEXT, "version": _NULLABLE_TEXT, "count": _COUNT})),
                "session_share": _SHARE,
            },
            {"items": _array(_object({"id": _NULLABLE_TEXT, "count": _COUNT})), **_MARKS},
        ),
    ),
    ("recommendations", True): _object({"items": _array(_object({"id": _TEXT, "score": _NUMBER}))}, _MARKS),
    ("recommendations", False): _object(
        {"pairs": _array(_object({"items": _array(_TEXT), "score": _NUMBER, "visitors": _COUNT}))}, _MARKS
    ),
    ("counter", True): _object({"months": {"type": "object", "additionalProperties": _USAGE}}, _MARKS),
}
"""The responses of reports, by their name and whether they are about one item."""

_SUMMARIES: Final[dict[tuple[str, bool], str]] = {
    ("tock", True): "Usage of an item: views over time, downloads by format, referrers",
    ("tock", False): "Usage of several items, and of all together",
    ("items", False): "The most used items, and rising ones",
    ("flow", True): "What is viewed before and after an item",
    ("flow", False): "How people move between items",
    ("funnel", False): "How many sessions take several steps, one after the other",
    ("fields", False): "The fields that events have",
    ("time", True): "Dwell time on an item, and load times",
    ("time", False): "Dwell time and load times",
    ("errors", True): "Errors of an item, by day, message and browser",
    ("errors", False): "Errors by day, message, browser and item",
    ("recommendations", True): "What visitors of an item also viewed",
    ("recommendations", False): "Items that the same visitors viewed",
    ("counter", True): "COUNTER usage of an item by month",
}

_PERIOD: Final[Schema] = {**_TEXT, "examples": ["2026-01", "2026-01-22", "-30d", "last-month"]}
_FLAG: Final[Schema] = {"enum": ["1", "0", "true", "false", "yes", "no"]}
_WHOLE_NUMBER: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 999_999_999}
_LIST: Final[Schema] = {**_TEXT, "description": "entries are separated by commas"}

_PARAMETERS: Final[dict[str, tuple[str, Schema]]] = {
    "from": ("Start of the range", _PERIOD),
    "to": ("End of the range; days, months and years are included", _PERIOD),
    "tz": ("Time zone of days", {**_TEXT, "examples": ["Europe/Zurich"]}),
    "interval": ("Time unit of the series", {"enum": [*TIME_UNITS]}),
    "limit": ("Maximum number of entries; 0 for all", _WHOLE_NUMBER),
    "bots": ("Whether to include events of bots", _FLAG),
    "steps": ("Number of steps before and after the item", {"enum": ["1", "2", "3", "4", "5"]}),
    "step": ("A step, such as `event:view,id:home`; at least two", {**_array(_TEXT), "minItems": 2, "maxItems": 10}),
    "within": ("Time from the first step to the last", {**_TEXT, "examples": ["30m"]}),
    "id": ("An item; may be repeated", _array(_TEXT)),
    "prefix": ("All items whose IDs begin with this text", _TEXT),
    "metrics": ("Metrics", {**_LIST, "examples": ["count,visitors,p75:LCP"]}),
    "by": ("Fields and time units to group by", {**_LIST, "examples": ["day,event"]}),
    "order": ("Columns to sort by; -count for descending", _LIST),
    "items:order": ("What items are ranked by", {"enum": [*items.ORDERS]}),
    "offset": ("Number of rows to skip", _WHOLE_NUMBER),
    "compare": ("Period to compare with", {"enum": ["previous", "year"]}),
    "fill": ("Whether to include time units without events", _FLAG),
    "metric": ("What the badge shows", {"enum": [*badges.EVENT_BY_METRIC]}),
    "label": ("Text on the left", {**_TEXT, "maxLength": badges.LABEL_MAX_CHARACTERS}),
    "color": ("Background of the number: a name, or 0969da", {**_TEXT, "examples": [*badges.COLORS]}),
    "style": ("Shape of the badge", {"enum": [*badges.CORNER_RADIUS_BY_STYLE]}),
    "after": (
        "Continue after the document with this time and ID",
        {**_TEXT, "examples": ["2015-01-22T09:30:00.000Z,8b1d"]},
    ),
    "begin_date": ("First day or month", _TEXT),
    "end_date": ("Last day or month", _TEXT),
    "dataset_id": ("Only this item", _TEXT),
    "metric_type": ("Metrics, separated by |", _TEXT),
    "access_method": ("Access methods, separated by |", _TEXT),
    "release": ("Release of the Code of Practice", _TEXT),
    "api_key": ("API key, for harvesters that send no header", _TEXT),
}
_COUNTER_PARAMETERS: Final = (
    *("begin_date", "end_date", "dataset_id", "metric_type", "access_method", "tz", "release", "api_key"),
)
_FILTERS: Final[Schema] = {
    "name": "filters",
    "in": "query",
    "description": "Any other name is a field to filter by, as in `event=view&LCP>=100`",
    "style": "form",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": _TEXT},
}

_ERRORS: Final[dict[str, str]] = {
    "400": "BadRequest",
    "401": "Unauthorized",
    "403": "Forbidden",
    "404": "NotFound",
    "408": "RequestTimeout",
    "413": "PayloadTooLarge",
    "415": "UnsupportedEncoding",
    "503": "Unavailable",
}
_ERROR_TEXTS: Final = {
    "BadRequest": "A parameter or the body is invalid, or the query is too expensive; `detail` says what to change",
    "Unauthorized": "A valid key is needed",
    "Forbidden": "The key lacks the scope, or is not for this origin",
    "NotFound": "There is no such report or part",
    "RequestTimeout": "The body did not arrive in time",
    "PayloadTooLarge": "The body, an event or the number of events is over a limit",
    "UnsupportedEncoding": "The content encoding is not supported",
    "Unavailable": "The server or its store cannot respond now: repeat the request after `Retry-After` seconds",
}
_READ_ERRORS: Final = ("400", "401", "403", "503")
_WRITE_ERRORS: Final = ("400", "401", "403", "408", "413", "415", "503")


class Operation(NamedTuple):
    """What a method of a path does.

    Attributes:
        summary: in a few words.
        tag: the group that it belongs to.
        scope: what a request needs; None for nothing.
        parameters: names of its parameters in the query string, which are in `_PARAMETERS`.
        responses: the successful ones: status, and media types with their schemas.
        errors: statuses of the errors that it may respond with.
        has_filters: whether other parameters are filters.
        body: media types of the request's body with their schemas.

    """

    summary: str
    tag: str
    scope: Scope | None
    parameters: Collection[str] = ()
    responses: Mapping[str, Mapping[str, Schema]] = {"200": {_JSON: {}}}
    errors: Collection[str] = _READ_ERRORS
    has_filters: bool = False
    body: Mapping[str, Schema] | None = None


_EVENT: Final[Schema] = {"type": "object", "examples": [{"id": "rivers", "event": "view"}]}
_TABLE_RESPONSES: Final = {
    suffix: {"200": {media_type: _TEXT}, "304": {}} for suffix, media_type in MEDIA_TYPES.items()
}
_QUERY_RESPONSES: Final = {
    "200": {_JSON: _QUERY_RESULT, **dict.fromkeys(MEDIA_TYPES.values(), _TEXT)},
    "304": {},
}
_HEALTH: Final = {"200": {_JSON: _STATUS}, "503": {_JSON: _STATUS}}

_OPERATIONS: Final[dict[str, Operation]] = {
    "POST /tick": Operation(
        "Send events",
        "events",
        Scope.TICK,
        responses={"200": {_JSON: _DOCUMENT_RESULT}, "204": {}},
        errors=_WRITE_ERRORS,
        body={
            _JSON: {"anyOf": [_EVENT, _array(_EVENT)]},
            _NDJSON: _TEXT,
            "application/x-www-form-urlencoded": _EVENT,
        },
    ),
    "GET /tick.gif": Operation(
        "Send an event with an image",
        "events",
        Scope.TICK,
        responses={"200": {"image/gif": {}}, "204": {}},
        errors=_WRITE_ERRORS,
        has_filters=True,
    ),
    "GET /documents": Operation(
        f"Stored documents, oldest first, in pages of up to {PAGE_MAX_DOCUMENTS:,}",
        "documents",
        Scope.QUERY,
        parameters=DOCUMENT_PARAMETERS,
        responses={"200": {_NDJSON: _TEXT}, "304": {}},
        has_filters=True,
    ),
    "POST /documents": Operation(
        "Put documents of an archive or an export into the store",
        "documents",
        Scope.IMPORT,
        responses={"200": {_JSON: _DOCUMENT_RESULT}},
        errors=_WRITE_ERRORS,
        body={_NDJSON: _TEXT},
    ),
    "GET /query": Operation(
        "Count, group and filter events",
        "queries",
        Scope.QUERY,
        parameters=QUERY_PARAMETERS,
        responses=_QUERY_RESPONSES,
        has_filters=True,
    ),
    "POST /query": Operation(
        "Count, group and filter events, by a query in the body",
        "queries",
        Scope.QUERY,
        responses=_QUERY_RESPONSES,
        errors=_WRITE_ERRORS,
        body={_JSON: {"type": "object"}},
    ),
    "GET /badge/{id}.svg": Operation(
        "A badge with views or downloads",
        "reports",
        Scope.TOCK,
        parameters=badges.PARAMETERS,
        responses={"200": {"image/svg+xml": _TEXT}, "304": {}},
    ),
    "GET /counter/status": Operation("State of the SUSHI service", "COUNTER", Scope.TOCK, ("api_key",)),
    "GET /counter/reports": Operation(
        "The SUSHI reports",
        "COUNTER",
        Scope.TOCK,
        ("api_key",),
        {"200": {_JSON: _array({"type": "object"})}, "304": {}},
    ),
    "GET /counter/reports/{report}": Operation(
        "The SUSHI dataset report `dsr`", "COUNTER", Scope.QUERY, _COUNTER_PARAMETERS, errors=("404", *_READ_ERRORS)
    ),
    "POST /forget": Operation(
        "Forget events",
        "forgetting",
        Scope.ADMIN,
        responses={status: {_JSON: {"type": "object"}} for status in ("200", "202")},
        errors=_WRITE_ERRORS,
        body={_JSON: {"type": "object"}},
    ),
    "GET /forget.json": Operation("All requests to forget events", "forgetting", Scope.ADMIN),
    "GET /forget/{id}.json": Operation(
        "How far a request to forget events is", "forgetting", Scope.ADMIN, errors=("404", *_READ_ERRORS)
    ),
    "POST /backup": Operation("Prepare a backup of the data folder", "operation", Scope.ADMIN, errors=_WRITE_ERRORS),
    "GET /health/live": Operation("Whether the process runs", "health", None, (), {"200": {_JSON: _STATUS}}, ()),
    "GET /health/ready": Operation("Whether the server accepts events", "health", None, (), _HEALTH, ()),
    "GET /health/ready/{part}": Operation(
        "The same for one part: spool, store or archive", "health", None, (), _HEALTH, ("404",)
    ),
    "GET /metrics": Operation(
        "Metrics for Prometheus", "health", Scope.QUERY, (), {"200": {"text/plain": _TEXT}}, ("401", "403", "503")
    ),
    f"GET {PATH}": Operation(
        "This description", "health", None, (), {"200": {_JSON: {"type": "object"}}, "304": {}}, ()
    ),
}
"""What is not a report, by method and path."""

UNKNOWN_SYSTEM: Final = "another system"
_OTHER_SYSTEMS: Final = {
    "/matomo.php": "Matomo",
    "/piwik.php": "Matomo",
    "/index.php": "Matomo",
    "/": "Matomo",
    "/es": "Elasticsearch",
    "/v1": "OpenTelemetry",
    "/api/event": "Plausible",
    "/api/send": "Umami",
    "/count": "GoatCounter",
    "/api/v0/count": "GoatCounter",
    **{endpoint.prefix + endpoint.path: "micro-metrics" for endpoint in MICRO_METRICS_ENDPOINTS},
    **dict.fromkeys(MICROTICKS_PATHS, "microticks"),
    "/api/report": "micro-metrics",
    "/api/tags": "micro-metrics",
    "/api/tag-values": "micro-metrics",
    "/api/types": "micro-metrics",
}
"""The systems whose clients use a path, or the paths below it."""


def describe_api(
    routes: Iterable[web.RouteDef],
    reports: Iterable[Report],
    selections: Iterable[SelectionReport],
    base_path: str = "",
) -> dict[str, Any]:
    """Return the description of the API.

    Args:
        routes: those of reports and documents.
        reports: the reports about items.
        selections: the reports about what a query string selects.
        base_path: the path that all paths are below.

    """
    operations = {**_OPERATIONS, **_report_operations(reports, selections)}
    addresses = dict.fromkeys(
        [
            *((endpoint.method, endpoint.prefix + endpoint.path) for endpoint in (*NATIVE_ENDPOINTS, *ENDPOINTS)),
            *(("POST", path) for path in MICROTICKS_PATHS),
            *((route.method, route.path) for route in routes),
            *(tuple(address.split(" ", 1)) for address in _OPERATIONS if _ELSEWHERE.search(address)),
            ("GET", PATH),
        ]
    )
    paths: dict[str, dict[str, Any]] = {}
    for method, pattern in addresses:
        # Paths that begin with two slashes are the same again, for clients whose URL ends with one.
        if method == "*" or pattern.startswith("//"):
            continue
        path = _VARIABLE.sub(r"{\1}", pattern)
        operation = operations.get(f"{method} {path}") or _other_operation(path)
        paths.setdefault(path, {})[method.lower()] = _describe_operation(method, path, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Metronome",
            "version": __version__,
            "summary": "Self-hosted usage analytics",
            "description": "Item IDs in paths may have slashes, which may be percent-encoded. The paths of "
            "true-micro-analytics below /hit, and those of the page, are not listed.",
        },
        "servers": [{"url": base_path or "/"}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "an API key"}},
            "schemas": {
                "Problem": _object({"type": _TEXT, "title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT})
            },
            "responses": {
                name: {
                    "description": text,
                    "content": {_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
                for name, text in _ERROR_TEXTS.items()
            },
        },
    }


def openapi_route(document: Callable[[], dict[str, Any]]) -> web.RouteDef:
    """Return the route ``GET /openapi.json``; *document* is called once, by the first request."""
    bodies: list[bytes] = []

    async def get_description(request: web.Request) -> web.Response:
        if not bodies:
            bodies.append(orjson.dumps(document()))
        return cached_response(request, Content(bodies[0]), compress=True)

    return web.get(PATH, get_description)


def _report_operations(reports: Iterable[Report], selections: Iterable[SelectionReport]) -> dict[str, Operation]:
    operations: dict[str, Operation] = {}

    def add(
        name: str, path: str, scope: Scope, parameters: Collection[str], *, of_item: bool, json_suffix: str
    ) -> None:
        summary = _SUMMARIES[name, of_item]
        responses = {"200": {_JSON: _REPORT_SCHEMAS[name, of_item]}, "304": {}}
        operations[f"GET {path}{json_suffix}"] = Operation(summary, "reports", scope, parameters, responses)
        for suffix in MEDIA_TYPES:
            operations[f"GET {path}.{suffix}"] = Operation(
                f"{summary}, as {suffix.upper()}", "tables", scope, parameters, _TABLE_RESPONSES[suffix]
            )

    for report in reports:
        if report.parameters is not None:
            path = f"/{report.name}/{{id}}"
            add(report.name, path, report.scope, report.parameters, of_item=True, json_suffix=".json")
        if report.site_parameters is not None:
            path = f"/{report.name}"
            add(report.name, path, report.scope, report.site_parameters, of_item=False, json_suffix=".json")
    for selection in selections:
        path, suffix = f"/{selection.name}", selection.json_suffix
        add(selection.name, path, selection.scope, selection.parameters, of_item=False, json_suffix=suffix)
    counter_parameters = ("from", "to", "tz", "api_key")
    add("counter", "/counter/{id}", Scope.TOCK, counter_parameters, of_item=True, json_suffix=".json")
    for suffix in MEDIA_TYPES:
        for method in ("GET", "POST"):
            operation = _OPERATIONS[f"{method} /query"]
            operations[f"{method} /query.{suffix}"] = operation._replace(
                summary=f"{operation.summary}, as {suffix.upper()}", tag="tables", responses=_TABLE_RESPONSES[suffix]
            )
    return operations


def _other_operation(path: str) -> Operation:
    """Return what a path of another system's clients does."""
    names = (
        name
        for known, name in _OTHER_SYSTEMS.items()
        if path == known or (known != "/" and path.startswith((f"{known}/", f"{known}.")))
    )
    system = next(names, UNKNOWN_SYSTEM)
    return Operation(f"For clients of {system}", "other systems", None, responses={}, errors=())


def _describe_operation(method: str, path: str, operation: Operation) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {**_TEXT, "minLength": 1}}
        for name in _VARIABLE.findall(path)
    ]
    for name in operation.parameters:
        description, schema = _PARAMETERS.get(f"{path.strip('/').partition('.')[0]}:{name}") or _PARAMETERS[name]
        parameters.append({"name": name, "in": "query", "description": description, "schema": schema})
    if operation.has_filters:
        parameters.append(dict(_FILTERS))
    responses: dict[str, Any] = {
        status: {
            "description": {"304": "Not changed since the response with this ETag"}.get(status, "Success"),
            **(
                {"content": {media_type: {"schema": schema} for media_type, schema in content.items()}}
                if content
                else {}
            ),
        }
        for status, content in operation.responses.items()
    }
    responses |= {status: {"$ref": f"#/components/responses/{_ERRORS[status]}"} for status in operation.errors}
    if not responses:
        responses["default"] = {"description": "As that system responds"}
    name = re.sub(r"[^a-z0-9]+", "_", f"{method} {path}".lower()).strip("_")
    return {
        "operationId": name,
        "summary": operation.summary,
        "tags": [operation.tag],
        **({"description": f"Needs the scope `{operation.scope}`, unless that is public."} if operation.scope else {}),
        **({"security": [{}, {"key": []}]} if operation.scope else {}),
        **({"parameters": parameters} if parameters else {}),
        **(
            {"requestBody": {"content": {media: {"schema": schema} for media, schema in operation.body.items()}}}
            if operation.body
            else {}
        ),
        "responses": responses,
    }
