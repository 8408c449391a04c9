"""The connection to Elasticsearch or OpenSearch: its configuration, its client, and the meaning of its errors.

Elasticsearch's client is used for both, with plain JSON, which all versions of both understand. It refuses other
servers by a header that only Elasticsearch sends; `_Node` adds that to the responses of what is OpenSearch.
"""

import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import orjson
from elastic_transport import AiohttpHttpNode, HttpHeaders, OrjsonSerializer
from elastic_transport._node import NodeApiResponse
from elastic_transport.client_utils import DEFAULT, DefaultType
from elasticsearch import ApiError, AsyncElasticsearch, TransportError

from metronome.errors import ConfigurationError, Malformed, MetronomeError, StoreAccessDenied, StoreUnavailable
from metronome.retry import Backoff, retry

DEFAULT_PORT: Final = 9200
REQUEST_TIMEOUT_SECONDS: Final = 60.0
_NEW_INDEX_BACKOFF: Final = Backoff(0.05, 0.8)
_NEW_INDEX_ATTEMPTS: Final = 6
"""How often to search, over about 1.5 seconds, before the shards of a new index count as missing."""

SUCCESS_STATUSES: Final = range(200, 300)
BAD_REQUEST_STATUS: Final = 400
FORBIDDEN_STATUSES: Final = (401, 403)
NOT_FOUND_STATUS: Final = 404
CONFLICT_STATUS: Final = 409
_TOO_LARGE_STATUS = 413
_UNAVAILABLE_STATUS = 503

_URL_SEPARATOR = re.compile(r",(?=https?://)")
_PREFIX_PATTERN = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
_BULK_SUCCESS_START = b'{"errors":false,"items":[{"create":'
_MISSING_SHARDS_TYPES = ("search_phase_execution_exception", "no_shard_available_action_exception")
_REASON_MAX_CHARACTERS = 500
_QUOTED_CHARACTERS = 100

_PRODUCT_HEADER = "X-Elastic-Product"
_OPENSEARCH_TAGLINE = "The OpenSearch Project"
"""How the response to ``GET /`` begins to introduce itself, whatever version it pretends to have."""
_JSON = "application/json"

SearchResult = TypeVar("SearchResult")


class Product(StrEnum):
    """What a server is."""

    ELASTICSEARCH = "Elasticsearch"
    OPENSEARCH = "OpenSearch"


_responding_product: ContextVar[Product] = ContextVar("responding_product", default=Product.ELASTICSEARCH)
"""The product that the current task's last response is from, so that errors can name it."""


def product_name() -> Product:
    """Return the name of the product that the current task's last request was sent to, for the text of an error."""
    return _responding_product.get()


@dataclass(frozen=True, slots=True)
class ElasticsearchConfig:
    """The address of Elasticsearch and the credentials to use.

    Attributes:
        url: may contain ``user:password@``, both percent-encoded. Several nodes have commas between them.
        api_key: the encoded API key to use instead of a user.
        ca_certs: the file with the certificates of the accepted certificate authorities.
        prefix: the beginning of the names of the events' indices.

    Raises:
        ConfigurationError: the URL or the prefix is invalid.

    """

    url: str = field(repr=False)
    api_key: str | None = field(default=None, repr=False)
    ca_certs: str | None = None
    prefix: str = "metronome"

    @property
    def urls(self) -> list[str]:
        """The URL of each node."""
        return _URL_SEPARATOR.split(self.url)

    def __post_init__(self) -> None:
        """Reject an invalid URL or prefix."""
        # URLs may contain a password.
        if not self.urls or not all(map(_is_valid_url, self.urls)):
            raise ConfigurationError(
                "invalid URL of Elasticsearch or OpenSearch: expected https://user:password@host:9200, "
                "or several with commas between them"
            )
        if len({urlsplit(url).netloc.rpartition("@")[0] for url in self.urls}) > 1:
            raise ConfigurationError("the URLs of one cluster have different users: use the same user in each")
        if _PREFIX_PATTERN.fullmatch(self.prefix) is None:
            raise ConfigurationError(
                f"invalid index prefix {self.prefix!r}: expected lower-case letters, digits, '-', '_' and '.', "
                "a letter or digit first"
            )


def _is_valid_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and "," not in (parts.hostname or ",") and port != 0


class ShardsUnavailable(StoreUnavailable):
    """Some shards cannot be searched: their index is new, or a node is down."""


class UnexpectedResponse(StoreUnavailable):
    """A response is not one of the product, or lacks what belongs in it."""

    advice = (
        "check that the store's URL is that of Elasticsearch or OpenSearch, and what a proxy in front of it responds; "
        "no event is lost meanwhile"
    )


class IndexUnavailable(StoreUnavailable):
    """The index of an event cannot be written to now; events of other indices are stored meanwhile."""

    advice = "bring back the node that has the index, or restore the index from a snapshot; the spool keeps the events"
    public_message = "the store cannot store some events at the moment; no event is lost"


