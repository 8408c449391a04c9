"""Events that a host can report by `Reporter.track`, and the conversion of records to events.

Fields have the names that Metronome uses for Matomo's parameters, so that events are counted alike whichever protocol
they arrive by.
"""

import re
import traceback
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from metronome.middleware.config import ClientConfig
from metronome.middleware.current_request import UNMATCHED, ClientAddressResolver, RequestRecord, TrackedEvent

__all__ = ["content", "download", "event", "exception", "goal", "outlink", "page_view", "site_search"]


def page_view(title: str = "", *, id: str | None = None, url: str | None = None) -> dict[str, Any]:  # noqa: A002  # the field's name
    """Return the event of a page view.

    Args:
        title: the page's title.
        id: the item that the page shows.
        url: the page's URL, if it is not that of the current request.

    """
    return _without_none(event="view", title=title or None, id=id, url=url)


def download(url: str, *, id: str | None = None, format: str | None = None) -> dict[str, Any]:  # noqa: A002  # the fields' names
    """Return the event of a download.

    Args:
        url: the file's URL.
        id: the item that the file belongs to.
        format: the file's format, as ``csv``.

    """
    return _without_none(event="download", download=url, id=id, format=format)


def outlink(url: str) -> dict[str, Any]:
    """Return the event of a click on a link to another site."""
    return _without_none(event="outlink", link=url)


def event(category: str, action: str, name: str | None = None, value: float | None = None) -> dict[str, Any]:
    """Return an event with Matomo's four properties.

    Args:
        category: as ``video``.
        action: as ``play``.
        name: as the title of the video.
        value: a number.

    """
    return _without_none(event="event", category=category, action=action, name=name, value=value)


def site_search(keyword: str, *, category: str | None = None, count: int | None = None) -> dict[str, Any]:
    """Return the event of a search.

    Args:
        keyword: the search terms.
        category: the category searched in.
        count: the number of results.

    """
    return _without_none(event="search", search=keyword, search_category=category, search_count=count)


def goal(number: int, *, revenue: float | None = None) -> dict[str, Any]:
    """Return the event of a goal conversion.

    Args:
        number: Matomo's ID of the goal.
        revenue: the conversion's revenue.

    """
    return _without_none(event="goal", goal=str(number), revenue=revenue)


def content(
    name: str, *, piece: str | None = None, target: str | None = None, interaction: str | None = None
) -> dict[str, Any]:
    """Return the event of a content impression, or of an interaction with content.

    Args:
        name: the content's name.
        piece: the part that was shown, as an image's URL.
        target: the URL that it links to.
        interaction: the kind of interaction, as ``click``; None for an impression.

    """
    return _without_none(
        event="content", content=name, content_piece=piece, content_target=target, content_interaction=interaction
    )


def exception(error: BaseException, *, message: str | None = None) -> dict[str, Any]:
    """Return the event of an error.

    Args:
        error: the exception.
        message: a message, if the exception's own is not the one to report.

    """
    return _without_none(
        event="error",
        message=message or str(error) or type(error).__name__,
        error_type=type(error).__name__,
        error_stack="".join(traceback.format_exception(error)),
    )


