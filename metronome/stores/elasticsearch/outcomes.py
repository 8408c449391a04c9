"""What a single search of many came to."""

from typing import Any, Final

from metronome.errors import TooCostly, Unaskable
from metronome.stores.elasticsearch.connection import NotUnderstood, check_shards, error_of, is_caused_by

_TOO_MANY_GROUPS: Final = "too_many_buckets_exception"
_TOO_LONG: Final = "search_timeout_exception"
_TOO_LARGE: Final = "circuit_breaking_exception"


def has_too_many_groups(response: dict[str, Any]) -> bool:
    """Return whether a search failed since it has more groups than Elasticsearch answers with at once."""
    return is_caused_by(response.get("error"), _TOO_MANY_GROUPS)


def check_outcome(response: dict[str, Any], seconds: float) -> None:
    """Raise if a search did not succeed on all shards.

    Args:
        response: that of the single search.
        seconds: how long it might take.

    Raises:
        Unaskable: Elasticsearch does not understand the search, such as one that is nested too deeply.
        TooCostly: it took too long, or more memory than Elasticsearch has for it.
        StoreAway: a shard cannot be searched now.
        StoreDenied: searching is not allowed.

    """
    error = response.get("error")
    if response.get("timed_out") or is_caused_by(error, _TOO_LONG):
        raise TooCostly(f"the answer takes over {seconds:g} s")
    if is_caused_by(error, _TOO_LARGE):
        raise TooCostly("the answer takes more memory than Elasticsearch has for it")
    if error is not None:
        raised = error_of(response.get("status", 500), response)
        if isinstance(raised, NotUnderstood):
            raise Unaskable(f"Elasticsearch cannot answer this: {raised}")
        raise raised
    check_shards(response)
