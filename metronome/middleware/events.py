"""What is reported of a request, under the names that events have in Metronome.

What a host may say has happened, as `Reporter.track` takes it; each has its place in Metronome and in Matomo.

The names of the fields are those that Metronome gives to Matomo's parameters, so that reports of both kinds are
counted together.
"""

import re
import traceback
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from metronome.middleware.client_address import ClientAddressResolver
from metronome.middleware.config import ClientConfig
from metronome.middleware.current_request import UNMATCHED, RequestRecord, TrackedEvent
from metronome.middleware.json import encode_json


class Product(NamedTuple):
    """One product of an order or a cart.

    Attributes:
        sku: its number.
        name: what it is called.
        category: what it belongs to.
        price: of one, in the site's currency.
        quantity: how many.

    """

    sku: str
    name: str = ""
    category: str = ""
    price: float = 0.0
    quantity: int = 1


def page_view(title: str = "", *, id: str | None = None, url: str | None = None) -> dict[str, Any]:  # noqa: A002  # the field's name
    """Say that a page was seen.

    Args:
        title: of the page.
        id: the item that it shows.
        url: its address, where it is not that of the request.

    """
    return _without_none(event="view", title=title or None, id=id, url=url)


def download(url: str, *, id: str | None = None, format: str | None = None) -> dict[str, Any]:  # noqa: A002  # the fields' names
    """Say that a file was downloaded.

    Args:
        url: of the file.
        id: the item that it is of.
        format: of the file; without it, Metronome counts it as of an unnamed one.

    """
    return _without_none(event="download", download=url, id=id, format=format)


def outlink(url: str) -> dict[str, Any]:
    """Say that somebody went to another site."""
    return _without_none(event="outlink", link=url)


def event(category: str, action: str, name: str | None = None, value: float | None = None) -> dict[str, Any]:
    """Say that something happened, in Matomo's words.

    Args:
        category: what it belongs to, as ``video``.
        action: what was done, as ``play``.
        name: what it was done to.
        value: a number.

    """
    return _without_none(event="event", category=category, action=action, name=name, value=value)


def site_search(keyword: str, *, category: str | None = None, count: int | None = None) -> dict[str, Any]:
    """Say that somebody searched.

    Args:
        keyword: what for.
        category: in what.
        count: how much was found.

    """
    return _without_none(event="search", search=keyword, search_category=category, search_count=count)


def goal(number: int, *, revenue: float | None = None) -> dict[str, Any]:
    """Say that a goal was reached.

    Args:
        number: Matomo's number of the goal.
        revenue: what it brought.

    """
    return _without_none(event="goal", goal=str(number), revenue=revenue)


def content(
    name: str, *, piece: str | None = None, target: str | None = None, interaction: str | None = None
) -> dict[str, Any]:
    """Say that content was shown, or that somebody did something with it.

    Args:
        name: of the content.
        piece: what was shown of it, as the address of a picture.
        target: where it leads.
        interaction: what was done, as ``click``; without it, it was only shown.

    """
    return _without_none(
        event="content", content=name, content_piece=piece, content_target=target, content_interaction=interaction
    )


def product_view(product: Product) -> dict[str, Any]:
    """Say that a product was looked at."""
    return _without_none(
        event="view",
        product=product.sku,
        product_name=product.name or None,
        product_category=product.category or None,
        product_price=product.price or None,
    )


def order(
    number: str,
    revenue: float,
    products: Iterable[Product] = (),
    *,
    subtotal: float | None = None,
    tax: float | None = None,
    shipping: float | None = None,
    discount: float | None = None,
) -> dict[str, Any]:
    """Say that an order was placed.

    Args:
        number: of the order.
        revenue: all of it.
        products: what was ordered.
        subtotal: without tax and shipping.
        tax: of it.
        shipping: of it.
        discount: of it.

    """
    return _without_none(
        event="order",
        goal="0",
        order=number,
        revenue=revenue,
        items=_items(products),
        subtotal=subtotal,
        tax=tax,
        shipping=shipping,
        discount=discount,
    )


def cart(revenue: float, products: Iterable[Product]) -> dict[str, Any]:
    """Say what a cart holds now.

    Args:
        revenue: what all of it costs.
        products: what is in it.

    """
    return _without_none(event="cart", goal="0", revenue=revenue, items=_items(products))


def exception(error: BaseException, *, message: str | None = None) -> dict[str, Any]:
    """Say that an error was raised.

    Args:
        error: the exception.
        message: what is to be read; without it, the exception's own.

    """
    return _without_none(
        event="error",
        message=message or str(error) or type(error).__name__,
        error_type=type(error).__name__,
        error_stack="".join(traceback.format_exception(error)),
    )


def _items(products: Iterable[Product]) -> str:
    return encode_json([[*product] for product in products]).decode()