def _without_none(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


REQUEST_FIELDS: Final = (
    *("ts", "event", "id", "format", "action", "method", "url", "status", "duration"),
    *("referer", "agent", "lang", "clientip"),
)
"""The fields of a request's event, unless the host adds some."""
IDENTIFYING_FIELDS: Final = frozenset({"clientip", "visitor", "session", "user"})
"""Fields that identify a visitor. Metronome derives no visitor without an IP address."""
MATOMO_IDENTIFYING_FIELDS: Final = IDENTIFYING_FIELDS | {"agent"}
"""Without an IP address, Matomo uses the host's own and distinguishes visitors by user agent."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"})
_OTHER_METHOD: Final = "(other)"
_VIEW_STATUSES: Final = frozenset({200, 206, 304})
_MIN_ERROR_STATUS: Final = 400
_HTTP_SCHEMES: Final = {"ws": "http", "wss": "https"}
_ID_MAX_BYTES: Final = 1024
_CACHE_SIZE: Final = 4096


class PathItem(NamedTuple):
    """The item and the format that a path names."""

    id: str | None
    format: str | None


_NO_ITEM: Final = PathItem(None, None)


class EventBuilder:
    """Converts records to events.

    Args:
        config: the reporter's configuration.

    """

    def __init__(self, config: ClientConfig) -> None:
        self._client_address = ClientAddressResolver(config.trusted_proxies)
        self._honours_signals = config.honour_privacy_signals
        self._identifying_fields = IDENTIFYING_FIELDS if config.protocol == "metronome" else MATOMO_IDENTIFYING_FIELDS
        self._keep_query = config.keep_query
        self._pattern = re.compile(config.item_pattern) if config.item_pattern is not None else None
        self._find_item_cached = lru_cache(_CACHE_SIZE)(self._find_item)

    def build_event(self, record: RequestRecord | TrackedEvent) -> dict[str, Any]:
        """Return the fields of a record's event; ``ts`` is in milliseconds since 1970."""
        return (
            self._build_request_event(record)
            if isinstance(record, RequestRecord)
            else self._build_tracked_event(record)
        )

    def _build_request_event(self, record: RequestRecord) -> dict[str, Any]:
        item = self._find_item_cached(record.path) if self._pattern is not None else _NO_ITEM
        extra_fields: dict[str, Any] = {}
        if record.extra_fields is not None:
            extra_fields = dict(record.extra_fields)
            extra_format = extra_fields.pop("format", None)
            extra_id = extra_fields.get("id")
            if extra_id is not None and extra_id != "":
                item = PathItem(extra_id, extra_format)
        event = classify_request(record.method, record.status, item, failed=record.failed)
        fields: dict[str, Any] = {"ts": int(record.started_at * 1000), "event": event}
        if item.id is not None:
            fields["id"] = item.id
        if item.format and (event == "download" or extra_fields.get("event") == "download"):
            fields["format"] = item.format
        # Clients that probe for missing paths also send arbitrary methods: each would be an action of its own.
        method = record.method if record.route != UNMATCHED or record.method in _METHODS else _OTHER_METHOD
        fields["action"] = f"{method} {record.route}"
        fields["method"] = record.method
        if record.status is not None:
            fields["status"] = record.status
        if record.duration_ms is not None:
            fields["duration"] = round(record.duration_ms, 3)
        self._add_client_fields(fields, record)
        fields.update(extra_fields)
        return self._without_identifying_fields(fields) if record.opted_out else fields

    def _build_tracked_event(self, tracked: TrackedEvent) -> dict[str, Any]:
        timestamp, own_fields, request = tracked
        fields: dict[str, Any] = {"ts": int(timestamp * 1000)}
        if request is not None:
            self._add_client_fields(fields, request)
        fields.update(own_fields)
        return self._without_identifying_fields(fields) if request is not None and request.opted_out else fields

    def _add_client_fields(self, fields: dict[str, Any], record: RequestRecord) -> None:
        fields["url"] = self._request_url(record)
        if record.referrer:
            fields["referer"] = record.referrer
        if record.user_agent:
            fields["agent"] = record.user_agent
        if record.accept_language:
            fields["lang"] = record.accept_language
        address = self._client_address.resolve(record.peer_address, record.forwarded_for)
        if address:
            fields["clientip"] = address

    def _request_url(self, record: RequestRecord) -> str:
        scheme = record.scheme
        if record.forwarded_proto and self._client_address.is_trusted(record.peer_address):
            # The last value is the one that the trusted proxy has added.
            forwarded_scheme = record.forwarded_proto.rpartition(",")[2].strip().lower()
            scheme = forwarded_scheme if forwarded_scheme in {"http", "https", *_HTTP_SCHEMES} else scheme
        url = f"{_HTTP_SCHEMES.get(scheme, scheme)}://{record.host}{record.path}"
        return f"{url}?{record.query}" if record.query and self._keep_query else url

    def _without_identifying_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        if not self._honours_signals:
            return fields
        return {name: value for name, value in fields.items() if name not in self._identifying_fields}

    def _find_item(self, path: str) -> PathItem:
        match = self._pattern.search(path) if self._pattern is not None else None
        if match is None:
            return _NO_ITEM
        item = unquote(match["id"]) if match["id"] else ""
        # Metronome rejects an event with a longer ID.
        if not item or len(item.encode(errors="replace")) > _ID_MAX_BYTES:
            return _NO_ITEM
        item_format = match["format"] if "format" in match.re.groupindex else None
        return PathItem(item, item_format.lower() if item_format else None)


def classify_request(method: str, status: int | None, item: PathItem, *, failed: bool = False) -> str:
    """Return what a request counts as, by the rule that Metronome applies to the lines of access logs.

    Args:
        method: the HTTP method.
        status: the response's status, or None if there was no response.
        item: the item that was requested.
        failed: whether the host raised an error.

    Returns:
        ``view`` or ``download`` for a successful GET of an item; else ``error`` or ``request``.

    """
    if failed:
        return "error"
    if item.id is not None and method == "GET" and status in _VIEW_STATUSES:
        return "download" if item.format else "view"
    return "error" if status is not None and status >= _MIN_ERROR_STATUS else "request"
