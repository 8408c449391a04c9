"""From the lines of a log to batches of events, encoded once and ready to be sent."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final, NamedTuple

import orjson

from metronome.cli.log_files import LogFile
from metronome.cli.tally import Tally
from metronome.dialects.accesslog import Log, LogFormat, detect, fingerprint
from metronome.dialects.items import ItemRule
from metronome.errors import Malformed

BATCH_MAX_BYTES: Final = 8 * 1024 * 1024
"""Past this a batch is sent however few events it has: the server decodes no more than 16 MiB."""
_SAMPLE_LINES = 200

_Line = tuple[int, tuple[int, bytes]]
"""A line's number, its offset and the line itself."""


class Batch(NamedTuple):
    """Events that are sent together.

    Attributes:
        log: the name of the log that they are from.
        lines: the number of each event's line.
        body: the events as NDJSON.

    """

    log: str
    lines: list[int]
    body: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """How logs are to be read.

    Attributes:
        rule: says what an item is.
        own_hosts: hosts whose referers do not count.
        log_format: how the lines are written, or None to find it from each log's first lines.
        batch_events: how many events are sent together.

    """

    rule: ItemRule
    own_hosts: frozenset[str]
    log_format: LogFormat | None
    batch_events: int


def batches(file: LogFile, plan: Plan, tally: Tally) -> Iterator[Batch]:
    """Yield a log's events in batches, and count each line in *tally*.

    Raises:
        Malformed: no format can read the log's first lines.

    """
    lines: Iterator[_Line] = (numbered for numbered in enumerate(file.lines(), start=1) if numbered[1][1].strip())
    sample = list(islice(lines, _SAMPLE_LINES))
    if not sample:
        return
    log = _log([line for _, (_, line) in sample], plan)
    numbers: list[int] = []
    body: list[bytes] = []
    size = 0
    for number, (offset, line) in chain(sample, lines):
        tally.lines += 1
        try:
            fields = log.event(line, offset)
        except Malformed as error:
            tally.unreadable.add(file.name, number, str(error))
            continue
        tally.events[fields["event"]] += 1
        event = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
        numbers.append(number)
        body.append(event)
        size += len(event)
        if len(body) >= plan.batch_events or size >= BATCH_MAX_BYTES:
            yield Batch(file.name, numbers, b"".join(body))
            numbers, body, size = [], [], 0
    if body:
        yield Batch(file.name, numbers, b"".join(body))


def _log(sample: list[bytes], plan: Plan) -> Log:
    log_format = plan.log_format or detect(sample)
    return Log(log_format, fingerprint(sample[0]), plan.rule, plan.own_hosts)