class IndexMissing(IndexUnavailable):
    """The index of an event does not exist, and Elasticsearch does not create it."""

    advice = (
        "let the cluster create the indices that the message names (action.auto_create_index), or restore them; "
        "the spool keeps the events"
    )


class IndexClosed(IndexUnavailable):
    """The index of an event is closed."""

    advice = "open or delete the index that the message names; the spool keeps the events"


class IndexBlocked(IndexUnavailable):
    """The index of an event is read-only, usually because a disk of Elasticsearch is full."""

    advice = (
        "free disk space on the cluster's nodes, which then removes the block of a full disk (flood stage); "
        "remove any other block with the index's settings; the spool keeps the events"
    )


class ShardLimitReached(IndexUnavailable):
    """Elasticsearch does not create the index of an event, because it has too many shards."""

    advice = "raise cluster.max_shards_per_node, add a node or delete old indices; the spool keeps the events"


class IndexMappingWrong(IndexUnavailable):
    """An index was created without Metronome's index template, so that its fields cannot be counted."""

    advice = (
        "delete the index that the message names, or reindex it under its name with Metronome's index template; "
        "the spool keeps the events"
    )
    public_message = "the operator of this service has to correct an index of the store; no event is lost"


class TemplateRejected(ConfigurationError):
    """Elasticsearch rejects the index template of this installation."""

    retry = True
    advice = "correct what the message names; the spool keeps the events"


class RequestRejected(Malformed):
    """Elasticsearch rejects the request; the message contains its reason."""


class RequestTooLarge(Malformed):
    """A request is larger than Elasticsearch's ``http.max_content_length``."""


class _Node(AiohttpHttpNode):
    _product: Product | None = None

    async def perform_request(  # type: ignore[override]  # as its own parent does: it is the asynchronous one
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: HttpHeaders | None = None,
        request_timeout: DefaultType | float | None = DEFAULT,
    ) -> NodeApiResponse:
        if self._product is not None:
            _responding_product.set(self._product)
        plain = HttpHeaders({**(headers or {}), "accept": _JSON, **({"content-type": _JSON} if body else {})})
        response = await self._send(method, target, body, plain, request_timeout)
        if _PRODUCT_HEADER in response.meta.headers:
            self._product = Product.ELASTICSEARCH
        elif await self._is_opensearch(plain, request_timeout):
            marked = HttpHeaders({**response.meta.headers, _PRODUCT_HEADER: Product.ELASTICSEARCH})
            response = NodeApiResponse(replace(response.meta, headers=marked), response.body)
        _responding_product.set(self._product or Product.ELASTICSEARCH)
        return response

    async def _is_opensearch(self, headers: HttpHeaders, request_timeout: DefaultType | float | None) -> bool:
        if self._product is None:
            root = await self._send("GET", "/", None, headers, request_timeout)
            if _is_opensearch_root(root.body):
                self._product = Product.OPENSEARCH
        return self._product is Product.OPENSEARCH

    async def _send(
        self,
        method: str,
        target: str,
        body: bytes | None,
        headers: HttpHeaders,
        request_timeout: DefaultType | float | None,
    ) -> NodeApiResponse:
        # aiohttp sends bytes in one piece, and warns that this blocks the event loop; it sends a file in chunks.
        chunks: Any = BytesIO(body) if body else None
        response: Any = await super().perform_request(method, target, chunks, headers, request_timeout)
        return NodeApiResponse(*response)

    def _log_request(  # type: ignore[override]  # it is called by names only
        self, *, body: Any = None, response: Any = None, **request: Any
    ) -> None:
        # Logs must not contain events.
        del body, response
        super()._log_request(**request, body=None, response=None)


def _is_opensearch_root(body: bytes) -> bool:
    try:
        root = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(root, dict) and str(root.get("tagline")).startswith(_OPENSEARCH_TAGLINE)


class _ResponseSerializer(OrjsonSerializer):
    """Parses responses, but not the items of a successful ``_bulk``: that took half of the writer's time."""

    def loads(self, data: bytes) -> Any:
        if data.startswith(_BULK_SUCCESS_START):
            return {"errors": False}
        return super().loads(data)


class _Client(AsyncElasticsearch):
    """A client that only returns JSON objects, as all responses of Elasticsearch that are used here are."""

    async def perform_request(self, *arguments: Any, **options: Any) -> Any:
        response = await super().perform_request(*arguments, **options)
        if not isinstance(response.body, dict | bool):
            raise UnexpectedResponse(
                f"the response is not one of {product_name()}: {response.meta.status} "
                f"{str(response.body)[:_QUOTED_CHARACTERS]}"
            )
        return response


