"""Dead letters are stored on disk with their reason, and listed."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import orjson

from metronome.spool.dead_letters import append_dead_letters, iterate_dead_letters, move_to_requeued
from metronome.stores.base import RejectedDocument

NOON = datetime(2015, 1, 22, 12, tzinfo=UTC)
ONE = RejectedDocument(b'{"id":"one","title":"\xc3\xa9\\n"}', "too odd")
TWO = RejectedDocument(b'{"id":"two"}', "much \u2028 too odd")
THREE = RejectedDocument(b"{}", "")


def test_dead_letters_are_listed_oldest_first(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there yet"
    append_dead_letters(folder, [TWO], NOON + timedelta(days=1))
    append_dead_letters(folder, [ONE, TWO], NOON)
    append_dead_letters(folder, [THREE], NOON)
    assert list(iterate_dead_letters(folder)) == [ONE, TWO, THREE, TWO]
    assert sorted(path.name for path in folder.iterdir()) == ["2015-01-22.ndjson", "2015-01-23.ndjson"]


def test_dead_letter_has_time_and_reason(tmp_path: Path) -> None:
    append_dead_letters(tmp_path, [ONE], NOON)
    letter = orjson.loads((tmp_path / "2015-01-22.ndjson").read_bytes())
    assert letter == {"at": "2015-01-22T12:00:00+00:00", "reason": "too odd", "document": ONE.document.decode()}


def test_dead_letter_files_are_by_utc_day(tmp_path: Path) -> None:
    append_dead_letters(tmp_path, [ONE], NOON.replace(hour=23).astimezone(timezone(timedelta(hours=5))))
    assert [path.name for path in tmp_path.iterdir()] == ["2015-01-22.ndjson"]


def test_missing_folder_has_no_dead_letters(tmp_path: Path) -> None:
    assert list(iterate_dead_letters(tmp_path / "none")) == []
    assert list(iterate_dead_letters(tmp_path)) == []


def test_torn_line_does_not_affect_others(tmp_path: Path) -> None:
    append_dead_letters(tmp_path, [ONE, TWO], NOON)
    path = tmp_path / "2015-01-22.ndjson"
    whole = path.read_bytes()
    begin = whole.index(b"\n") + 1
    for end in range(begin + 1, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert list(iterate_dead_letters(tmp_path)) == [ONE]
        append_dead_letters(tmp_path, [TWO, THREE], NOON)
        assert list(iterate_dead_letters(tmp_path)) == [ONE, TWO, THREE]


def test_line_without_line_feed_is_complete(tmp_path: Path) -> None:
    append_dead_letters(tmp_path, [ONE], NOON)
    path = tmp_path / "2015-01-22.ndjson"
    path.write_bytes(path.read_bytes()[:-1])
    append_dead_letters(tmp_path, [TWO], NOON)
    assert list(iterate_dead_letters(tmp_path)) == [ONE, TWO]


def test_requeued_dead_letters_are_kept_but_not_listed(tmp_path: Path) -> None:
    for refusal in (ONE, TWO):
        append_dead_letters(tmp_path, [refusal], NOON)
        move_to_requeued(tmp_path)
        assert list(iterate_dead_letters(tmp_path)) == []
    assert list(iterate_dead_letters(tmp_path / "given-again")) == [ONE, TWO]
