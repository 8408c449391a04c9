"""The connection to Elasticsearch: how it is configured, and what its failures mean.

How long an answer may take.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from elastic_transport import AiohttpHttpNode, HttpHeaders, OrjsonSerializer
from elastic_transport.client_utils import DEFAULT, DefaultType
from elasticsearch import ApiError, AsyncElasticsearch, TransportError

from metronome.errors import (
    ConfigurationError,
    Malformed,
    MetronomeError,
    QueryTooExpensive,
    StoreAccessDenied,
    StoreUnavailable,
)

DEFAULT_PORT: Final = 9200
REQUEST_TIMEOUT_SECONDS: Final = 60.0

NEW_INDEX_RETRY_DELAYS: Final = (0.05, 0.1, 0.2, 0.4, 0.8)
"""How many seconds to wait for a new index, again and again, before its shards count as missing."""

_PREFIX_PATTERN = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
_BULK_SUCCESS_START = b'{"errors":false,"items":[{"create":'
_FORBIDDEN_STATUSES = (401, 403)
_BAD_REQUEST_STATUS = 400
_TOO_LARGE_STATUS = 413
_UNAVAILABLE_STATUS = 503
_MISSING_SHARDS_TYPES = ("search_phase_execution_exception", "no_shard_available_action_exception")
_REASON_MAX_CHARACTERS = 500

SearchResult = TypeVar("SearchResult")


@dataclass(frozen=True, slots=True)
class ElasticsearchConfig:
    """Where Elasticsearch is, and as whom to speak to it.

    Attributes:
        url: its address; may hold ``user:password@``, each percent-encoded.
        api_key: the encoded API key to use instead of a user.
        ca_certs: the file with the certificates of those who may vouch for the server.
        prefix: what the names of the events' indices begin with.

    Raises:
        ConfigurationError: the address or the prefix cannot be one.

    """

    url: str = field(repr=False)
    api_key: str | None = field(default=None, repr=False)
    ca_certs: str | None = None
    prefix: str = "metronome"

    def __post_init__(self) -> None:
        """Refuse what no server could have."""
        try:
            parts = urlsplit(self.url)
            known = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            known = False
        if not known:
            raise ConfigurationError("the address of Elasticsearch is not like https://user:password@host:9200")
        if _PREFIX_PATTERN.fullmatch(self.prefix) is None:
            raise ConfigurationError(
                f"{self.prefix!r} cannot begin the name of an index: use lower-case letters, digits, and -_. between"
            )


class ShardsUnavailable(StoreUnavailable):
    """Some data cannot be searched: for a moment, since an index is new, or since a machine is away."""


class IndexMissing(StoreUnavailable):
    """The index of an event does not exist, and Elasticsearch does not create it."""

    advice = (
        "let Elasticsearch create the indices that the message names (action.auto_create_index), or restore them; "
        "the spool keeps the events"
    )
    public_message = "the store cannot store events at the moment; no event is lost"


class RequestRejected(Malformed):
    """Elasticsearch does not take this request; the message holds its reason."""


class RequestTooLarge(Malformed):
    """A request is larger than Elasticsearch's ``http.max_content_length``."""


class _StreamingNode(AiohttpHttpNode):
    async def perform_request(  # type: ignore[override]  # as its own parent does: it is the asynchronous one
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: HttpHeaders | None = None,
        request_timeout: DefaultType | float | None = DEFAULT,
    ) -> Any:
        # aiohttp sends bytes in one go, and warns that this holds up all else; a file it sends bit by bit.
        bits: Any = BytesIO(body) if body else None
        return await super().perform_request(method, target, bits, headers, request_timeout)

    def _log_request(  # type: ignore[override]  # it is called by names only
        self, *, body: Any = None, response: Any = None, **request: Any
    ) -> None:
        # Events are nobody's business in a log.
        del body, response
        super()._log_request(**request, body=None, response=None)


class _ResponseSerializer(OrjsonSerializer):
    """Reads responses; of a bulk that went well only that it did, since reading it took half of a writer's time."""

    mimetype = "application/vnd.elasticsearch+json"

    def loads(self, data: bytes) -> Any:
        if data.startswith(_BULK_SUCCESS_START):
            return {"errors": False}
        return super().loads(data)


