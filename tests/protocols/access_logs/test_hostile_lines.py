"""A byte of a hostile line costs at most ten times as much as one of a usual line."""

from time import process_time
from typing import Final

import orjson
import pytest

from metronome.errors import Malformed
from metronome.items import ItemPattern
from metronome.protocols.access_logs.reader import AccessLog, get_format

HEAD: Final = '203.0.113.9 - - [17/May/2015:10:05:03 +0000] "GET /'
TAIL: Final = ' HTTP/1.1" 200 5 "-" "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"'
JSON: Final = (
    '{"time":"2015-05-17T10:05:03+00:00","remote_addr":"203.0.113.9","request":"GET /a HTTP/1.1","status":200,'
)
USUAL: Final = {"combined": f"{HEAD}a{TAIL}", "nginx-json": f'{JSON}"agent":"Mozilla/5.0 (X11; Linux x86_64)"}}'}
SIZES: Final = (500, 60_000)
MAX_RATIO: Final = 10
FILLINGS: Final = {
    "escapes": r"\x41",
    "escapes and letters": r"\x41a",
    "escaped quotes": r"\"",
    "long path": "a",
    "percent": "%41",
    "percent, not UTF-8": "%E9",
    "quotes": '"',
    "brackets": "[",
    "not UTF-8": "\udce9",
    "blanks": " a",
    "addresses": "203.0.113.9, ",
}
HOSTILE: Final = {
    **{f"combined: {name}": (HEAD, TAIL) for name in FILLINGS},
    **{f"nginx-json: {name}": (f'{JSON}"xff":"', '"}') for name in ("addresses", "long path")},
}


def seconds_a_line(log_format: str, line: bytes, count: int) -> float:
    """Return the processor time that a line takes, at best."""
    best = float("inf")
    for _ in range(3):
        log = AccessLog(get_format(log_format), bytes(16), ItemPattern(), frozenset())
        started_at = process_time()
        for number in range(count):
            try:
                fields = log.parse_event(line, number)
            except Malformed:
                continue
            orjson.dumps(fields)
        best = min(best, process_time() - started_at)
    return best / count


@pytest.mark.slow  # measures times
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_line_takes_at_most_ten_times_as_long(name: str, size: int) -> None:
    log_format, _, filling = name.partition(": ")
    text = FILLINGS[filling]
    begin, end = HOSTILE[name]
    line = f"{begin}{text * (size // len(text))}{end}".encode(errors="surrogateescape")
    usual = USUAL[log_format].encode()
    hostile_seconds, usual_seconds = seconds_a_line(log_format, line, 10), seconds_a_line(log_format, usual, 1000)
    ratio = hostile_seconds / usual_seconds / max(1, len(line) / len(usual))
    assert ratio < MAX_RATIO
