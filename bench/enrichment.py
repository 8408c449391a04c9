"""The cost of enrichment on ingest, compared with building a document without it."""

import random
import time
from typing import Any, Final

from bench.harness import BenchmarkRow, sized
from metronome.enrich.countries import open_countries
from metronome.enrich.enrichment import Enrichment
from metronome.event import DocumentContext, Event, IngestConfig, build_document

VISITORS: Final = 1000
ROUNDS: Final = sized(20, 2)
_DAY: Final = "2026-01-22"
_AGENTS: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{0}.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:{0}.0) Gecko/20100101 Firefox/{0}.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_{0} like Mac OS X) AppleWebKit/605.1.15 Version/17.{0} Safari/604.1",
    "Mozilla/5.0 (compatible; Googlebot/2.{0}; +http://www.google.com/bot.html)",
)
_REFERERS: Final = (
    "https://www.google.com/search?q={0}",
    "https://site{0}.example.net/links?page=1",
    "https://www.facebook.com/{0}",
)


def measure() -> list[BenchmarkRow]:
    """Build documents of the same events with and without enrichment in turns, and compare the fastest of each."""
    events = [Event(fields) for fields in build_visits(VISITORS)]
    plain = DocumentContext(f"{_DAY}T09:30:00.000Z", None, "2027-01-01T00:00:00.000Z")
    enriching = DocumentContext(
        plain.received_at,
        plain.min_timestamp,
        plain.max_timestamp,
        IngestConfig(enrichment=Enrichment(open_countries("built-in"))),
        salts={_DAY: b"s" * 32},
    )
    without = with_it = float("inf")
    for _ in range(ROUNDS):
        without = min(without, _measure_microseconds(events, plain))
        with_it = min(with_it, _measure_microseconds(events, enriching))
    added = with_it - without
    return [
        BenchmarkRow(
            f"enrichment of an event with user agent, IP address, referrer and URL, {VISITORS:,} visitors, warm caches",
            f"{added:.1f} µs",
            f"{without:.1f} µs (the document without it)",
            f"{added / without:.1f}",
            "≤ 5 µs",
        )
    ]


def build_visits(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Return views as a web server forwards them, each of a different visitor."""
    draw = random.Random(seed)
    return [
        {
            "id": f"doc{number}",
            "event": "view",
            "agent": draw.choice(_AGENTS).format(number),
            "clientip": f"203.{draw.randrange(256)}.{draw.randrange(256)}.{draw.randrange(256)}",
            "referer": draw.choice(_REFERERS).format(number),
            "url": f"https://data.example.org/datasets/doc{number}?utm_source=news&utm_medium=email",
        }
        for number in range(count)
    ]


def _measure_microseconds(events: list[Event], config: DocumentContext) -> float:
    started = time.perf_counter()
    for event in events:
        build_document(event, config, "0123456789abcdef")
    return (time.perf_counter() - started) / len(events) * 1e6
