"""What Metronome counts of itself, for Prometheus.

The metrics are listed in docs/operations.md, and a test holds that list to this file.
"""

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

from metronome.errors import MetronomeError

# They double the number of series, and say nothing that a restart of the process does not.
disable_created_metrics()  # type: ignore[no-untyped-call]

_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Telemetry:
    """The counters of one process.

    Args:
        registry: where they are registered.

    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.accepted = Counter("metronome_events_accepted", "Events that were answered as on disk.", registry=registry)
        self._rejections = Counter(
            "metronome_refused", "Requests and events that were refused, by reason.", ["reason"], registry=registry
        )
        self.commit_seconds = Histogram(
            "metronome_commit_seconds",
            "How long the disk took for a group of events.",
            registry=registry,
            buckets=_LATENCY_BUCKETS,
        )
        self.shipped = Counter("metronome_events_shipped", "Events that the store has taken as new.", registry=registry)
        self.duplicates = Counter("metronome_events_duplicate", "Events that the store had already.", registry=registry)
        self.dead_letters = Counter(
            "metronome_events_dead", "Events that the store refused for good: see the dead folder.", registry=registry
        )
        self.shipment_seconds = Histogram(
            "metronome_shipment_seconds",
            "How long the store took for a batch.",
            registry=registry,
            buckets=_LATENCY_BUCKETS,
        )
        self.shipment_failures = Counter(
            "metronome_shipment_failures", "Batches to be tried again, by reason.", ["reason"], registry=registry
        )
        self.archived = Counter("metronome_events_archived", "Events that the archive has.", registry=registry)
        self.archived_objects = Counter(
            "metronome_archive_objects", "Objects that were put into the archive, without manifests.", registry=registry
        )
        self.archive_write_seconds = Histogram(
            "metronome_roll_seconds",
            "How long the archive took for a roll.",
            registry=registry,
            buckets=_LATENCY_BUCKETS,
        )
        self.archive_failures = Counter(
            "metronome_roll_failures", "Rolls to be tried again, by reason.", ["reason"], registry=registry
        )
        self.report_seconds = Histogram(
            "metronome_answer_seconds",
            "How long a report took.",
            ["report"],
            registry=registry,
            buckets=_LATENCY_BUCKETS,
        )

    def count_commit(self, seconds: float, events: int) -> None:
        """Count a group of events that is on disk."""
        self.commit_seconds.observe(seconds)
        self.accepted.inc(events)

    def count_rejection(self, error: MetronomeError) -> None:
        """Count a refusal by the error's kind."""
        self._rejections.labels(type(error).__name__).inc()
