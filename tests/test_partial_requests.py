"""A file that a visitor gets in parts is one download."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from metronome.event import DocumentContext, Event, build_document
from metronome.items import ItemPattern
from metronome.partial_requests import PartialRequests
from metronome.protocols.access_logs.reader import parse_hit_line

START = datetime(2026, 1, 5, 10, tzinfo=UTC)
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0"


def line(path: str, status: int, seconds: float, client: str = "203.0.113.50") -> str:
    time = (START + timedelta(seconds=seconds)).strftime("%d/%b/%Y:%H:%M:%S +0000")
    return f'{client} - - [{time}] "GET {path} HTTP/1.1" {status} 65536 "-" "{AGENT}"'


RANGES = [
    *[line("/r/big.pdf", 206, 40 * part) for part in range(20)],
    *[line("/r/fast.pdf", 206, part / 10) for part in range(20)],
    line("/r/resume.zip", 200, 0),
    line("/r/resume.zip", 206, 300),
    *[line("/r/cached.csv", 304, 60 * part) for part in range(5)],
    *[line("/r/pod.mp3", 206, second) for second in [0, *range(31, 91, 2)]],
    line("/r/twice.pdf", 206, 0),
    line("/r/twice.pdf", 206, 1801),
    line("/r/two.pdf", 206, 0),
    line("/r/two.pdf", 206, 10, "203.0.113.51"),
]
DOWNLOADS = {"big.pdf": 1, "fast.pdf": 1, "resume.zip": 1, "cached.csv": 5, "pod.mp3": 1, "twice.pdf": 2, "two.pdf": 2}


def documents(lines: list[str], parts: PartialRequests | None = None) -> list[dict[str, Any]]:
    context = DocumentContext(
        received_at="2026-01-06T00:00:00.000Z",
        min_timestamp=None,
        max_timestamp="2026-01-07T00:00:00.000Z",
        salts={"2026-01-05": b"salt", "2026-01-06": b"salt"},
        partial_requests=parts or PartialRequests(),
    )
    found = []
    for number, text in enumerate(lines):
        hit = parse_hit_line(text, ItemPattern(), frozenset())
        assert hit is not None
        found.append(orjson.loads(build_document(Event(hit), context, f"event-{number}")))
    return found


def count_downloads(docs: list[dict[str, Any]]) -> dict[str, int]:
    counts = dict.fromkeys(DOWNLOADS, 0)
    for doc in docs:
        if doc["event"] == "download":
            counts[doc["id"].rpartition("/")[2]] += 1
    return counts


def test_of_the_parts_of_a_file_one_is_a_download() -> None:
    docs = documents(RANGES)
    assert count_downloads(docs) == DOWNLOADS
    parts = [doc for doc in docs if doc.get("part")]
    assert len(parts) == 19 + 19 + 1 + 30
    assert all(doc["event"] == "request" and "format" not in doc and doc["status"] == 206 for doc in parts)


def test_the_same_requests_sent_again_have_the_same_result() -> None:
    remembered = PartialRequests()
    assert documents(RANGES, remembered) == documents(RANGES, remembered)


def test_what_is_remembered_is_bounded() -> None:
    remembered = PartialRequests(max_files=2)
    texts = [line(f"/r/{name}.pdf", 206, 0) for name in "abc"]
    assert [doc["event"] for doc in documents([*texts, texts[2], texts[0]], remembered)] == [
        *["download"] * 3,
        "request",
        "download",
    ]