def _without_none(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


REQUEST_FIELDS: Final = (
    *("ts", "event", "id", "format", "action", "method", "url", "status", "duration"),
    *("referer", "agent", "lang", "clientip"),
)
"""All that is reported of a request, where it is known and the host says nothing more."""
IDENTIFYING_FIELDS: Final = frozenset({"clientip", "visitor", "session", "user"})
"""Fields that tell a visitor from others. Metronome makes no visitor without an address."""
MATOMO_IDENTIFYING_FIELDS: Final = IDENTIFYING_FIELDS | {"agent"}
"""Likewise: where no address is told, Matomo takes the host's own, and tells visitors by their agents."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"})
_OTHER_METHOD: Final = "(other)"
_VIEW_STATUSES: Final = frozenset({200, 206, 304})
_ERRORS_FROM: Final = 400
_HTTP_SCHEMES: Final = {"ws": "http", "wss": "https"}
_ID_MAX_BYTES: Final = 1024
_CACHE_SIZE: Final = 4096


class PathItem(NamedTuple):
    """What a path says of the item that it is of."""

    id: str | None
    format: str | None


_NO_ITEM: Final = PathItem(None, None)


class EventBuilder:
    """Makes events of what was seen and of what the host says.

    Args:
        config: says what of it goes out.

    """

    def __init__(self, config: ClientConfig) -> None:
        self._client_address = ClientAddressResolver(config.trusted_proxies)
        self._honours_signals = config.honour_privacy_signals
        self._identifying_fields = IDENTIFYING_FIELDS if config.protocol == "metronome" else MATOMO_IDENTIFYING_FIELDS
        self._keep_query = config.keep_query
        self._pattern = re.compile(config.item_pattern) if config.item_pattern is not None else None
        self._item = lru_cache(_CACHE_SIZE)(self._find_item)

    def build_event(self, record: RequestRecord | TrackedEvent) -> dict[str, Any]:
        """Return the fields of an event, its time among them as ``ts``, in milliseconds since 1970."""
        return (
            self._build_request_event(record)
            if isinstance(record, RequestRecord)
            else self._build_tracked_event(record)
        )

    def _build_request_event(self, record: RequestRecord) -> dict[str, Any]:
        item = self._item(record.path) if self._pattern is not None else _NO_ITEM
        if record.extra_fields is not None:
            described = dict(record.extra_fields)
            given = described.get("id")
            if given is not None and given != "":
                item = PathItem(given, described.get("format"))
            described.pop("format", None)
        else:
            described = {}
        event = classify_request(record.method, record.status, item, failed=record.failed)
        fields: dict[str, Any] = {"ts": int(record.started_at * 1000), "event": event}
        if item.id is not None:
            fields["id"] = item.id
        if item.format and (event == "download" or described.get("event") == "download"):
            fields["format"] = item.format
        # Whoever asks for what is not there may write any method as well.
        method = record.method if record.route != UNMATCHED or record.method in _METHODS else _OTHER_METHOD
        fields["action"] = f"{method} {record.route}"
        fields["method"] = record.method
        if record.status is not None:
            fields["status"] = record.status
        if record.duration_ms is not None:
            fields["duration"] = round(record.duration_ms, 3)
        self._add_client_fields(fields, record)
        fields.update(described)
        return self._without_identifying_fields(fields) if record.opted_out else fields

    def _build_tracked_event(self, tracked: TrackedEvent) -> dict[str, Any]:
        at, given, hit = tracked
        fields: dict[str, Any] = {"ts": int(at * 1000)}
        if hit is not None:
            self._add_client_fields(fields, hit)
        fields.update(given)
        return self._without_identifying_fields(fields) if hit is not None and hit.opted_out else fields

    def _add_client_fields(self, fields: dict[str, Any], record: RequestRecord) -> None:
        """Add who came, to what address, and from where."""
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
            # The last proxy is the one that is trusted.
            told = record.forwarded_proto.rpartition(",")[2].strip().lower()
            scheme = told if told in {"http", "https", *_HTTP_SCHEMES} else scheme
        url = f"{_HTTP_SCHEMES.get(scheme, scheme)}://{record.host}{record.path}"
        return f"{url}?{record.query}" if record.query and self._keep_query else url

    def _without_identifying_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Take away what tells a visitor from others."""
        if not self._honours_signals:
            return fields
        return {name: value for name, value in fields.items() if name not in self._identifying_fields}

    def _find_item(self, path: str) -> PathItem:
        found = self._pattern.search(path) if self._pattern is not None else None
        if found is None:
            return _NO_ITEM
        item = unquote(found["id"]) if found["id"] else ""
        # Metronome refuses a longer id, and with it the whole event.
        if not item or len(item.encode(errors="replace")) > _ID_MAX_BYTES:
            return _NO_ITEM
        form = found["format"] if "format" in found.re.groupindex else None
        return PathItem(item, form.lower() if form else None)


def classify_request(method: str, status: int | None, item: PathItem, *, failed: bool = False) -> str:
    """Say what a request counts as, by the rule that Metronome has for the lines of access logs.

    Args:
        method: of the request.
        status: what it was answered with, or None where it was not.
        item: what it is of.
        failed: whether the host raised an error.

    Returns:
        A ``view`` or a ``download`` only if a GET showed an item; else ``error`` or ``request``.

    """
    if failed:
        return "error"
    if item.id is not None and method == "GET" and status in _VIEW_STATUSES:
        return "download" if item.format else "view"
    return "error" if status is not None and status >= _ERRORS_FROM else "request"
