"""The routes that report health and metrics."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import orjson
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, Metric, generate_latest
from prometheus_client.registry import Collector

from metronome.archiver import Archiver
from metronome.errors import MetronomeError, NotFound, SpoolFull, StoreUnavailable
from metronome.scopes import Scope
from metronome.shipper import Shipper
from metronome.spool import SpoolStats
from metronome.stores.base import IDENTITY_PERIOD, Store
from metronome.web.handlers import QueryContext, handle_errors
from metronome.web.problems import problem_response

log = structlog.get_logger()

_METRICS_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_FULL_RATIO: Final = 0.95
_PING_SECONDS: Final = 6.0
"""Longer than the timeout of any store's own ping."""
_GAUGES: Final = (
    ("metronome_spool_events", "Events on disk that the store or the archive does not have yet."),
    ("metronome_spool_bytes", "Size of the spools in bytes."),
    ("metronome_spool_oldest_seconds", "Age of the oldest event in the spools, in seconds."),
    ("metronome_unshipped_events", "Events that the store does not have yet."),
    ("metronome_unshipped_oldest_seconds", "Age of the oldest event that the store does not have yet, in seconds."),
    ("metronome_unarchived_events", "Events that the archive does not have yet; 0 without an archive."),
    ("metronome_unarchived_oldest_seconds", "Age of the oldest event that the archive does not have yet, in seconds."),
)


class _SummedMetrics(Collector):
    """The sums of the metrics of several processes."""

    def __init__(self, registries: Sequence[CollectorRegistry]) -> None:
        self._registries = registries

    def collect(self) -> Iterator[Metric]:
        """Yield each metric once."""
        families: dict[str, Metric] = {}
        sums: dict[str, dict[tuple[str, frozenset[tuple[str, str]]], tuple[dict[str, str], float]]] = {}
        for registry in self._registries:
            for metric in registry.collect():
                families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type, metric.unit))
                samples = sums.setdefault(metric.name, {})
                for sample in metric.samples:
                    key = (sample.name, frozenset(sample.labels.items()))
                    _, subtotal = samples.get(key, ({}, 0.0))
                    samples[key] = (sample.labels, subtotal + sample.value)
        for name, family in families.items():
            for (sample_name, _), (labels, value) in sums[name].items():
                family.add_sample(sample_name, labels, value)
            yield family