def create_client(config: ElasticsearchConfig) -> AsyncElasticsearch:
    """Return a client that does not retry, as the shipper does, but on other nodes if one cannot be connected to.

    Raises:
        ConfigurationError: the file with certificates does not exist.

    """
    parts = urlsplit(config.urls[0])
    options: dict[str, Any] = {}
    if config.api_key is not None:
        options["api_key"] = config.api_key
    elif parts.username is not None:
        options["basic_auth"] = (unquote(parts.username), unquote(parts.password or ""))
    if config.ca_certs is not None:
        if not Path(config.ca_certs).is_file():
            raise ConfigurationError(f"invalid certificate file {config.ca_certs!r}: expected an existing file")
        options["ca_certs"] = config.ca_certs
    return _Client(
        [_node_url(url) for url in config.urls],
        node_class=_Node,
        # A node that does not respond in time is not left for another one: it may be the request.
        max_retries=len(config.urls) - 1,
        retry_on_timeout=False,
        retry_on_status=(),
        request_timeout=REQUEST_TIMEOUT_SECONDS,
        serializers={_JSON: _ResponseSerializer(), "application/vnd.elasticsearch+json": OrjsonSerializer()},
        **options,
    )


def _node_url(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}:{parts.port or DEFAULT_PORT}{parts.path.rstrip('/')}"


async def detect_product(client: AsyncElasticsearch) -> Product:
    """Return the product that a client is connected to.

    Raises:
        StoreUnavailable: it does not respond.

    """
    with translate_errors():
        await client.cluster.health(filter_path="status")
    return product_name()


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise Metronome's errors in place of those of the client.

    Raises:
        StoreUnavailable: Elasticsearch does not respond in time, or is overloaded.
        StoreAccessDenied: it rejects the credentials, or they lack a privilege.
        RequestRejected: it rejects the request.
        RequestTooLarge: the request has too many bytes.

    """
    try:
        yield
    except ApiError as error:
        raise build_error(error.status_code, error.body) from error
    except TransportError as error:
        raise StoreUnavailable(f"{product_name()} does not respond: {error.message}") from error


async def retry_missing_shards(search: Callable[[], Awaitable[SearchResult]]) -> SearchResult:
    """Run a search, and retry it for a moment while shards are missing: those of each new index are at first."""
    return await retry(
        search,
        _NEW_INDEX_BACKOFF,
        should_retry=lambda error: isinstance(error, ShardsUnavailable),
        max_attempts=_NEW_INDEX_ATTEMPTS,
    )


def build_error(status: int, body: Any) -> MetronomeError:
    """Return the error for an unsuccessful response.

    Args:
        status: the HTTP status, or that of a single search in ``_msearch``.
        body: the parsed body of the response.

    """
    error = body.get("error", body) if isinstance(body, dict) else body
    reason = f"{status} {format_reason(error)}"
    if status in FORBIDDEN_STATUSES:
        return StoreAccessDenied(f"{product_name()} denies access: {reason}")
    if status == _TOO_LARGE_STATUS:
        return RequestTooLarge(f"the request is too large for {product_name()}: {reason}")
    if status == BAD_REQUEST_STATUS:
        # Elasticsearch rejects what it was sent: a proxy that does must not make dead letters of events.
        return RequestRejected(reason) if isinstance(error, dict) and "type" in error else UnexpectedResponse(reason)
    if status == _UNAVAILABLE_STATUS and isinstance(error, dict) and error.get("type") in _MISSING_SHARDS_TYPES:
        return ShardsUnavailable(f"{product_name()} cannot search all events now: {reason}")
    if status in SUCCESS_STATUSES:
        # The client raises this for a response without Elasticsearch's header.
        return UnexpectedResponse(f"the response is not one of {product_name()}: {reason}")
    return StoreUnavailable(f"{product_name()} is not available: {reason}")


def read_key(response: Any, key: str, kind: type[SearchResult]) -> SearchResult:
    """Return a required value of a response.

    Args:
        response: the parsed body.
        key: the name of the value.
        kind: its type.

    Raises:
        UnexpectedResponse: the response lacks the value.

    """
    value = response.get(key) if isinstance(response, dict) else None
    if not isinstance(value, kind):
        raise UnexpectedResponse(f"{product_name()}'s response lacks {key!r}: {str(response)[:_QUOTED_CHARACTERS]}")
    return value


def check_shards(response: dict[str, Any]) -> None:
    """Raise an error if a response is not that of all shards.

    Raises:
        StoreUnavailable: a shard failed, or did not respond in time.
        UnexpectedResponse: the response is not that of a search.

    """
    shards = read_key(response, "_shards", dict)
    if response.get("timed_out") or shards.get("failed"):
        failures = shards.get("failures", ())
        reason = format_reason(failures[0].get("reason")) if failures else "not all shards responded"
        raise StoreUnavailable(f"{product_name()} returned a partial result: {reason}")


def is_caused_by(error: Any, kind: str) -> bool:
    """Return whether an error in a response, or one of its causes, has that type."""
    while isinstance(error, dict):
        if kind in (error.get("type"), *(cause.get("type") for cause in error.get("root_cause", ()))):
            return True
        error = error.get("caused_by")
    return False


def format_reason(error: Any) -> str:
    """Return the text of an error in a response and of its causes, in one line."""
    reasons = []
    while isinstance(error, dict):
        reasons.append(f"{error.get('type', 'error')}: {error.get('reason') or 'no reason given'}")
        error = error.get("caused_by")
    return (" — ".join(reasons) or str(error))[:_REASON_MAX_CHARACTERS]
