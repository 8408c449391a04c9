"""The parts that both the main process and its workers have, made as the settings say."""

import contextlib
import time
from collections.abc import AsyncIterator

from metronome.config import Settings
from metronome.dialects.items import item_rule
from metronome.dialects.site import Site
from metronome.enrich.referers import own_hosts
from metronome.intake import DoorPolicy, Intake
from metronome.service.guard import Guard
from metronome.service.keyring import Keyring
from metronome.service.senders import Senders
from metronome.service.writes import Doorway
from metronome.spool import Spool
from metronome.state.elasticsearch import ElasticsearchState
from metronome.state.sqlite import SQLiteState
from metronome.state.state import State
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.elasticsearch import ElasticsearchConfig, ElasticsearchStore
from metronome.stores.store import Store
from metronome.telemetry import Telemetry


def open_store(settings: Settings) -> Store:
    """Make the store that the settings name; it is not set up yet."""
    if settings.store == "duckdb":
        return DuckDBStore(settings.data, settings.duckdb_memory)
    return ElasticsearchStore(_elasticsearch(settings))


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


def open_doorway(settings: Settings, spool: Spool, guard: Guard, telemetry: Telemetry) -> Doorway:
    """Make what all routes need that take events into a spool."""
    hosts = own_hosts(settings.own_hosts)
    policy = DoorPolicy(
        max_age=settings.door_max_age,
        event_max_bytes=settings.event_max_bytes,
        own_hosts=hosts,
        cut_addresses=settings.addresses == "cut",
    )
    return Doorway(
        Intake(spool, policy, time.time, telemetry),
        guard,
        Senders(settings.trusted_proxies),
        telemetry,
        Site(item_rule(settings.item_pattern), hosts),
        time.time,
        settings.body_max_bytes,
        settings.batch_max_events,
    )
