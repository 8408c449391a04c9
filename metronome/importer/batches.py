"""From the lines of a log to batches of events, encoded once and ready to be sent."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final, NamedTuple

import orjson

from metronome.errors import Malformed
from metronome.importer.files import LogFile
from metronome.importer.summary import Tally
from metronome.items import ItemRule
from metronome.protocols.access_logs.reader import Log, LogFormat, detect, fingerprint, head

SAMPLE_LINES: Final = 200
"""From so many lines a log's format is found."""
BATCH_MAX_BYTES: Final = 8 * 1024 * 1024
"""Past this a batch is sent however few events it has: the server decodes no more than 16 MiB."""

_Line = tuple[int, tuple[int, bytes]]
"""A line's number, its offset and the line itself."""


class Batch(NamedTuple):
    """Events that are sent together.

    Attributes:
        log: the name of the log that they are from.
        places: where each event's line is, counted in *unit*.
        body: the events as NDJSON.
        unit: what places are counted in: ``line`` or ``byte``.
        done: is to be called once the server has answered.

    """

    log: str
    places: list[int]
    body: bytes
    unit: str = "line"
    done: Callable[[], None] = lambda: None

    def place(self, index: int) -> str:
        """Say where the line of an event is."""
        return f"{self.unit} {self.places[index]:,}"


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

    def has_begun(self, sample: list[bytes], log_format: LogFormat) -> bool:
        """Tell whether these lines are enough to tell the log that begins with them from others."""
        return head(sample, log_format) is not None

    def log(self, sample: list[bytes], log_format: LogFormat) -> Log:
        """Return the log that begins with these lines."""
        first = head(sample, log_format) or b"\n".join(sample)
        return Log(log_format, fingerprint(first), self.rule, self.own_hosts)


class Batcher:
    """Gathers the events of one log.

    Args:
        name: what messages call the log.
        log: reads its lines.
        batch_events: how many events make a full batch.
        tally: counts each line.
        unit: what places are counted in: ``line`` or ``byte``.

    """

    def __init__(self, name: str, log: Log, batch_events: int, tally: Tally, unit: str = "line") -> None:
        self._name = name
        self._event = log.event
        self._batch_events = batch_events
        self._tally = tally
        self._unit = unit
        self._places: list[int] = []
        self._body: list[bytes] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self._body)

    def add(self, place: int, line: bytes, offset: int) -> bool:
        """Count a line, keep its event if it has one, and tell whether the batch is full."""
        tally = self._tally
        tally.lines += 1
        try:
            fields = self._event(line, offset)
        except Malformed as error:
            tally.unreadable.add(self._name, f"{self._unit} {place:,}", str(error))
            return False
        if fields is None:
            tally.passed += 1
            return False
        tally.events[fields["event"]] += 1
        event = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
        places = self._places
        places.append(place)
        self._body.append(event)
        self._size += len(event)
        return len(places) >= self._batch_events or self._size >= BATCH_MAX_BYTES

    def take(self, done: Callable[[], None] = lambda: None) -> Batch:
        """Return what was gathered, and begin anew."""
        batch = Batch(self._name, self._places, b"".join(self._body), self._unit, done)
        self._places, self._body, self._size = [], [], 0
        return batch


def batches(file: LogFile, plan: Plan, tally: Tally, known: Callable[[bytes], int] = lambda _: 0) -> Iterator[Batch]:
    """Yield a log's events in batches, and count each line in *tally*.

    Args:
        file: the log, open.
        plan: how it is to be read.
        tally: counts each line that is read.
        known: tells of a log's fingerprint up to which offset the log is known already.

    Raises:
        Malformed: no format can read the log's first lines.

    """
    lines: Iterator[_Line] = (numbered for numbered in enumerate(file.lines(), start=1) if numbered[1][1].strip())
    sample = list(islice(lines, SAMPLE_LINES))
    if not sample:
        return
    first = [line for _, (_, line) in sample]
    log = plan.log(first, plan.log_format or detect(first))
    batcher = Batcher(file.name, log, plan.batch_events, tally)
    add = batcher.add
    start = known(log.fingerprint)
    for number, (offset, line) in chain(sample, lines):
        if offset < start:
            log.pass_by(line)
            continue
        if add(number, line, offset):
            yield batcher.take()
    if len(batcher):
        yield batcher.take()