def create_client(config: ElasticsearchConfig) -> AsyncElasticsearch:
    """Make a client that never tries a request again: backing off is the shipper's.

    Raises:
        ConfigurationError: there is no such file of certificates.

    """
    parts = urlsplit(config.url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    options: dict[str, Any] = {}
    if config.api_key is not None:
        options["api_key"] = config.api_key
    elif parts.username is not None:
        options["basic_auth"] = (unquote(parts.username), unquote(parts.password or ""))
    if config.ca_certs is not None:
        if not Path(config.ca_certs).is_file():
            raise ConfigurationError(f"{config.ca_certs} is no file with certificates")
        options["ca_certs"] = config.ca_certs
    return AsyncElasticsearch(
        f"{parts.scheme}://{host}:{parts.port or DEFAULT_PORT}{parts.path.rstrip('/')}",
        node_class=_StreamingNode,
        max_retries=0,
        retry_on_timeout=False,
        retry_on_status=(),
        request_timeout=REQUEST_TIMEOUT_SECONDS,
        serializers={"application/json": OrjsonSerializer(), _ResponseSerializer.mimetype: _ResponseSerializer()},
        **options,
    )


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn the client's errors into those that a store may raise.

    Raises:
        StoreUnavailable: it did not answer, or not in time, or was too busy.
        StoreAccessDenied: it did not accept the credentials, or they lack a right.
        NotUnderstood: it does not take this request.
        BodyTooLarge: the request has too many bytes.

    """
    try:
        yield
    except ApiError as error:
        raise build_error(error.status_code, error.body) from error
    except TransportError as error:
        raise StoreUnavailable(f"Elasticsearch does not answer: {error.message}") from error


async def retry_missing_shards(search: Callable[[], Awaitable[SearchResult]]) -> SearchResult:
    """Search, and again a few times where shards are missing: each day's new index takes a moment."""
    for pause in NEW_INDEX_RETRY_DELAYS:
        try:
            return await search()
        except ShardsUnavailable:
            await asyncio.sleep(pause)
    return await search()


def build_error(status: int, body: Any) -> MetronomeError:
    """Return the error that an answer with that status means.

    Args:
        status: the HTTP status, or the one of a single search among many.
        body: what came with it.

    """
    error = body.get("error", body) if isinstance(body, dict) else body
    reason = f"{status} {format_reason(error)}"
    if status in _FORBIDDEN_STATUSES:
        return StoreAccessDenied(f"Elasticsearch does not allow this: {reason}")
    if status == _TOO_LARGE_STATUS:
        return RequestTooLarge(f"this is too large for Elasticsearch: {reason}")
    if status == _BAD_REQUEST_STATUS:
        return RequestRejected(reason)
    if status == _UNAVAILABLE_STATUS and isinstance(error, dict) and error.get("type") in _MISSING_SHARDS_TYPES:
        return ShardsUnavailable(f"Elasticsearch cannot search all events now: {reason}")
    return StoreUnavailable(f"Elasticsearch cannot do this now: {reason}")


def check_shards(response: dict[str, Any]) -> None:
    """Raise if an answer does not hold what all shards know.

    Raises:
        StoreUnavailable: a shard failed, or did not answer in time.

    """
    shards = response.get("_shards", {})
    if response.get("timed_out") or shards.get("failed"):
        failures = shards.get("failures", ())
        why = format_reason(failures[0].get("reason")) if failures else "not all shards answered"
        raise StoreUnavailable(f"Elasticsearch answered in part only: {why}")


def is_caused_by(error: Any, kind: str) -> bool:
    """Return whether an error in a response is of that type, or one that led to it is."""
    while isinstance(error, dict):
        if kind in (error.get("type"), *(cause.get("type") for cause in error.get("root_cause", ()))):
            return True
        error = error.get("caused_by")
    return False


def format_reason(error: Any) -> str:
    """Return what an error in a response says, in one line."""
    said = []
    while isinstance(error, dict):
        said.append(f"{error.get('type', 'error')}: {error.get('reason') or 'no reason given'}")
        error = error.get("caused_by")
    return (" — ".join(said) or str(error))[:_REASON_MAX_CHARACTERS]


@asynccontextmanager
async def query_deadline(timeout_seconds: float, ping: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Break the block off once it takes too long.

    The connection of a search that is broken off is closed, at which Elasticsearch gives the search up.

    Args:
        timeout_seconds: how long it may take.
        ping: raises where the store does not answer anything; then that is what is wrong.

    Raises:
        QueryTooExpensive: it took longer, though the store answers.

    """
    try:
        async with asyncio.timeout(timeout_seconds):
            yield
    except TimeoutError:
        await ping()
        raise QueryTooExpensive(f"the answer takes over {timeout_seconds:g} s") from None
