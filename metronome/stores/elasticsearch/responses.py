"""From the responses of Elasticsearch to the answer of a question."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from metronome.stores.elasticsearch.queries import (
    APPROXIMATE,
    GROUPS,
    Page,
    Step,
    Tree,
    Whole,
    first_step,
    levels,
    measure_names,
    measure_of,
    next_page,
    wider_step,
)
from metronome.stores.query import MAX_GROUPS, TIME_UNITS, Answer, Kind, Metric, Question, arrange, read_zone
from metronome.times import stamp_of

Bucket = dict[str, Any]
Value = str | int | float | None
Row = tuple[Value, ...]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Reading:
    """What is known of a question's answer so far, and what has to be asked next.

    Attributes:
        question: what is asked.
        step: the search to make next; None once the answer is known.

    """

    def __init__(self, question: Question) -> None:
        self.question = question
        self.step: Step | None = first_step(question)
        self._rows: dict[Row, Row] = {}
        self._best: dict[Row, Row] = {}
        self._complete = True
        self._measures = measure_names(question.metrics)
        self._zone = read_zone(question.tz)

    def take(self, response: dict[str, Any]) -> None:
        """Read the response to `step`, and go on to the next."""
        groups: Bucket = response.get("aggregations", {}).get(GROUPS, {})
        match self.step:
            case Whole():
                self._add((), groups)
                self.step = None
            case Tree() as tree if _is_whole(groups):
                self._take_tree(tree, groups)
            case Tree():
                self._best = dict(self._branches(groups, levels(self.question), {}))
                self.widen()
            case Page() as page:
                self._take_page(page, groups)

    def widen(self) -> None:
        """Begin again in smaller steps: there are more groups than a tree can hold."""
        self._rows = {}
        self.step = wider_step(self.question, self.step) if isinstance(self.step, Tree) else None
        self._complete = self.step is not None

    def answer(self) -> Answer:
        """Return the answer, once there is nothing to ask any more."""
        rows = list((self._rows if self._complete else self._best | self._rows).values())
        return arrange(self.question, rows, exact=self._complete and not self._has_estimates(rows))

    def _take_tree(self, tree: Tree, groups: Bucket) -> None:
        self._rows.update(self._branches(groups, levels(self.question), {}))
        if tree.part + 1 == tree.parts:
            self.step = None
        else:
            self.step = Tree(tree.part + 1, tree.parts)
        self._stop_at_most()

    def _take_page(self, page: Page, groups: Bucket) -> None:
        for bucket in groups.get("buckets", ()):
            key = tuple(self._label(at, bucket["key"][str(at)]) for at in range(len(self.question.by)))
            self._add(key, bucket)
        after = groups.get("after_key")
        if after is None or len(groups["buckets"]) < page.size:
            self.step = None
        else:
            self.step = next_page(self.question, after, len(self._rows))
        self._stop_at_most()

    def _stop_at_most(self) -> None:
        if len(self._rows) > MAX_GROUPS:
            self.step, self._complete = None, False

    def _branches(self, groups: Bucket, below: list[int], path: dict[int, str]) -> Iterator[tuple[Row, Row]]:
        at, *rest = below
        for bucket in groups.get("buckets", ()):
            here = {**path, at: self._label(at, bucket["key"])}
            if rest:
                yield from self._branches(bucket[GROUPS], rest, here)
            else:
                key = tuple(here[index] for index in range(len(here)))
                yield key, self._row(key, bucket)

    def _add(self, key: tuple[str, ...], bucket: Bucket) -> None:
        self._rows[key] = self._row(key, bucket)

    def _row(self, key: tuple[str, ...], bucket: Bucket) -> Row:
        return (*key, *(self._value(metric, bucket) for metric in self.question.metrics))

    def _value(self, metric: Metric, bucket: Bucket) -> Value:
        if metric.kind is Kind.COUNT:
            return int(bucket.get("doc_count", 0))
        return read_measure(metric, bucket.get(self._measures[measure_of(metric)], {}))

    def _label(self, at: int, key: Any) -> str:
        name = self.question.by[at]
        return time_label(key, name, self._zone) if name in TIME_UNITS else str(key)

    def _has_estimates(self, rows: list[Row]) -> bool:
        width = len(self.question.by)
        columns = [width + at for at, metric in enumerate(self.question.metrics) if metric.kind in APPROXIMATE]
        return any(row[column] for column in columns for row in rows)


def read_measure(metric: Metric, measure: dict[str, Any]) -> Value:
    """Read a metric's number or time; without a single value a sum is 0.0, a number of values 0, all else None."""
    match metric.kind:
        case Kind.UNIQUE:
            return int(measure.get("value", 0))
        case Kind.VALUES:
            return int(measure.get("count", 0))
        case Kind.FIRST | Kind.LAST:
            return _stamp(measure.get("value"))
        case Kind.SUM:
            return float(measure.get("sum") or 0.0)
        case Kind.PERCENTILE:
            values = {each["key"]: each["value"] for each in measure.get("values", ())}
            number = values.get(metric.percent)
        case _:
            number = measure.get(metric.kind)
    return None if number is None else float(number)


def _stamp(milliseconds: float | None) -> str | None:
    return None if milliseconds is None else stamp_of(_EPOCH + timedelta(milliseconds=milliseconds))


def time_label(milliseconds: int, unit: str, zone: ZoneInfo) -> str:
    """Write the beginning of a minute, hour, day, week or month as answers have it."""
    moment = datetime.fromtimestamp(milliseconds / 1000, zone)
    match unit:
        case "month":
            return f"{moment:%Y-%m}"
        case "day" | "week":
            return f"{moment:%Y-%m-%d}"
        case _:
            return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _is_whole(groups: Bucket) -> bool:
    """Return whether a tree holds every group, on each of its levels."""
    if groups.get("sum_other_doc_count", 0):
        return False
    return all(_is_whole(bucket[GROUPS]) for bucket in groups.get("buckets", ()) if GROUPS in bucket)
