"""``metronome replay``: sends what an archive holds to a Metronome server, which puts it back into its store."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Annotated, Final

import typer
from rich.progress import Progress, TaskProgressColumn, TextColumn

from metronome.archive.inventory import ArchiveArgument, ArchiveObject, list_objects, read_objects
from metronome.archive.objects import open_archive
from metronome.archive.replay import ReplayBatch, ReplayBatcher, ReplayCheckpoint, default_checkpoint_file
from metronome.cli.options import FirstDayOption, LastDayOption, parse_day_range
from metronome.cli.output import progress_bar
from metronome.errors import ArchiveDamaged, ConfigurationError, MetronomeError, describe
from metronome.importer.summary import RejectedLines, sanitize_for_terminal
from metronome.server_client import (
    DEFAULT_SERVER_URL,
    RETRY_TIMEOUT_SECONDS,
    BatchSender,
    EventLoopThread,
    KeyOption,
    SendResult,
)

DOCUMENTS_PATH: Final = "/documents"
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
_RESUME_HINT: Final = "run the same command again to send the rest: nothing is counted twice"


@dataclass(slots=True)
class ReplaySummary:
    """What a replay has done so far."""

    objects: int = 0
    previously_sent: int = 0
    sent: int = 0
    accepted: int = 0
    already_stored: int = 0
    rejected: RejectedLines = field(default_factory=RejectedLines)
    damaged: list[str] = field(default_factory=list)
    unlisted: int = 0

    def add(self, result: SendResult[ReplayBatch]) -> None:
        """Count what the server says of a parcel."""
        self.objects += len(result.batch.completed_objects)
        self.sent += result.batch.events
        self.accepted += result.accepted
        self.already_stored += result.already_stored
        for place, reason in result.rejected:
            path, _, line = place.rpartition(", ")
            self.rejected.add(path, line, reason)

    def format(self, seconds: float) -> str:
        """Return everything that was counted, as a small table."""
        rows = [
            ("objects sent", self.objects),
            *([("  sent before", self.previously_sent)] if self.previously_sent else []),
            *([("  in no manifest", self.unlisted)] if self.unlisted else []),
            ("documents sent", self.sent),
            ("  new in the store", self.accepted - self.already_stored),
            ("  known already", self.already_stored),
            ("  rejected", self.rejected.count),
            ("damaged or missing", len(self.damaged)),
        ]
        rate = self.sent / seconds if seconds > 0 else 0.0
        return "\n".join(
            [
                *(f"{name:<24}{count:>14,}" for name, count in rows),
                f"{'time':<24}{seconds:>12,.1f} s  ({rate:,.0f} documents/s)",
                *self.rejected.format("rejected by the server"),
            ]
        )


def replay_command(  # noqa: PLR0913 - one argument for each option
    archive: ArchiveArgument,
    *,
    url: Annotated[str, typer.Option(help="The Metronome server whose store gets the events.")] = DEFAULT_SERVER_URL,
    first: FirstDayOption = None,
    last: LastDayOption = None,
    key: KeyOption = None,
    retry_timeout: Annotated[
        float, typer.Option(min=0, help="For how many seconds to try again where the server is busy or away.")
    ] = RETRY_TIMEOUT_SECONDS,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where it is kept what was sent, so that the next run goes on from there."),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Send what an interrupted run has sent, too.")] = False,
) -> None:
    """Send what an archive holds to a Metronome server, which puts it into its store: nothing is counted twice."""
    done, began = ReplaySummary(), monotonic()
    try:
        days = parse_day_range(first, last)
        opened = open_archive(archive)
        with (
            ReplayCheckpoint(checkpoint or default_checkpoint_file(archive, url)) as trail,
            EventLoopThread("archive") as background,
            _show_progress() as bar,
        ):
            stock = background.run(list_objects(opened, days, bar.update_manifests))
            done.damaged += stock.errors
            done.unlisted = sum(holding.manifest_entry is None for holding in stock.objects)
            left = stock.objects if restart else _unsent_objects(stock.objects, trail, done)
            bar.start(left)

            def answered(answer: SendResult[ReplayBatch]) -> None:
                done.add(answer)
                for holding in answer.batch.completed_objects:
                    trail.mark_sent(holding)
                bar.advance(answer.batch.completed_objects, done.sent)

            with BatchSender(url, answered, retry_timeout, key, path=DOCUMENTS_PATH) as sender:
                _send_objects(read_objects(background, opened, left), sender, done.damaged)
            if not done.damaged:
                trail.delete()
    except KeyboardInterrupt:
        _print_error(f"interrupted; {done.sent:,} documents were sent; {_RESUME_HINT}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except MetronomeError as error:
        _print_error(f"{error}; {done.sent:,} documents were sent; {_RESUME_HINT}" if done.sent else describe(error))
        raise typer.Exit(EXIT_USAGE if isinstance(error, ConfigurationError) else EXIT_FAILED) from None
    _print_summary(done, monotonic() - began)
    if done.damaged or done.rejected.count or not (done.objects or done.previously_sent):
        raise typer.Exit(EXIT_FAILED)


def _send_objects(
    objects: Iterable[tuple[ArchiveObject, bytes | ArchiveDamaged]],
    sender: BatchSender[ReplayBatch],
    damaged: list[str],
) -> None:
    """Send the documents of objects, and note what is damaged."""
    packer = ReplayBatcher()
    for holding, lines in objects:
        if isinstance(lines, ArchiveDamaged):
            damaged.append(str(lines))
            continue
        for parcel in packer.add(holding, lines):
            sender.send(parcel)
    for parcel in packer.flush():
        sender.send(parcel)
    sender.flush()


def _print_summary(summary: ReplaySummary, seconds: float) -> None:
    typer.echo(summary.format(seconds))
    for damage in summary.damaged:
        _print_error(f"{damage}; {ArchiveDamaged.advice}")
    if not (summary.objects or summary.previously_sent or summary.damaged):
        _print_error("the archive holds nothing of these days: is its prefix right, and has it been written to yet?")


def _unsent_objects(
    objects: Sequence[ArchiveObject], checkpoint: ReplayCheckpoint, summary: ReplaySummary
) -> list[ArchiveObject]:
    """Return the objects that no earlier run has sent, and tell of the others."""
    left = [holding for holding in objects if holding not in checkpoint]
    summary.previously_sent = len(objects) - len(left)
    if summary.previously_sent:
        _print_error(
            f"{summary.previously_sent:,} of {len(objects):,} objects were sent by a run that did not come to its "
            f"end, and are "
            "left out; --restart sends them, too, as is needed if the store was emptied since"
        )
    return left


class _ReplayProgress:
    """The progress bar, in bytes of objects, with the rate in documents."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("replay", total=None, said="")
        self._started_at = monotonic()

    def update_manifests(self, count: int) -> None:
        self._progress.update(self._task, said=f"{count:,} manifests")

    def start(self, objects: Sequence[ArchiveObject]) -> None:
        self._started_at = monotonic()
        total = sum(holding.size for holding in objects)
        self._progress.update(self._task, total=total, said=f"{len(objects):,} objects")

    def advance(self, completed: Sequence[ArchiveObject], sent: int) -> None:
        rate = sent / max(monotonic() - self._started_at, 0.001)
        size = sum(holding.size for holding in completed)
        self._progress.update(self._task, advance=size, said=f"{rate:,.0f} documents/s")


@contextmanager
def _show_progress() -> Iterator[_ReplayProgress]:
    with progress_bar(TaskProgressColumn(), TextColumn("{task.fields[said]}")) as progress:
        yield _ReplayProgress(progress)


def _print_error(sentence: str) -> None:
    typer.echo(f"metronome replay: {sanitize_for_terminal(sentence)}", err=True)
