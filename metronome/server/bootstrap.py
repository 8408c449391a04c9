"""Build what both the main process and its workers need, from the settings."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Final

from metronome.auth.authorizer import Authorizer
from metronome.auth.client_address import ClientAddress
from metronome.auth.key_cache import KeyCache
from metronome.auth.salts import VisitorSalts
from metronome.config import Settings
from metronome.enrich.addresses import PRIVATE_NETWORKS, ProxyNetworks
from metronome.enrich.countries import open_countries
from metronome.enrich.enrichment import NO_SALTS, Enrichment
from metronome.enrich.referrers import normalize_own_hosts, parse_spam_hosts
from metronome.errors import ConfigurationError
from metronome.event import IngestConfig
from metronome.intake import Intake
from metronome.items import compile_item_pattern
from metronome.spool import SpoolWriter
from metronome.state.base import State
from metronome.state.sqlite import SQLiteState
from metronome.stores.base import Store
from metronome.telemetry import Telemetry
from metronome.web.budget import ByteBudget
from metronome.web.handlers import IngestContext
from metronome.web.limits import RateLimiter

if TYPE_CHECKING:
    from metronome.stores.elasticsearch import ElasticsearchConfig

_WARM_UP_EVENT: Final = {"event": "view", "clientip": "1.0.0.0", "url": "http://192.0.2.0/"}
_WARM_UP_AGENTS: Final = ("Mozilla/5.0", "unheard of")
"""One of a browser, and one that matches no list."""


# Each store is imported only where it is used: importing the Elasticsearch client takes half a second, DuckDB a tenth.


def open_store(settings: Settings) -> Store:
    """Return the configured store, before its setup."""
    if settings.store == "duckdb":
        from metronome.stores.duckdb import DuckDBStore

        return DuckDBStore(settings.data, settings.duckdb_memory, settings.question_seconds)
    from metronome.stores.elasticsearch import ElasticsearchStore

    return ElasticsearchStore(_elasticsearch_config(settings), settings.question_seconds)


def open_state(settings: Settings) -> State:
    """Return the keyed state that belongs to the configured store, before its setup."""
    if settings.store == "duckdb":
        return SQLiteState(settings.data)
    from metronome.state.elasticsearch import ElasticsearchState

    return ElasticsearchState(_elasticsearch_config(settings))


def _elasticsearch_config(settings: Settings) -> "ElasticsearchConfig":
    from metronome.stores.elasticsearch import ElasticsearchConfig

    return ElasticsearchConfig(
        settings.store,
        settings.store_api_key or None,
        str(settings.store_ca) if settings.store_ca else None,
        settings.index_prefix,
    )


@contextlib.asynccontextmanager
async def open_authorizer(settings: Settings, state: State) -> AsyncIterator[Authorizer]:
    """Yield an authorizer with current keys, and close the state at the end of the block."""
    key_cache = KeyCache(state)
    try:
        async with key_cache.keep_refreshed():
            yield Authorizer(key_cache, frozenset(settings.public), time.time, on_loopback=settings.on_loopback)
    finally:
        await state.close()


@contextlib.asynccontextmanager
async def open_visitor_salts(settings: Settings, state: State) -> AsyncIterator[VisitorSalts]:
    """Yield the salts that identify visitors, kept up to date while the block runs."""
    salts = VisitorSalts(state, time.time, create_missing=settings.enrich == settings.visitors == "on")
    async with salts.keep_refreshed():
        yield salts


def build_enrichment(settings: Settings) -> Enrichment | None:
    """Return the enrichment of events, or None if it is off.

    Raises:
        ConfigurationError: a file that a setting names cannot be read.

    """
    if settings.enrich == "off":
        return None
    countries = None if settings.countries == "off" else open_countries(settings.countries)
    return Enrichment(countries, _load_spam_hosts(settings), normalize_own_hosts(settings.own_hosts))


def _load_spam_hosts(settings: Settings) -> frozenset[str]:
    path = settings.referer_spam
    if path is None:
        return frozenset()
    try:
        return parse_spam_hosts(path.read_text().splitlines())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read METRONOME_REFERER_SPAM={path}: {error}") from None


def build_ingest_context(
    settings: Settings,
    spool: SpoolWriter,
    authorizer: Authorizer,
    telemetry: Telemetry,
    salts: Callable[[], Mapping[str, bytes]] = lambda: NO_SALTS,
) -> IngestContext:
    """Return the context of all routes that accept events.

    Args:
        settings: of the installation.
        spool: where events go.
        authorizer: decides who may send events.
        telemetry: counts events and requests.
        salts: returns the current salts of visitors (see `Intake`).

    Raises:
        ConfigurationError: a file that a setting names cannot be read.

    """
    enrichment = build_enrichment(settings)
    if enrichment is not None:
        # Load the tables now: the first event would wait for them.
        for agent in _WARM_UP_AGENTS:
            enrichment.derive_fields({**_WARM_UP_EVENT, "agent": agent})
    config = IngestConfig(
        item_pattern=compile_item_pattern(
            settings.item_pattern,
            exclude=settings.exclude_pattern,
            match_url=settings.match == "url",
            count_static=settings.static_files == "count",
            count_redirects=settings.redirects == "count",
        ),
        own_hosts=normalize_own_hosts(settings.own_hosts),
        max_age=settings.event_max_age,
        keep_months=settings.keep_events_months,
        event_max_bytes=settings.event_max_bytes,
        body_max_bytes=settings.body_max_bytes,
        batch_max_events=settings.batch_max_events,
        anonymize_addresses=settings.addresses == "cut",
        proxies=ProxyNetworks((*PRIVATE_NETWORKS, *settings.trusted_proxies)),
        enrichment=enrichment,
        honor_privacy_signals=settings.privacy_signals == "honour",
    )
    return IngestContext(
        Intake(spool, config, time.time, telemetry, salts),
        authorizer,
        ClientAddress(settings.trusted_proxies),
        telemetry,
        config,
        time.time,
        build_budget(settings),
        RateLimiter(settings.rate_limit),
    )


def build_budget(settings: Settings) -> ByteBudget:
    """Return a process's share of the memory for requests that are being received.

    A request takes its compressed and its decompressed body at once.
    """
    return ByteBudget(settings.in_flight_max_bytes // settings.workers, 2 * settings.body_max_bytes)