class HealthRoutes:
    """The routes below ``/health``, and ``/metrics``.

    Args:
        store: its health is checked with a ping.
        shippers: measure the spools, and how much of them the store does not have yet.
        spool_max_bytes: maximum size of all spools.
        context: authorizes requests for metrics.
        registries: returns the registries of all processes.
        archivers: measure how much the archive does not have yet, and have its last failure; empty without an archive.

    """

    def __init__(
        self,
        store: Store,
        shippers: Sequence[Shipper],
        spool_max_bytes: int,
        context: QueryContext,
        registries: Callable[[], Sequence[CollectorRegistry]],
        archivers: Sequence[Archiver] = (),
    ) -> None:
        self._store = store
        self._shippers = shippers
        self._spool_max_bytes = spool_max_bytes
        self._context = context
        self._registries = registries
        self._archivers = archivers
        self._spool_registry = CollectorRegistry()
        self._gauges = tuple(Gauge(name, text, registry=self._spool_registry) for name, text in _GAUGES)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/health/live", self._live),
            web.get("/health/ready", self._ready),
            web.get("/health/ready/{part}", self._ready),
            web.get("/metrics", handle_errors(self._context, self._metrics)),
        ]

    async def _live(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _ready(self, request: web.Request) -> web.Response:
        total, unshipped, unarchived = await self._measure_spools()
        failure = await self._spool_failure(total)
        parts: dict[str, dict[str, object]] = {
            "spool": {
                **_spool_status(failure),
                "events": total.events,
                "bytes": total.bytes,
                "oldest_seconds": round(total.oldest_seconds, 1),
            },
            "store": {
                **_component_status("store", await self._store_failure()),
                **_pending_fields(unshipped),
                "identity_period": IDENTITY_PERIOD,
            },
        }
        if self._archivers:
            failure = next((archiver.failure for archiver in self._archivers if archiver.failure), None)
            parts["archive"] = {**_component_status("archive", failure), **_pending_fields(unarchived)}
        part = request.match_info.get("part")
        if part is not None and part not in parts:
            return problem_response(NotFound(f"unknown part in {request.path[:100]}: expected {', '.join(parts)}"))
        # Events are accepted while the store is unavailable: the server is ready as long as the spool has room.
        ready = parts[part or "spool"]["status"] == "ok"
        body = {"status": "ok" if ready else "not ready", **({part: parts[part]} if part else parts)}
        return web.Response(status=200 if ready else 503, body=orjson.dumps(body), content_type="application/json")

    async def _spool_failure(self, total: SpoolStats) -> MetronomeError | None:
        """Return why events are refused, or will be soon; None if they are accepted."""
        if total.bytes >= self._spool_max_bytes * _FULL_RATIO:
            return SpoolFull(f"the spools hold {total.bytes} of {self._spool_max_bytes} bytes")
        for shipper in self._shippers:
            if (failure := await shipper.spool_failure()) is not None:
                return failure
        return None

    async def _store_failure(self) -> MetronomeError | None:
        try:
            async with asyncio.timeout(_PING_SECONDS):
                await self._store.ping()
        except MetronomeError as error:
            return error
        except TimeoutError:
            return StoreUnavailable(f"the store did not respond to a ping within {_PING_SECONDS:g} s")
        # A store that is reachable need not accept events.
        failures = (failure for shipper in self._shippers for failure in (shipper.failure, shipper.waiting_failure))
        return next((failure for failure in failures if failure is not None), None)

    async def _metrics(self, request: web.Request) -> web.Response:
        await self._context.authorize(request, Scope.QUERY)
        total, unshipped, unarchived = await self._measure_spools()
        figures = (
            *(total.events, total.bytes, total.oldest_seconds),
            *(unshipped.events, unshipped.oldest_seconds),
            *(unarchived.events, unarchived.oldest_seconds),
        )
        for gauge, figure in zip(self._gauges, figures, strict=True):
            gauge.set(figure)
        body = generate_latest(_SummedMetrics((*self._registries(), self._spool_registry)))
        return web.Response(body=body, headers={"Content-Type": _METRICS_CONTENT_TYPE})

    async def _measure_spools(self) -> tuple[SpoolStats, SpoolStats, SpoolStats]:
        """Return the size of all spools, of what is not in the store, and of what is not in the archive."""
        unshipped = _sum_stats([await shipper.pending_stats() for shipper in self._shippers])
        unarchived = _sum_stats([await archiver.pending_stats() for archiver in self._archivers])
        # Last, so that the spool does not seem to hold events that the store and the archive have.
        total = _sum_stats([await shipper.total_stats() for shipper in self._shippers])
        return total, unshipped, unarchived


def _spool_status(failure: MetronomeError | None) -> dict[str, object]:
    if failure is None:
        return {"status": "ok"}
    log.warning("part_away", part="spool", error=str(failure), advice=failure.advice)
    return {"status": "full" if isinstance(failure, SpoolFull) else "away"}


def _component_status(part: str, failure: MetronomeError | None) -> dict[str, object]:
    if failure is None:
        return {"status": "ok"}
    log.warning("part_away", part=part, error=str(failure), advice=failure.advice)
    return {"status": "away", "detail": failure.public_message or type(failure).__name__}


def _pending_fields(stats: SpoolStats) -> dict[str, object]:
    return {"events": stats.events, "oldest_seconds": round(stats.oldest_seconds, 1)}


def _sum_stats(stats: Sequence[SpoolStats]) -> SpoolStats:
    return SpoolStats(
        sum(each.events for each in stats),
        sum(each.bytes for each in stats),
        max((each.oldest_seconds for each in stats), default=0.0),
    )
