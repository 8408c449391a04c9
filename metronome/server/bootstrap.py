"""The parts that both the main process and its workers have, made as the settings say."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from metronome.auth.authorizer import Guard
from metronome.auth.client_address import Senders
from metronome.auth.key_cache import Keyring
from metronome.auth.salts import Salts
from metronome.config import Settings
from metronome.enrich.countries import open_countries
from metronome.enrich.enrichment import NO_SALTS, Enrichment
from metronome.enrich.referrers import own_hosts, read_spam_hosts
from metronome.errors import Misconfigured
from metronome.intake import DoorPolicy, Intake
from metronome.items import item_rule
from metronome.protocol import Site
from metronome.spool import Spool
from metronome.state.base import State
from metronome.state.elasticsearch import ElasticsearchState
from metronome.state.sqlite import SQLiteState
from metronome.stores.base import Store
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.elasticsearch import ElasticsearchConfig, ElasticsearchStore
from metronome.telemetry import Telemetry
from metronome.web.handlers import Doorway

_ANY_VISIT: Final = {"event": "view", "clientip": "1.0.0.0", "url": "http://192.0.2.0/"}
_ANY_AGENTS: Final = ("Mozilla/5.0", "unheard of")
"""A browser's, and one that is looked for in all lists."""


def open_store(settings: Settings) -> Store:
    """Make the store that the settings name; it is not set up yet."""
    if settings.store == "duckdb":
        return DuckDBStore(settings.data, settings.duckdb_memory, settings.question_seconds)
    return ElasticsearchStore(_elasticsearch(settings), settings.question_seconds)


def open_state(settings: Settings) -> State:
    """Make the keeper of keys that goes with the store; it is not set up yet."""
    if settings.store == "duckdb":
        return SQLiteState(settings.data)
    return ElasticsearchState(_elasticsearch(settings))


def _elasticsearch(settings: Settings) -> ElasticsearchConfig:
    return ElasticsearchConfig(
        settings.store,
        settings.store_api_key or None,
        str(settings.store_ca) if settings.store_ca else None,
        settings.index_prefix,
    )


@contextlib.asynccontextmanager
async def guarding(settings: Settings, state: State) -> AsyncIterator[Guard]:
    """Know the keys while the block runs."""
    keyring = Keyring(state)
    try:
        await keyring.read()
        async with keyring.kept():
            yield Guard(keyring, frozenset(settings.public), time.time, on_loopback=settings.on_loopback)
    finally:
        await state.close()


@contextlib.asynccontextmanager
async def salting(settings: Settings, state: State) -> AsyncIterator[Salts]:
    """Know what visitors are named with while the block runs."""
    salts = Salts(state, time.time, making=settings.enrich == settings.visitors == "on")
    async with salts.kept():
        yield salts


def open_enrichment(settings: Settings) -> Enrichment | None:
    """Make what adds to events what follows from them; None where that is off.

    Raises:
        Misconfigured: a file that it needs cannot be read.

    """
    if settings.enrich == "off":
        return None
    countries = None if settings.countries == "off" else open_countries(settings.countries)
    return Enrichment(countries, _spam_hosts(settings), own_hosts(settings.own_hosts))


def _spam_hosts(settings: Settings) -> frozenset[str]:
    path = settings.referer_spam
    if path is None:
        return frozenset()
    try:
        return read_spam_hosts(path.read_text().splitlines())
    except (OSError, ValueError) as error:
        raise Misconfigured(f"METRONOME_REFERER_SPAM is {str(path)!r}, and cannot be read: {error}") from None


def open_doorway(
    settings: Settings,
    spool: Spool,
    guard: Guard,
    telemetry: Telemetry,
    salts: Callable[[], Mapping[str, bytes]] = lambda: NO_SALTS,
) -> Doorway:
    """Make what all routes need that take events into a spool.

    Args:
        settings: of the installation.
        spool: where events go.
        guard: says who may send.
        telemetry: where things are counted.
        salts: tells what visitors are named with (see `Intake`).

    Raises:
        Misconfigured: a file that a setting names cannot be read.

    """
    hosts = own_hosts(settings.own_hosts)
    enrichment = open_enrichment(settings)
    if enrichment is not None:
        # The first of its kind has tables read for it, which takes longer than any event should wait.
        for agent in _ANY_AGENTS:
            enrichment.derived({**_ANY_VISIT, "agent": agent})
    policy = DoorPolicy(
        max_age=settings.door_max_age,
        event_max_bytes=settings.event_max_bytes,
        own_hosts=hosts,
        cut_addresses=settings.addresses == "cut",
        enrichment=enrichment,
        honour_signals=settings.privacy_signals == "honour",
    )
    return Doorway(
        Intake(spool, policy, time.time, telemetry, salts),
        guard,
        Senders(settings.trusted_proxies),
        telemetry,
        Site(item_rule(settings.item_pattern), hosts),
        time.time,
        settings.body_max_bytes,
        settings.batch_max_events,
    )
