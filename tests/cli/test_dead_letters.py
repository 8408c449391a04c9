"""``metronome dead`` counts the dead letters, and the store gets them again when asked."""

from datetime import UTC, datetime
from pathlib import Path

from typer.testing import CliRunner

from metronome.cli import app
from metronome.spool import SpoolReader
from metronome.spool.dead_letters import append_dead_letters, iterate_dead_letters
from metronome.stores.base import RejectedDocument

REFUSALS = [
    RejectedDocument(b'{"id":"a"}', "no time"),
    RejectedDocument(b'{"id":"b"}', "no time"),
    RejectedDocument(b'{"id":"c"}', "odd"),
]


def test_counts_dead_letters_by_their_reason(tmp_path: Path) -> None:
    append_dead_letters(tmp_path / "dead", REFUSALS, datetime(2026, 3, 1, tzinfo=UTC))
    result = CliRunner().invoke(app, ["dead", "--data", str(tmp_path)])
    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.output.splitlines()] == [["2", "no"], ["1", "odd"], ["3", "in"]]


def test_says_so_where_there_are_none(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["dead", "--data", str(tmp_path), "--again"])
    assert result.exit_code == 0
    assert result.output.split()[0] == "0"


def test_puts_them_back_into_a_spool_and_counts_them_no_more(tmp_path: Path) -> None:
    for day in (1, 2):
        append_dead_letters(tmp_path / "dead", REFUSALS, datetime(2026, 3, day, tzinfo=UTC))
    result = CliRunner().invoke(app, ["dead", "--data", str(tmp_path), "--again"])
    assert result.exit_code == 0, result.output
    assert list(iterate_dead_letters(tmp_path / "dead")) == []
    with SpoolReader(tmp_path / "spool" / "again") as outlet:
        taken = outlet.read_chunk(0, 10**6)
    assert taken is not None
    assert taken.batch.documents() == [refusal.document for refusal in REFUSALS] * 2
