"""Objects of an archive are listed in the order of receipt and by day, with errors for what is damaged."""

import asyncio
from datetime import date
from pathlib import Path

import pytest

from metronome.archive.base import DateRange
from metronome.archive.inventory import ALL_DATES, Inventory, list_objects, read_object
from metronome.archive.objects import open_archive
from metronome.errors import ArchiveDamaged
from tests.archive.archived import build_document, create_archive

TWO_DAYS = (build_document("1"), build_document("2", timestamp="2015-01-24T23:59:59.999Z"))


def list_archive(url: str, days: DateRange = ALL_DATES) -> Inventory:
    return asyncio.run(list_objects(open_archive(url), days))


def test_lists_objects_in_the_order_of_receipt(tmp_path: Path) -> None:
    late = [build_document("3", timestamp="2015-01-01T00:00:00.000Z")]
    url, (first, second, third) = create_archive(tmp_path / "archive", TWO_DAYS, late, TWO_DAYS)
    inventory = list_archive(url)
    assert [item.path for item in inventory.objects] == [*first[:-1], *second[:-1], *third[:-1]]
    assert all(item.manifest_entry is not None and item.manifest_entry.bytes == item.size for item in inventory.objects)
    assert inventory.errors == []


@pytest.mark.parametrize(
    ("days", "count"),
    [
        (DateRange(date(2015, 1, 22), date(2015, 1, 22)), 1),
        (DateRange(date(2015, 1, 23)), 1),
        (DateRange(None, date(2015, 1, 24)), 2),
        (DateRange(None, date(2015, 1, 21)), 0),
    ],
)
def test_lists_only_objects_of_the_date_range(tmp_path: Path, days: DateRange, count: int) -> None:
    url, _ = create_archive(tmp_path / "archive", TWO_DAYS)
    assert len(list_archive(url, days).objects) == count


def test_reports_missing_and_damaged_objects_and_ignores_other_files(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    url, (first, second, third) = create_archive(folder, TWO_DAYS, TWO_DAYS, TWO_DAYS)
    (folder / first[0]).unlink()
    (folder / second[0]).write_bytes((folder / second[0]).read_bytes()[:-1])
    (folder / third[-1]).write_text("{")
    (folder / "2015/13/45/09").mkdir(parents=True)
    (folder / "2015/13/45/09/x.ndjson.gz").write_text("no day")
    (folder / "notes.txt").write_text("somebody else's")
    inventory = list_archive(url)
    assert inventory.errors == [
        f"{third[-1]} is not a valid manifest: it cannot be parsed",
        f"{first[0]} is missing, but its manifest lists it",
    ]
    # Objects that no manifest lists come last.
    assert [(item.path, item.manifest_entry is None) for item in inventory.objects] == [
        (first[1], False),
        (second[0], False),
        (second[1], False),
        (third[0], True),
        (third[1], True),
    ]
    archive = open_archive(url)
    objects = {item.path: item for item in inventory.objects}
    with pytest.raises(ArchiveDamaged, match=f"{second[0]} differs from its manifest"):
        asyncio.run(read_object(archive, objects[second[0]]))
    assert asyncio.run(read_object(archive, objects[third[0]])) == TWO_DAYS[0]
    assert list_archive(url, DateRange(date(2015, 1, 23))).errors == [
        f"{third[-1]} is not a valid manifest: it cannot be parsed"
    ]


def test_lists_nothing_in_an_empty_archive(tmp_path: Path) -> None:
    url, _ = create_archive(tmp_path / "archive")
    assert list_archive(url) == Inventory()
