"""Metrics of Metronome itself, for Prometheus. docs/operations.md lists them; a test compares that list."""

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

from metronome.errors import MetronomeError

# They double the number of series, and only show when the process was started.
disable_created_metrics()  # type: ignore[no-untyped-call]

_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Telemetry:
    """The metrics of one process.

    Args:
        registry: where to register them.

    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.accepted = Counter("metronome_events_accepted", "Events accepted and written to disk.", registry=registry)
        self._rejections = Counter(
            "metronome_refused", "Rejected requests and events, by reason.", ["reason"], registry=registry
        )
        self.commit_seconds = Histogram(
            "metronome_commit_seconds",
            "Duration of a write of a group of events to disk.",
            registry=registry,
            buckets=_LATENCY_BUCKETS,
        )
        self.shipped = Counter("metronome_events_shipped", "Events that were new to the store.", registry=registry)
        self.duplicates = Counter("metronome_events_duplicate", "Events that the store already had.", registry=registry)
        self.dead_letters = Counter(
            "metronome_events_dead", "Events that the store rejected: see the dead folder.", registry=registry
        )
        self.shipment_seconds = Histogram(
            "metronome_shipment_seconds",
            "Duration of a write of a batch to the store.",
            registry=registry,
            buckets=_LATENCY_BUCKETS,
        )
        self.shipment_failures = Counter(
            "metronome_shipment_failures",
            "Failed writes of a batch to the store, by reason.",
            ["reason"],
            registry=registry,
        )
        self.archived = Counter("metronome_events_archived", "Events written to the archive.", registry=registry)
        self.archived_objects = Counter(
            "metronome_archive_objects", "Objects written to the archive, without manifests.", registry=registry
        )
        self.archive_write_seconds = Histogram(
            "metronome_roll_seconds",
            "Duration of a write of a group of objects to the archive.",
            registry=registry,
            buckets=_LATENCY_BUCKETS,
        )
        self.archive_failures = Counter(
            "metronome_roll_failures",
            "Failed writes to the archive, by reason.",
            ["reason"],
            registry=registry,
        )
        self.report_seconds = Histogram(
            "metronome_answer_seconds",
            "Duration of a report.",
            ["report"],
            registry=registry,
            buckets=_LATENCY_BUCKETS,
        )

        self.read_wait_seconds = Histogram(
            "metronome_read_wait_seconds",
            "Time that reports waited until the store had the events acknowledged before.",
            registry=registry,
            buckets=_LATENCY_BUCKETS,
        )

    def count_commit(self, seconds: float, events: int) -> None:
        """Count a group of events that was written to disk."""
        self.commit_seconds.observe(seconds)
        self.accepted.inc(events)

    def count_rejection(self, error: MetronomeError) -> None:
        """Count a rejected request or event by the class of its error."""
        self._rejections.labels(type(error).__name__).inc()
