"""The addresses under ``/es``, and what is there: one table, of which the first line that fits counts."""

import re
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote

from metronome.errors import MethodNotAllowed, NotFound
from metronome.protocols.elasticsearch import handshakes as tell
from metronome.protocols.elasticsearch.handshakes import HandshakeResponse, PathParameters


class WriteEndpoint(NamedTuple):
    """An address that takes documents.

    Attributes:
        operation: what is done with one that stands alone; nothing where there are many, each with its action.

    """

    operation: str = ""


BULK_ENDPOINT: Final = WriteEndpoint()

_ROUTES: Final[tuple[tuple[str, str, WriteEndpoint | HandshakeResponse | None], ...]] = (
    ("POST PUT", "/_bulk", BULK_ENDPOINT),
    ("POST PUT", "/{index}/_bulk", BULK_ENDPOINT),
    ("POST PUT", "/{index}/{type}/_bulk", BULK_ENDPOINT),
    ("POST", "/{index}/_doc", WriteEndpoint("index")),
    ("POST PUT", "/{index}/_doc/{id}", WriteEndpoint("index")),
    ("POST PUT", "/{index}/_create/{id}", WriteEndpoint("create")),
    ("GET HEAD", "/", tell.cluster_info),
    ("GET HEAD", "/_license", tell.license_info),
    ("GET HEAD", "/_xpack", tell.xpack_info),
    ("GET HEAD", "/_cluster/health", tell.cluster_health),
    ("GET HEAD", "/_cluster/health/{name}", tell.cluster_health),
    ("GET HEAD", "/_cluster/settings", tell.cluster_settings),
    ("GET HEAD", "/_cat/health", tell.cat_health),
    ("GET HEAD", "/_nodes", tell.nodes_info),
    ("GET HEAD", "/_nodes/{name}", tell.nodes_info),
    ("GET HEAD", "/_nodes/{name}/{part}", tell.nodes_info),
    ("GET HEAD", "/_index_template/{name}", tell.index_template),
    ("POST PUT", "/_index_template/{name}", tell.acknowledged),
    ("GET HEAD", "/_template/{name}", tell.legacy_template),
    ("POST PUT", "/_template/{name}", tell.acknowledged),
    ("GET HEAD", "/_component_template/{name}", tell.component_template),
    ("POST PUT", "/_component_template/{name}", tell.acknowledged),
    ("GET HEAD", "/_ingest/pipeline/{name}", tell.ingest_pipeline),
    ("PUT", "/_ingest/pipeline/{name}", tell.acknowledged),
    ("GET HEAD", "/_ilm/policy/{name}", tell.ilm_policy),
    ("PUT", "/_ilm/policy/{name}", tell.acknowledged),
    ("GET HEAD", "/_ilm/status", tell.ilm_status),
    ("GET HEAD", "/_data_stream/{name}", tell.data_stream),
    ("PUT", "/_data_stream/{name}", tell.acknowledged),
    ("PUT", "/_data_stream/{name}/_lifecycle", tell.acknowledged),
    ("GET HEAD", "/_alias/{name}", tell.index_alias),
    ("POST", "/_aliases", tell.acknowledged),
    ("GET HEAD", "/{index}/_alias/{name}", tell.index_alias),
    ("POST PUT", "/{index}/_alias/{name}", tell.acknowledged),
    ("GET POST", "/_refresh", tell.shards_result),
    ("GET POST", "/{index}/_refresh", tell.shards_result),
    ("GET POST", "/_flush", tell.shards_result),
    ("GET POST", "/{index}/_flush", tell.shards_result),
    ("GET HEAD", "/{index}/_mapping", tell.index_mapping),
    ("POST PUT", "/{index}/_mapping", tell.acknowledged),
    ("PUT", "/{index}/_settings", tell.acknowledged),
    # What is asked for or changed in Elasticsearch's way is refused, and never answered as if nothing were there.
    ("", "/{asking}", None),
    ("", "/{index}/{asking}", None),
    ("", "/{index}/{asking}/{id}", None),
    ("GET HEAD", "/{index}", tell.index_info),
    ("PUT", "/{index}", tell.index_created),
)

_PATH_PATTERNS: Final = {
    "index": r"(?P<index>[^/_][^/]*)",
    "type": r"(?P<type>_doc|[^/_][^/]*)",
    "id": r"(?P<id>[^/]+)",
    "name": r"(?P<name>[^/]+)",
    "part": r"(?P<part>[^/]+)",
    "asking": r"(?P<asking>_(?:search|async_search|msearch|count|mget|source|update|update_by_query|delete_by_query"
    r"|reindex|query|sql|eql|pit|field_caps|explain|validate|rank_eval|knn_search))",
}


class RouteMatch(NamedTuple):
    """What a request's address is.

    Attributes:
        taking: what it does with documents, or None if it takes none.
        answer: what it tells, where it takes none.
        names: what varied in the address, decoded.

    """

    write_endpoint: WriteEndpoint | None
    handshake: HandshakeResponse
    path_parameters: PathParameters


def _compile_path(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{(\w+)\\\}", lambda found: _PATH_PATTERNS[found[1]], re.escape(path)))


_COMPILED_ROUTES: Final = tuple(
    (frozenset(methods.split()), _compile_path(path), what) for methods, path, what in _ROUTES
)


@lru_cache(maxsize=256)
def match_route(method: str, path: str) -> RouteMatch:
    """Find what is at an address.

    Args:
        method: of HTTP, in capitals.
        path: what follows the protocol's prefix, percent-encoded.

    Raises:
        MethodNotAllowed: it takes other methods, or is one of those at which Elasticsearch is asked.
        NotFound: nothing is there.

    """
    allowed: set[str] = set()
    for methods, pattern, what in _COMPILED_ROUTES:
        found = pattern.fullmatch(path.rstrip("/") or "/")
        if found is None:
            continue
        if what is None:
            raise MethodNotAllowed(
                f"{path[:100]} is not spoken here, where events are only added: ask for them at /tock"
            )
        if method in methods:
            names = {name: unquote(value) for name, value in found.groupdict().items()}
            return (
                RouteMatch(what, tell.cluster_info, names)
                if isinstance(what, WriteEndpoint)
                else RouteMatch(None, what, names)
            )
        allowed |= methods
    if allowed:
        raise MethodNotAllowed(f"{path[:100]} takes {', '.join(sorted(allowed))}, not {method[:20]}")
    raise NotFound(f"nothing answers at {path[:100]}: here are _bulk, _doc, _create and what clients ask first")


def allowed_methods(path: str) -> str:
    """List the methods that an address takes, for the header that says so."""
    at = path.rstrip("/") or "/"
    return ", ".join(
        sorted({one for methods, pattern, _ in _COMPILED_ROUTES if pattern.fullmatch(at) for one in methods})
    )
