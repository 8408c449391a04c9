"""A real log, if it is there, counted as another program counted it."""

import gzip
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from metronome.enrich.referrers import normalize_own_hosts, normalize_referrer
from metronome.items import compile_item_pattern
from metronome.protocols.access_logs.reader import AccessLog, detect_format, log_fingerprint

SHARED = Path(__file__).parents[4] / "shared" / "data"

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not (SHARED / "apache_logs.log.gz").exists(), reason="the real log is not beside the project"),
]


def counted(expected: dict[str, Any]) -> dict[str, dict[str, Counter[str]]]:
    lines = gzip.decompress((SHARED / expected["log"]).read_bytes()).split(b"\n")[:-1]
    own = normalize_own_hosts(tuple(expected["own_hosts"]))
    log = AccessLog(
        detect_format(lines[:200]), log_fingerprint(lines[0]), compile_item_pattern(expected["item_pattern"]), own
    )
    items: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    identities = set()
    offset = 0
    for line in lines:
        event = log.parse_event(line, offset)
        assert event is not None
        offset += len(line) + 1
        identities.add(event["event_id"])
        if event["event"] in {"view", "download"}:
            item = items[event["id"]]
            if event["event"] == "view":
                item["views"][event["@timestamp"][:10]] += 1
            else:
                item["downloads"][event["format"]] += 1
            short = normalize_referrer(event.get("referer", ""), own)
            if short is not None:
                item["referers"][short] += 1
    assert len(identities) == len(lines)
    return items


def test_each_item_of_the_real_log_is_counted_exactly() -> None:
    expected = json.loads((SHARED / "apache_logs.expected.json").read_bytes())
    found = counted(expected)
    names = ("views", "downloads", "referers")
    assert {item: {name: dict(counts[name]) for name in names} for item, counts in found.items()} == expected["items"]
    assert len(found) == 268
