"""``metronome dead-letters`` lists rejected documents by reason, and requeues them."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metronome.cli import app
from metronome.files import FolderLock
from metronome.spool import SpoolReader
from metronome.spool.dead_letters import append_dead_letters, iterate_dead_letters
from metronome.stores.base import RejectedDocument

REJECTED = [
    RejectedDocument(b'{"id":"a"}', "no time"),
    RejectedDocument(b'{"id":"b"}', "no time"),
    RejectedDocument(b'{"id":"c"}', "odd"),
]


def test_lists_the_number_of_documents_by_reason(tmp_path: Path) -> None:
    append_dead_letters(tmp_path / "dead", REJECTED, datetime(2026, 3, 1, tzinfo=UTC))
    result = CliRunner().invoke(app, ["dead-letters", "--data", str(tmp_path)])
    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.output.splitlines()] == [["2", "no"], ["1", "odd"], ["3", "in"]]


def test_requeue_does_nothing_if_there_are_none(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["dead-letters", "requeue", "--data", str(tmp_path)])
    assert result.exit_code == 0
    assert result.output.split()[0] == "0"
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize("arguments", [["requeue", "--data"], ["--data"]])
def test_requeue_puts_documents_back_into_the_spool(tmp_path: Path, arguments: list[str]) -> None:
    for day in (1, 2):
        append_dead_letters(tmp_path / "dead", REJECTED, datetime(2026, 3, day, tzinfo=UTC))
    words = [*arguments, str(tmp_path), *([] if "requeue" in arguments else ["requeue"])]
    result = CliRunner().invoke(app, ["dead-letters", *words])
    assert result.exit_code == 0, result.output
    assert list(iterate_dead_letters(tmp_path / "dead")) == []
    with SpoolReader(tmp_path / "spool" / "again") as reader:
        chunk = reader.read_chunk(0, 10**6)
    assert chunk is not None
    assert chunk.batch.documents() == [rejected.document for rejected in REJECTED] * 2


@pytest.mark.slow
def test_requeue_fails_while_a_server_uses_the_data_folder(tmp_path: Path) -> None:
    append_dead_letters(tmp_path / "dead", REJECTED, datetime(2026, 3, 1, tzinfo=UTC))
    lock = FolderLock(tmp_path)
    try:
        result = CliRunner().invoke(app, ["dead-letters", "requeue", "--data", str(tmp_path)])
    finally:
        lock.release()
    assert (result.exit_code, result.stderr.startswith("metronome dead-letters requeue: ")) == (2, True)
    assert len(list(iterate_dead_letters(tmp_path / "dead"))) == 3


@pytest.mark.parametrize(
    "line",
    [
        b'"a text"',
        b"12",
        b"[]",
        b"{}",
        b'{"document":"{}"}',
        b'{"document":{"id":"a"},"reason":"odd"}',
        b'{"document":"{}\\n{}","reason":"odd"}',
    ],
)
def test_a_line_that_is_not_a_dead_letter_is_reported_and_hides_no_other(tmp_path: Path, line: bytes) -> None:
    append_dead_letters(tmp_path / "dead", REJECTED, datetime(2026, 3, 1, tzinfo=UTC))
    file = tmp_path / "dead" / "2026-03-01.ndjson"
    file.write_bytes(line + b"\n" + file.read_bytes())
    listed = CliRunner().invoke(app, ["dead-letters", "--data", str(tmp_path)])
    assert (listed.exit_code, listed.stdout.splitlines()[-1].split()[0]) == (1, "3")
    assert listed.stderr.startswith(f"metronome dead-letters: {file}, line 1: not a dead letter: expected ")
    requeued = CliRunner().invoke(app, ["dead-letters", "requeue", "--data", str(tmp_path)])
    assert (requeued.exit_code, requeued.stdout) == (2, "")
    assert "correct or delete the line; nothing was requeued" in requeued.stderr
    assert len(list(iterate_dead_letters(tmp_path / "dead"))) == 3
