"""The addresses under ``/es``, and what is there: one table, of which the first line that fits counts."""

import re
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote

from metronome.errors import NoSuchPage, WrongMethod
from metronome.protocols.elasticsearch import handshakes as tell
from metronome.protocols.elasticsearch.handshakes import Answer, Names


class Taking(NamedTuple):
    """An address that takes documents.

    Attributes:
        operation: what is done with one that stands alone; nothing where there are many, each with its action.

    """

    operation: str = ""


BULK: Final = Taking()

_LINES: Final[tuple[tuple[str, str, Taking | Answer | None], ...]] = (
    ("POST PUT", "/_bulk", BULK),
    ("POST PUT", "/{index}/_bulk", BULK),
    ("POST PUT", "/{index}/{type}/_bulk", BULK),
    ("POST", "/{index}/_doc", Taking("index")),
    ("POST PUT", "/{index}/_doc/{id}", Taking("index")),
    ("POST PUT", "/{index}/_create/{id}", Taking("create")),
    ("GET HEAD", "/", tell.root),
    ("GET HEAD", "/_license", tell.license_info),
    ("GET HEAD", "/_xpack", tell.xpack),
    ("GET HEAD", "/_cluster/health", tell.health),
    ("GET HEAD", "/_cluster/health/{name}", tell.health),
    ("GET HEAD", "/_cluster/settings", tell.settings),
    ("GET HEAD", "/_cat/health", tell.health_line),
    ("GET HEAD", "/_nodes", tell.nodes),
    ("GET HEAD", "/_nodes/{name}", tell.nodes),
    ("GET HEAD", "/_nodes/{name}/{part}", tell.nodes),
    ("GET HEAD", "/_index_template/{name}", tell.index_template),
    ("POST PUT", "/_index_template/{name}", tell.acknowledged),
    ("GET HEAD", "/_template/{name}", tell.template),
    ("POST PUT", "/_template/{name}", tell.acknowledged),
    ("GET HEAD", "/_component_template/{name}", tell.component_template),
    ("POST PUT", "/_component_template/{name}", tell.acknowledged),
    ("GET HEAD", "/_ingest/pipeline/{name}", tell.pipeline),
    ("PUT", "/_ingest/pipeline/{name}", tell.acknowledged),
    ("GET HEAD", "/_ilm/policy/{name}", tell.policy),
    ("PUT", "/_ilm/policy/{name}", tell.acknowledged),
    ("GET HEAD", "/_ilm/status", tell.policy_status),
    ("GET HEAD", "/_data_stream/{name}", tell.data_stream),
    ("PUT", "/_data_stream/{name}", tell.acknowledged),
    ("PUT", "/_data_stream/{name}/_lifecycle", tell.acknowledged),
    ("GET HEAD", "/_alias/{name}", tell.alias),
    ("POST", "/_aliases", tell.acknowledged),
    ("GET HEAD", "/{index}/_alias/{name}", tell.alias),
    ("POST PUT", "/{index}/_alias/{name}", tell.acknowledged),
    ("GET POST", "/_refresh", tell.shards),
    ("GET POST", "/{index}/_refresh", tell.shards),
    ("GET POST", "/_flush", tell.shards),
    ("GET POST", "/{index}/_flush", tell.shards),
    ("GET HEAD", "/{index}/_mapping", tell.mapping),
    ("POST PUT", "/{index}/_mapping", tell.acknowledged),
    ("PUT", "/{index}/_settings", tell.acknowledged),
    # What is asked for or changed in Elasticsearch's way is refused, and never answered as if nothing were there.
    ("", "/{asking}", None),
    ("", "/{index}/{asking}", None),
    ("", "/{index}/{asking}/{id}", None),
    ("GET HEAD", "/{index}", tell.index_found),
    ("PUT", "/{index}", tell.index_made),
)

_PATTERNS: Final = {
    "index": r"(?P<index>[^/_][^/]*)",
    "type": r"(?P<type>_doc|[^/_][^/]*)",
    "id": r"(?P<id>[^/]+)",
    "name": r"(?P<name>[^/]+)",
    "part": r"(?P<part>[^/]+)",
    "asking": r"(?P<asking>_(?:search|async_search|msearch|count|mget|source|update|update_by_query|delete_by_query"
    r"|reindex|query|sql|eql|pit|field_caps|explain|validate|rank_eval|knn_search))",
}


class Place(NamedTuple):
    """What a request's address is.

    Attributes:
        taking: what it does with documents, or None if it takes none.
        answer: what it tells, where it takes none.
        names: what varied in the address, decoded.

    """

    taking: Taking | None
    answer: Answer
    names: Names


def _compiled(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{(\w+)\\\}", lambda found: _PATTERNS[found[1]], re.escape(path)))


_TABLE: Final = tuple((frozenset(methods.split()), _compiled(path), what) for methods, path, what in _LINES)


@lru_cache(maxsize=256)
def find(method: str, path: str) -> Place:
    """Find what is at an address.

    Args:
        method: of HTTP, in capitals.
        path: what follows the protocol's prefix, percent-encoded.

    Raises:
        WrongMethod: it takes other methods, or is one of those at which Elasticsearch is asked.
        NoSuchPage: nothing is there.

    """
    allowed: set[str] = set()
    for methods, pattern, what in _TABLE:
        found = pattern.fullmatch(path.rstrip("/") or "/")
        if found is None:
            continue
        if what is None:
            raise WrongMethod(f"{path[:100]} is not spoken here, where events are only added: ask for them at /tock")
        if method in methods:
            names = {name: unquote(value) for name, value in found.groupdict().items()}
            return Place(what, tell.root, names) if isinstance(what, Taking) else Place(None, what, names)
        allowed |= methods
    if allowed:
        raise WrongMethod(f"{path[:100]} takes {', '.join(sorted(allowed))}, not {method[:20]}")
    raise NoSuchPage(f"nothing answers at {path[:100]}: here are _bulk, _doc, _create and what clients ask first")


def methods_of(path: str) -> str:
    """List the methods that an address takes, for the header that says so."""
    at = path.rstrip("/") or "/"
    return ", ".join(sorted({one for methods, pattern, _ in _TABLE if pattern.fullmatch(at) for one in methods}))
