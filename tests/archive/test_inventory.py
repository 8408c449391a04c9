"""What an archive holds: in the order in which it came, of the days that are asked for, and what is damaged by name."""

import asyncio
from datetime import date
from pathlib import Path

import pytest

from metronome.archive.inventory import ALL_DATES, DateRange, Inventory, list_objects, read_object
from metronome.archive.objects import open_archive
from metronome.errors import ArchiveDamaged
from tests.archive.archived import build_document, create_archive

TWO_DAYS = (build_document("1"), build_document("2", timestamp="2015-01-24T23:59:59.999Z"))


def look(url: str, days: DateRange = ALL_DATES) -> Inventory:
    return asyncio.run(list_objects(open_archive(url), days))


def test_objects_come_in_the_order_in_which_what_they_hold_arrived(tmp_path: Path) -> None:
    late = [build_document("3", timestamp="2015-01-01T00:00:00.000Z")]
    url, (first, second, third) = create_archive(tmp_path / "archive", TWO_DAYS, late, TWO_DAYS)
    stock = look(url)
    assert [holding.path for holding in stock.objects] == [*first[:-1], *second[:-1], *third[:-1]]
    assert all(
        holding.manifest_entry is not None and holding.manifest_entry.bytes == holding.size for holding in stock.objects
    )
    assert stock.errors == []


@pytest.mark.parametrize(
    ("days", "count"),
    [
        (DateRange(date(2015, 1, 22), date(2015, 1, 22)), 1),
        (DateRange(date(2015, 1, 23)), 1),
        (DateRange(None, date(2015, 1, 24)), 2),
        (DateRange(None, date(2015, 1, 21)), 0),
    ],
)
def test_only_days_that_are_asked_for_are_told(tmp_path: Path, days: DateRange, count: int) -> None:
    url, _ = create_archive(tmp_path / "archive", TWO_DAYS)
    assert len(look(url, days).objects) == count


def test_what_is_missing_damaged_or_foreign_is_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    url, (first, second, third) = create_archive(folder, TWO_DAYS, TWO_DAYS, TWO_DAYS)
    (folder / first[0]).unlink()
    (folder / second[0]).write_bytes((folder / second[0]).read_bytes()[:-1])
    (folder / third[-1]).write_text("{")
    (folder / "2015/13/45/09").mkdir(parents=True)
    (folder / "2015/13/45/09/x.ndjson.gz").write_text("no day")
    (folder / "notes.txt").write_text("somebody else's")
    stock = look(url)
    assert stock.errors == [
        f"{third[-1]} is no manifest: it cannot be read",
        f"{first[0]} is missing, and its manifest lists it",
    ]
    # What no manifest lists is told, too, behind all else.
    assert [(holding.path, holding.manifest_entry is None) for holding in stock.objects] == [
        (first[1], False),
        (second[0], False),
        (second[1], False),
        (third[0], True),
        (third[1], True),
    ]
    archive = open_archive(url)
    found = {holding.path: holding for holding in stock.objects}
    with pytest.raises(ArchiveDamaged, match=f"{second[0]} is not what was written"):
        asyncio.run(read_object(archive, found[second[0]]))
    assert asyncio.run(read_object(archive, found[third[0]])) == TWO_DAYS[0]
    assert look(url, DateRange(date(2015, 1, 23))).errors == [f"{third[-1]} is no manifest: it cannot be read"]


def test_an_archive_that_holds_nothing_has_no_stock(tmp_path: Path) -> None:
    url, _ = create_archive(tmp_path / "archive")
    assert look(url) == Inventory()
