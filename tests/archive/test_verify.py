"""Distinct events are counted in the archive's objects, and compared with those of a store."""

import gzip
import tempfile
from collections import Counter
from pathlib import Path

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from metronome.archive.verify import DayComparison, compare_days, count_events, open_database
from tests.archive.archived import build_document


def write_objects(folder: Path, *objects: bytes) -> list[Path]:
    files = [folder / f"{index}.ndjson.gz" for index in range(len(objects))]
    for file, lines in zip(files, objects, strict=True):
        file.write_bytes(gzip.compress(lines))
    return files


@settings(max_examples=10)
@given(st.lists(st.lists(st.integers(0, 30), max_size=30), max_size=4))
def test_counts_each_event_id_once_in_all_objects(objects: list[list[int]]) -> None:
    def name(number: int) -> str:
        return ("view", "download")[number % 2]

    lines = [b"".join(build_document(f'e"{number}', event=name(number)) for number in part) for part in objects]
    with tempfile.TemporaryDirectory() as folder, open_database(Path(folder)) as database:
        counts = count_events(database, write_objects(Path(folder), *lines))
    expected = Counter(name(number) for number in {number for part in objects for number in part})
    assert sum(counts.values(), Counter()) == expected
    assert len(counts) <= 1


def test_skips_lines_that_are_not_documents(tmp_path: Path) -> None:
    lines = b'{}\n{"event_id":"1"}\n' + build_document("1") + orjson.dumps([1]) + b"\n" + b"{\n"
    with open_database(tmp_path) as database:
        assert count_events(database, write_objects(tmp_path, lines)) == {"2015-01-22": {"view": 1}}
        assert count_events(database, []) == {}


def test_an_event_of_several_days_of_a_period_counts_on_the_first(tmp_path: Path) -> None:
    lines = b"".join(
        orjson.dumps({"@timestamp": f"2015-01-0{day}T00:00:00.000Z", "event_id": name, "event": event}) + b"\n"
        for day, name, event in [(3, "a", "view"), (1, "a", "download"), (2, "b", "view"), (3, "c", "view")]
    )
    with open_database(tmp_path) as database:
        assert count_events(database, write_objects(tmp_path, lines)) == {
            "2015-01-01": {"download": 1},
            "2015-01-02": {"view": 1},
            "2015-01-03": {"view": 1},
        }


def test_days_of_a_month_are_equal_if_their_sums_are_and_ids_count_once_in_the_month() -> None:
    archived = {"2015-01-01": Counter(view=2), "2015-01-02": Counter(view=1), "2015-02-01": Counter(view=1)}
    stored = {"2015-01-01": Counter(view=1), "2015-01-02": Counter(view=2), "2015-02-01": Counter(view=2)}
    by_day, by_month = (
        [comparison.day for comparison in compare_days(archived, stored, period) if comparison.is_different]
        for period in ("day", "month")
    )
    assert by_day == ["2015-01-01", "2015-01-02", "2015-02-01"]
    assert by_month == ["2015-02-01"]


def test_compares_days_of_the_archive_and_of_the_store() -> None:
    archived = {"2015-01-02": Counter(view=2, download=1), "2015-01-01": Counter(view=1)}
    stored = {"2015-01-02": Counter(view=3), "2015-01-03": Counter(view=4)}
    assert compare_days(archived, stored) == [
        DayComparison("2015-01-01", Counter(view=1), Counter()),
        DayComparison("2015-01-02", Counter(view=2, download=1), Counter(view=3)),
        DayComparison("2015-01-03", Counter(), Counter(view=4)),
    ]
    day = compare_days(archived, stored)[1]
    assert (day.missing_in_store, day.missing_in_archive, day.is_different) == (1, 1, True)
