"""Events as item pages send them, the same in every run."""

import random
from typing import Final

import orjson

ITEMS: Final = 1000
REFERERS: Final = (
    "https://www.google.com/search?q=open+data",
    "https://www.arcgis.com/home/item.html?id=7",
    "https://www.washingtonpost.com/articles/dc-news/",
    "https://github.com/",
    "https://example.org/blog/2026/new-datasets/",
    *(f"https://site{number}.example.net/links?page={number}" for number in range(25)),
)
FORMATS: Final = ("kml", "csv", "geojson", "shp", "xlsx")


def build_events(count: int, seed: int = 1) -> list[bytes]:
    """Make flat JSON events: one in ten is of item ``doc0``, one in five a download, two in five have a referer."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        item = 0 if draw.random() < 0.1 else draw.randrange(1, ITEMS)
        fields: dict[str, object] = {"id": f"doc{item}", "event": "view"}
        if draw.random() < 0.2:
            fields |= {"event": "download", "format": draw.choice(FORMATS)}
        if draw.random() < 0.4:
            fields["referer"] = draw.choice(REFERERS)
        fields |= {
            "url": f"https://data.example.org/datasets/doc{item}",
            "title": f"Dataset number {item}",
            "session": f"{draw.getrandbits(64):016x}",
            "duration": draw.randrange(1, 3000),
        }
        made.append(orjson.dumps(fields))
    return made


def build_ndjson_bodies(count: int, events_per_body: int, seed: int = 1) -> list[bytes]:
    """Make NDJSON bodies of so many events each."""
    made = build_events(count, seed)
    return [b"\n".join(made[at : at + events_per_body]) + b"\n" for at in range(0, count, events_per_body)]
