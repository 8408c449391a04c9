"""The fields that events have: what can be queried, and what its values look like."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from metronome.fields import FIELDS_BY_NAME, RESERVED_FIELDS, FieldType
from metronome.reports.parameters import SHARE_DIGITS, ReportParameters
from metronome.stores.base import Store
from metronome.stores.query import COUNT, Metric, Query

PARAMETERS: Final = frozenset({"from", "to", "tz", "bots"})
SAMPLE_EVENTS: Final = 1000
"""How many events are read at most."""

_SAMPLE_PARTS: Final = 10
"""Of a longer range, the newest events of so many parts are read, so that the sample is not of its end alone."""
_MAX_EXAMPLES: Final = 5
_EXAMPLE_MAX_CHARACTERS: Final = 100
_DISTINCT_MAX: Final = 1000
_MILLISECOND: Final = timedelta(milliseconds=1)
_TYPE_NAMES: Final = {FieldType.IP_ADDRESS: "text", FieldType.STORED_ONLY: "text", FieldType.CONSTANT: "text"}


class _FieldSample:
    """The values of one field in the sample."""

    def __init__(self) -> None:
        self.events = 0.0
        self.types: set[str] = set()
        self.values: Counter[str] = Counter()

    def add(self, value: object, weight: float) -> None:
        self.events += weight
        self.types.add("boolean" if isinstance(value, bool) else "text" if isinstance(value, str) else "number")
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        if len(self.values) < _DISTINCT_MAX or text in self.values:
            self.values[text] += 1


async def fields_report(store: Store, parameters: ReportParameters) -> dict[str, Any]:
    """Return the fields that events have.

    Args:
        store: has the events.
        parameters: the range.

    Returns:
        ``fields``, those of most events first: the ``name`` that queries use, the ``type`` (``text``, ``number``,
        ``boolean``, ``mixed``, or None if it is not known), the ``share`` of events with a value, from 0 to 1, and the
        most frequent values as ``examples``. ``events`` is the number of events in the range. If not all of them were
        read, ``exact: false`` and ``events_looked_at`` are added; a field that only others have has the share 0 and no
        examples.

    """
    where = parameters.build_filter()
    (bounds,) = await store.query(
        Query(
            metrics=(COUNT, Metric.parse("first"), Metric.parse("last")),
            where=where,
            start=parameters.start,
            end=parameters.end,
        )
    )
    total, first, last = bounds.rows[0] if bounds.rows else (0, None, None)
    total = int(total or 0)
    samples: dict[str, _FieldSample] = {}
    looked_at = 0
    if first is not None and last is not None:
        spans = list(_split_range(datetime.fromisoformat(str(first)), datetime.fromisoformat(str(last)), total))
        counts = await store.query(*(Query(where=where, start=start, end=end) for start, end in spans))
        for (start, end), result in zip(spans, counts, strict=True):
            count = int(result.rows[0][0] or 0) if result.rows else 0
            documents = await store.newest_documents(SAMPLE_EVENTS // len(spans), where, start, end) if count else ()
            for document in documents:
                _add_document(samples, document, count / len(documents))
            looked_at += len(documents)
    for name in await store.list_fields():
        samples.setdefault(name, _FieldSample())
    fields = [_describe_field(name, sample, total) for name, sample in samples.items()]
    report: dict[str, Any] = {
        "fields": sorted(fields, key=lambda field: (-field["share"], field["name"])),
        "events": total,
    }
    return report if looked_at >= total else {**report, "exact": False, "events_looked_at": looked_at}


def _split_range(first: datetime, last: datetime, total: int) -> Iterator[tuple[datetime, datetime]]:
    """Yield the parts of a range to read events of."""
    end = last + _MILLISECOND
    parts = 1 if total <= SAMPLE_EVENTS else min(_SAMPLE_PARTS, max(1, (end - first) // _MILLISECOND))
    edges = [first + (end - first) * at / parts for at in range(parts)]
    yield from zip(edges, [*edges[1:], end], strict=True)


def _add_document(samples: dict[str, _FieldSample], document: bytes, weight: float) -> None:
    fields = orjson.loads(document)
    for name, value in _iterate_values(fields):
        samples.setdefault(name, _FieldSample()).add(value, weight)


def _iterate_values(fields: dict[str, Any]) -> Iterable[tuple[str, object]]:
    yield from ((name, value) for name, value in fields.items() if name not in RESERVED_FIELDS and value is not None)
    yield from ((name, value) for name, value in fields.get("params", {}).items() if name not in fields)


def _describe_field(name: str, sample: _FieldSample, total: int) -> dict[str, Any]:
    values = sample.values
    frequent = sorted(values, key=lambda text: (-values[text], text))
    return {
        "name": name,
        "type": _field_type(name, sample.types),
        "share": round(min(1.0, sample.events / total), SHARE_DIGITS) if total else 0.0,
        "examples": [text[:_EXAMPLE_MAX_CHARACTERS] for text in frequent[:_MAX_EXAMPLES]],
    }


def _field_type(name: str, types: set[str]) -> str | None:
    known = FIELDS_BY_NAME.get(name)
    if known is not None and known.type is not None:
        return _TYPE_NAMES.get(known.type, known.type.value)
    if not types and known is not None and known.is_numeric:
        return "number"
    return types.copy().pop() if len(types) == 1 else "mixed" if types else None
