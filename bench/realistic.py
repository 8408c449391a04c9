"""Events as a web server's back end sends them: user agents, referrers and addresses drawn as in a real log.

The log is that of the tests, next to the checkout (see docs/testing.md); without it, a few user agents and referrers
are drawn instead, and results are not comparable.
"""

import gzip
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from metronome.enrich.countries import open_countries
from metronome.enrich.enrichment import Enrichment
from metronome.event import DocumentContext, Event, IngestConfig, build_document
from metronome.times import format_timestamp

LOG: Final = Path(__file__).parent.parent.parent / "shared" / "data" / "apache_logs.log.gz"
ITEMS: Final = 2_000
ADDRESSES: Final = 20_000
TOPICS: Final = 40
_POOL: Final = 50_000
_LINE: Final = re.compile(rb'"(?P<referer>[^"]*)" "(?P<agent>[^"]*)"\s*$')
_FEW: Final = (
    ("", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36"),
    ("https://www.google.com/", "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"),
    ("", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
)


class Visit(NamedTuple):
    """What the headers of a request say: its referrer, or an empty text, and its user agent."""

    referer: str
    agent: str


def read_visits() -> list[Visit]:
    """Return referrer and user agent of each request of the log, or a few of them if there is no log."""
    if not LOG.exists():
        return [Visit(*few) for few in _FEW]
    with gzip.open(LOG) as lines:
        found = (_LINE.search(line) for line in lines)
        return [
            Visit(match["referer"].decode(errors="replace").removeprefix("-"), match["agent"].decode(errors="replace"))
            for match in found
            if match
        ]


def draw_events(count: int, seed: int = 1) -> Iterator[bytes]:
    """Yield JSON events without time, the same in every run, of about 330 bytes.

    Item ``doc0`` has a tenth of them, ``doc1`` a hundredth, and the rest is spread evenly; a fifth are downloads. Each
    has the sender's own fields ``topic``, a text of 40, and ``size``, a number.
    """
    draw = random.Random(seed)
    visits = read_visits()
    addresses = [f"{draw.randrange(1, 224)}.{draw.getrandbits(8)}.{draw.getrandbits(8)}.7" for _ in range(ADDRESSES)]
    formats = ("kml", "csv", "geojson", "shp", "xlsx")
    for _ in range(count):
        chance = draw.random()
        item = 0 if chance < 0.1 else 1 if chance < 0.11 else draw.randrange(2, ITEMS)
        referer, agent = draw.choice(visits)
        fields: dict[str, object] = {"id": f"doc{item}", "event": "view"}
        if draw.random() < 0.2:
            fields |= {"event": "download", "format": draw.choice(formats)}
        fields |= {
            "agent": agent,
            "clientip": draw.choice(addresses),
            "url": f"https://data.example.org/datasets/doc{item}?page={draw.randrange(5)}",
            "topic": f"topic{item % TOPICS}",
            "size": draw.randrange(1_000_000),
        }
        if referer:
            fields["referer"] = referer
        yield orjson.dumps(fields)


def draw_documents(events: int, start: datetime, duration: timedelta) -> Iterator[bytes]:
    """Yield the documents of events as the store gets them, with times spread evenly, in their order.

    Their contents repeat after 50,000 events, but for time and ID.
    """
    pool = [orjson.loads(text) for text in draw_events(min(events, _POOL))]
    config = IngestConfig(enrichment=Enrichment(open_countries("built-in")))
    salts: dict[str, bytes] = {}
    step = duration / events
    for number in range(events):
        stamp = format_timestamp(start + step * number)
        if stamp[:10] not in salts:
            salts = {stamp[:10]: stamp.encode()}
        context = DocumentContext(stamp, None, "9999-01-01T00:00:00.000Z", config, salts=salts)
        yield build_document(Event(pool[number % len(pool)]), context, f"{number:032x}")


def write_log(path: Path, lines: int) -> None:
    """Write an access log of the real log's requests again and again, from 20,000 addresses, 20 requests a second.

    Raises:
        SystemExit: the real log is missing.

    """
    if not LOG.exists():
        raise SystemExit(f"{LOG} is missing: see docs/testing.md")
    draw = random.Random(2)
    addresses = [f"{draw.randrange(1, 224)}.{draw.getrandbits(8)}.{draw.getrandbits(8)}.7" for _ in range(ADDRESSES)]
    with gzip.open(LOG) as file:
        requests = [line.partition(b"] ")[2].decode(errors="replace") for line in file]
    start = datetime(2026, 5, 17, tzinfo=UTC)
    with path.open("w") as log:
        for number in range(lines):
            at = start + timedelta(seconds=number // 20)
            log.write(f"{draw.choice(addresses)} - - [{at:%d/%b/%Y:%H:%M:%S} +0000] {requests[number % len(requests)]}")
