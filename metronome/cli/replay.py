"""``metronome replay``: sends what an archive holds to a Metronome server, which puts it back into its store."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Annotated, Final

import typer
from rich.progress import Progress, TaskProgressColumn, TextColumn

from metronome.archive.inventory import Holding, Where, fetched, take_stock
from metronome.archive.objects import open_archive
from metronome.archive.replay import Packer, Parcel, Trail, default_file
from metronome.cli.options import FirstDay, LastDay, read_days
from metronome.cli.output import progress_bar
from metronome.errors import Damaged, MetronomeError, Misconfigured
from metronome.importer.summary import Notes, printable
from metronome.server_client import PATIENCE_SECONDS, USUAL_URL, Answer, Background, Key, Sender

PATH: Final = "/documents"
EXIT_FAILED: Final = 1
EXIT_MISUSED: Final = 2
EXIT_INTERRUPTED: Final = 130
_AGAIN: Final = "run the same command again to send the rest: nothing is counted twice"


@dataclass(slots=True)
class Done:
    """What a replay has done so far."""

    objects: int = 0
    before: int = 0
    sent: int = 0
    accepted: int = 0
    known: int = 0
    rejected: Notes = field(default_factory=Notes)
    damages: list[str] = field(default_factory=list)
    unlisted: int = 0

    def take(self, answer: Answer[Parcel]) -> None:
        """Count what the server says of a parcel."""
        self.objects += len(answer.batch.finished)
        self.sent += answer.batch.events
        self.accepted += answer.accepted
        self.known += answer.known
        for place, reason in answer.rejected:
            path, _, line = place.rpartition(", ")
            self.rejected.add(path, line, reason)

    def summary(self, seconds: float) -> str:
        """Return everything that was counted, as a small table."""
        rows = [
            ("objects sent", self.objects),
            *([("  sent before", self.before)] if self.before else []),
            *([("  in no manifest", self.unlisted)] if self.unlisted else []),
            ("documents sent", self.sent),
            ("  new in the store", self.accepted - self.known),
            ("  known already", self.known),
            ("  rejected", self.rejected.count),
            ("damaged or missing", len(self.damages)),
        ]
        rate = self.sent / seconds if seconds > 0 else 0.0
        return "\n".join(
            [
                *(f"{name:<24}{count:>14,}" for name, count in rows),
                f"{'time':<24}{seconds:>12,.1f} s  ({rate:,.0f} documents/s)",
                *self.rejected.told("rejected by the server"),
            ]
        )


def replay(  # noqa: PLR0913 - one argument for each option
    archive: Where,
    *,
    url: Annotated[str, typer.Option(help="The Metronome server whose store gets the events.")] = USUAL_URL,
    first: FirstDay = None,
    last: LastDay = None,
    key: Key = None,
    patience: Annotated[
        float, typer.Option(min=0, help="For how many seconds to try again where the server is busy or away.")
    ] = PATIENCE_SECONDS,
    progress: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where it is kept what was sent, so that the next run goes on from there."),
    ] = None,
    afresh: Annotated[bool, typer.Option("--afresh", help="Send what an interrupted run has sent, too.")] = False,
) -> None:
    """Send what an archive holds to a Metronome server, which puts it into its store: nothing is counted twice."""
    done, began = Done(), monotonic()
    try:
        days = read_days(first, last)
        opened = open_archive(archive)
        with Trail(progress or default_file(archive, url)) as trail, Background("archive") as background, _bar() as bar:
            stock = background.run(take_stock(opened, days, bar.count_manifests))
            done.damages += stock.damages
            done.unlisted = sum(holding.listed is None for holding in stock.holdings)
            left = stock.holdings if afresh else _left(stock.holdings, trail, done)
            bar.start(left)

            def answered(answer: Answer[Parcel]) -> None:
                done.take(answer)
                for holding in answer.batch.finished:
                    trail.add(holding)
                bar.advance(answer.batch.finished, done.sent)

            with Sender(url, answered, patience, key, path=PATH) as sender:
                _send(fetched(background, opened, left), sender, done.damages)
            if not done.damages:
                trail.forget()
    except KeyboardInterrupt:
        _complain(f"interrupted; {done.sent:,} documents were sent; {_AGAIN}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except MetronomeError as error:
        _complain(f"{error}; {done.sent:,} documents were sent; {_AGAIN}" if done.sent else f"{error}; {error.advice}")
        raise typer.Exit(EXIT_MISUSED if isinstance(error, Misconfigured) else EXIT_FAILED) from None
    _tell(done, monotonic() - began)
    if done.damages or done.rejected.count or not (done.objects or done.before):
        raise typer.Exit(EXIT_FAILED)


def _send(found: Iterable[tuple[Holding, bytes | Damaged]], sender: Sender[Parcel], damages: list[str]) -> None:
    """Send the documents of objects, and note what is damaged."""
    packer = Packer()
    for holding, lines in found:
        if isinstance(lines, Damaged):
            damages.append(str(lines))
            continue
        for parcel in packer.add(holding, lines):
            sender.send(parcel)
    for parcel in packer.rest():
        sender.send(parcel)
    sender.finish()


def _tell(done: Done, seconds: float) -> None:
    typer.echo(done.summary(seconds))
    for damage in done.damages:
        _complain(f"{damage}; {Damaged.advice}")
    if not (done.objects or done.before or done.damages):
        _complain("the archive holds nothing of these days: is its prefix right, and has it been written to yet?")


def _left(holdings: Sequence[Holding], trail: Trail, done: Done) -> list[Holding]:
    """Return the objects that no earlier run has sent, and tell of the others."""
    left = [holding for holding in holdings if holding not in trail]
    done.before = len(holdings) - len(left)
    if done.before:
        _complain(
            f"{done.before:,} of {len(holdings):,} objects were sent by a run that did not come to its end, and are "
            "left out; --afresh sends them, too, as is needed if the store was emptied since"
        )
    return left


class _Bar:
    """The progress bar, in bytes of objects, with the rate in documents."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("replay", total=None, said="")
        self._began = monotonic()

    def count_manifests(self, count: int) -> None:
        self._progress.update(self._task, said=f"{count:,} manifests")

    def start(self, holdings: Sequence[Holding]) -> None:
        self._began = monotonic()
        total = sum(holding.bytes for holding in holdings)
        self._progress.update(self._task, total=total, said=f"{len(holdings):,} objects")

    def advance(self, finished: Sequence[Holding], sent: int) -> None:
        rate = sent / max(monotonic() - self._began, 0.001)
        size = sum(holding.bytes for holding in finished)
        self._progress.update(self._task, advance=size, said=f"{rate:,.0f} documents/s")


@contextmanager
def _bar() -> Iterator[_Bar]:
    with progress_bar(TaskProgressColumn(), TextColumn("{task.fields[said]}")) as progress:
        yield _Bar(progress)


def _complain(sentence: str) -> None:
    typer.echo(f"metronome replay: {printable(sentence)}", err=True)
