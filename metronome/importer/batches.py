"""Convert the lines of a log to batches of events that are ready to be sent."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final, NamedTuple

import orjson

from metronome.enrich.addresses import PRIVATE_PROXIES, ProxyNetworks
from metronome.errors import Malformed
from metronome.importer.files import LogFile
from metronome.importer.summary import ImportSummary
from metronome.items import ItemPattern
from metronome.protocols.access_logs.reader import AccessLog, LogFormat, detect_format, header_lines, log_fingerprint
from metronome.server_client import BATCH_MAX_BYTES

SAMPLE_LINES: Final = 200
"""Number of lines from which the format of a log is detected."""

_NumberedLine = tuple[int, tuple[int, bytes]]
"""A line's number, its offset and the line itself."""


class LogBatch(NamedTuple):
    """Events of a log that are sent in one request.

    Attributes:
        log: name of the log.
        positions: position of each event's line, in *unit*.
        body: the events as NDJSON.
        unit: unit of positions: ``line`` or ``byte``.
        on_acknowledged: to be called once the server has responded.

    """

    log: str
    positions: list[int]
    body: bytes
    unit: str = "line"
    on_acknowledged: Callable[[], None] = lambda: None

    def location(self, index: int) -> str:
        """Return where the line of an event is."""
        return f"{self.unit} {self.positions[index]:,}"


@dataclass(frozen=True, slots=True)
class ImportConfig:
    """How logs are read.

    Attributes:
        item_pattern: finds the item in a path.
        own_hosts: hosts whose referers are not counted.
        log_format: format of the logs; None to detect it from each log's first lines.
        batch_events: number of events in a batch.
        proxies: networks of proxies, which are never the client.

    """

    item_pattern: ItemPattern
    own_hosts: frozenset[str]
    log_format: LogFormat | None
    batch_events: int
    proxies: ProxyNetworks = PRIVATE_PROXIES

    def can_identify(self, sample: list[bytes], log_format: LogFormat) -> bool:
        """Return whether a log's first lines are enough to distinguish it from other logs."""
        return header_lines(sample, log_format) is not None

    def create_log(self, sample: list[bytes], log_format: LogFormat) -> AccessLog:
        """Return the reader of a log that begins with these lines."""
        header = header_lines(sample, log_format) or b"\n".join(sample)
        return AccessLog(log_format, log_fingerprint(header), self.item_pattern, self.own_hosts, self.proxies)


class LogBatcher:
    """Collects the events of one log.

    Args:
        name: name of the log in messages.
        log: parses its lines.
        batch_events: number of events in a full batch.
        summary: counts the lines.
        unit: unit of positions: ``line`` or ``byte``.

    """

    def __init__(
        self, name: str, log: AccessLog, batch_events: int, summary: ImportSummary, unit: str = "line"
    ) -> None:
        self._name = name
        self._parse_line = log.parse_event
        self._identity = log.fingerprint.hex()
        self._batch_events = batch_events
        self._summary = summary
        self._unit = unit
        self._positions: list[int] = []
        self._lines: list[bytes] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, position: int, line: bytes, offset: int) -> bool:
        """Count a line, add its event if it has one, and return whether the batch is full."""
        summary = self._summary
        summary.lines += 1
        try:
            fields = self._parse_line(line, offset)
        except Malformed as error:
            summary.unreadable.add(self._name, f"{self._unit} {position:,}", str(error))
            return False
        if fields is None:
            summary.skipped += 1
            return False
        fields["import"] = self._identity
        summary.add_event(fields)
        event = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
        positions = self._positions
        positions.append(position)
        self._lines.append(event)
        self._size += len(event)
        return len(positions) >= self._batch_events or self._size >= BATCH_MAX_BYTES

    def take_batch(self, on_acknowledged: Callable[[], None] = lambda: None) -> LogBatch:
        """Return the collected events, and start an empty batch."""
        batch = LogBatch(self._name, self._positions, b"".join(self._lines), self._unit, on_acknowledged)
        self._positions, self._lines, self._size = [], [], 0
        return batch


def identify_log(path: str, log_format: LogFormat | None = None) -> str:
    """Return the identity of a log, which its events have in the field ``import``.

    Args:
        path: of the file.
        log_format: its format; None to detect it.

    Raises:
        Malformed: the file has no line, or its first lines have no known format.
        OSError: it cannot be read.

    """
    with LogFile(path) as file:
        sample = [line for _, line in islice((line for line in file.lines() if line[1].strip()), SAMPLE_LINES)]
    if not sample:
        raise Malformed(f"{path}: {file.read_error or 'it has no lines'}")
    header = header_lines(sample, log_format or detect_format(sample)) or b"\n".join(sample)
    return log_fingerprint(header).hex()


def iterate_batches(
    file: LogFile, config: ImportConfig, summary: ImportSummary, find_offset: Callable[[bytes], int] = lambda _: 0
) -> Iterator[LogBatch]:
    """Yield the events of a log in batches.

    Args:
        file: the log, open.
        config: how to read it.
        summary: counts the lines.
        find_offset: returns the offset up to which the log with a fingerprint has been imported before.

    Raises:
        Malformed: the log's first lines have no known format.

    """
    lines: Iterator[_NumberedLine] = (
        numbered for numbered in enumerate(file.lines(), start=1) if numbered[1][1].strip()
    )
    sample = list(islice(lines, SAMPLE_LINES))
    if not sample:
        return
    first_lines = [line for _, (_, line) in sample]
    log = config.create_log(first_lines, config.log_format or detect_format(first_lines))
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
