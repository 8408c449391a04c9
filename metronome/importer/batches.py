"""From the lines of a log to batches of events, encoded once and ready to be sent."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final, NamedTuple

import orjson

from metronome.errors import Malformed
from metronome.importer.files import LogFile
from metronome.importer.summary import ImportSummary
from metronome.items import ItemPattern
from metronome.protocols.access_logs.reader import AccessLog, LogFormat, detect_format, header_lines, log_fingerprint

SAMPLE_LINES: Final = 200
"""From so many lines a log's format is found."""
BATCH_MAX_BYTES: Final = 8 * 1024 * 1024
"""Past this a batch is sent however few events it has: the server decodes no more than 16 MiB."""

_NumberedLine = tuple[int, tuple[int, bytes]]
"""A line's number, its offset and the line itself."""


class LogBatch(NamedTuple):
    """Events that are sent together.

    Attributes:
        log: the name of the log that they are from.
        places: where each event's line is, counted in *unit*.
        body: the events as NDJSON.
        unit: what places are counted in: ``line`` or ``byte``.
        done: is to be called once the server has answered.

    """

    log: str
    positions: list[int]
    body: bytes
    unit: str = "line"
    on_acknowledged: Callable[[], None] = lambda: None

    def location(self, index: int) -> str:
        """Say where the line of an event is."""
        return f"{self.unit} {self.positions[index]:,}"


@dataclass(frozen=True, slots=True)
class ImportConfig:
    """How logs are to be read.

    Attributes:
        rule: says what an item is.
        own_hosts: hosts whose referers do not count.
        log_format: how the lines are written, or None to find it from each log's first lines.
        batch_events: how many events are sent together.

    """

    item_rule: ItemPattern
    own_hosts: frozenset[str]
    log_format: LogFormat | None
    batch_events: int

    def can_identify(self, sample: list[bytes], log_format: LogFormat) -> bool:
        """Tell whether these lines are enough to tell the log that begins with them from others."""
        return header_lines(sample, log_format) is not None

    def create_log(self, sample: list[bytes], log_format: LogFormat) -> AccessLog:
        """Return the log that begins with these lines."""
        first = header_lines(sample, log_format) or b"\n".join(sample)
        return AccessLog(log_format, log_fingerprint(first), self.item_rule, self.own_hosts)


class LogBatcher:
    """Gathers the events of one log.

    Args:
        name: what messages call the log.
        log: reads its lines.
        batch_events: how many events make a full batch.
        summary: counts each line.
        unit: what places are counted in: ``line`` or ``byte``.

    """

    def __init__(
        self, name: str, log: AccessLog, batch_events: int, summary: ImportSummary, unit: str = "line"
    ) -> None:
        self._name = name
        self._parse_line = log.parse_event
        self._batch_events = batch_events
        self._summary = summary
        self._unit = unit
        self._positions: list[int] = []
        self._lines: list[bytes] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, position: int, line: bytes, offset: int) -> bool:
        """Count a line, keep its event if it has one, and tell whether the batch is full."""
        tally = self._summary
        tally.lines += 1
        try:
            fields = self._parse_line(line, offset)
        except Malformed as error:
            tally.unreadable.add(self._name, f"{self._unit} {position:,}", str(error))
            return False
        if fields is None:
            tally.skipped += 1
            return False
        tally.events[fields["event"]] += 1
        event = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
        places = self._positions
        places.append(position)
        self._lines.append(event)
        self._size += len(event)
        return len(places) >= self._batch_events or self._size >= BATCH_MAX_BYTES

    def take_batch(self, on_acknowledged: Callable[[], None] = lambda: None) -> LogBatch:
        """Return what was gathered, and begin anew."""
        batch = LogBatch(self._name, self._positions, b"".join(self._lines), self._unit, on_acknowledged)
        self._positions, self._lines, self._size = [], [], 0
        return batch


def iterate_batches(
    file: LogFile, config: ImportConfig, summary: ImportSummary, find_offset: Callable[[bytes], int] = lambda _: 0
) -> Iterator[LogBatch]:
    """Yield a log's events in batches, and count each line in *summary*.

    Args:
        file: the log, open.
        config: how it is to be read.
        summary: counts each line that is read.
        find_offset: tells of a log's fingerprint up to which offset the log is known already.

    Raises:
        Malformed: no format can read the log's first lines.

    """
    lines: Iterator[_NumberedLine] = (
        numbered for numbered in enumerate(file.lines(), start=1) if numbered[1][1].strip()
    )
    sample = list(islice(lines, SAMPLE_LINES))
    if not sample:
        return
    first = [line for _, (_, line) in sample]
    log = config.create_log(first, config.log_format or detect_format(first))
    batcher = LogBatcher(file.name, log, config.batch_events, summary)
    add = batcher.add
    start = find_offset(log.fingerprint)
    for number, (offset, line) in chain(sample, lines):
        if offset < start:
            log.skip_line(line)
            continue
        if add(number, line, offset):
            yield batcher.take_batch()
    if len(batcher):
        yield batcher.take_batch()
