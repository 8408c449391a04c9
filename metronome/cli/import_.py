"""``metronome import``: sends the hits of access logs to a Metronome server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Annotated, Final, NamedTuple

import typer
from rich.progress import Progress, TaskProgressColumn, TextColumn

from metronome.cli.output import progress_bar
from metronome.enrich.referrers import own_hosts
from metronome.errors import Malformed, MetronomeError, Misconfigured, ServerAway
from metronome.importer.batches import Batch, Plan, batches
from metronome.importer.files import LogFile, stored_bytes
from metronome.importer.follow import Following, default_file, follow
from metronome.importer.summary import Tally, printable
from metronome.items import PATTERN_SETTING, item_rule
from metronome.protocols.access_logs.reader import format_named, format_names
from metronome.server_client import PATIENCE_SECONDS, Answer, Sender

AUTO: Final = "auto"
BATCH_EVENTS: Final = 5000
BATCH_MAX_EVENTS: Final = 10_000
"""As many as the server takes in one request."""
EXIT_FAILED: Final = 1
EXIT_MISUSED: Final = 2
EXIT_INTERRUPTED: Final = 130


def import_logs(  # noqa: PLR0913 - one argument for each option
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="Access logs, plain, gzip or zstd; - is standard input.")
    ],
    *,
    url: Annotated[str, typer.Option(help="The Metronome server that takes the events.")] = "http://127.0.0.1:8080",
    item_pattern: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            envvar=PATTERN_SETTING,
            help="What an item is: searched in the path, with the group id and, for downloads, format. "
            "Without it each path is an item.",
        ),
    ] = None,
    own_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            envvar="METRONOME_OWN_HOSTS",
            help="A host whose referers do not count; may be given more than once, or as a comma-separated list.",
        ),
    ] = None,
    log_format: Annotated[
        str, typer.Option("--format", metavar="NAME", help=f"How the lines are written: {AUTO}, {format_names()}.")
    ] = AUTO,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and count, but send nothing.")] = False,
    batch: Annotated[
        int, typer.Option(min=1, max=BATCH_MAX_EVENTS, help="How many events are sent together.")
    ] = BATCH_EVENTS,
    patience: Annotated[
        float, typer.Option(min=0, help="For how many seconds to try again where the server is busy or away.")
    ] = PATIENCE_SECONDS,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", envvar="METRONOME_KEY", help="The key that the server asks for.")
    ] = None,
    follow_on: Annotated[
        bool, typer.Option("--follow", help="Go on as the logs grow, through rotations, until interrupted.")
    ] = False,
    positions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --follow: where it is kept how far the logs were taken."),
    ] = None,
) -> None:
    """Import access logs: send each hit, as a view or download of its item, to a Metronome server.

    A log may be imported again, whole, compressed or grown since: nothing is counted twice.
    """
    tally = Tally()
    began = monotonic()
    try:
        plan = Plan(
            rule=item_rule(item_pattern),
            own_hosts=own_hosts(tuple(host for hosts in own_host or () for host in hosts.split(","))),
            log_format=None if log_format == AUTO else format_named(log_format),
            batch_events=batch,
        )
        failures: list[str] = []
        if follow_on:
            exit_code = _follow(files, plan, tally, _Server(url, key, patience), positions, dry_run=dry_run)
        else:
            exit_code = 0
            size = stored_bytes(files)
            server = None if dry_run else _Server(url, key, patience)
            with _outlet(server, tally) as outlet, _progress(size) as progress:
                failures = _import_all(files, plan, tally, outlet, progress)
    except KeyboardInterrupt:
        _complain(f"interrupted; {_acknowledged(tally)}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except Misconfigured as error:
        _complain(str(error))
        raise typer.Exit(EXIT_MISUSED) from None
    except ServerAway as error:
        _complain(f"{error}; {_acknowledged(tally)}")
        raise typer.Exit(EXIT_FAILED) from None
    except MetronomeError as error:
        _complain(str(error))
        raise typer.Exit(EXIT_FAILED) from None
    typer.echo(tally.summary(monotonic() - began, sent=not dry_run))
    for failure in failures:
        _complain(failure)
    if follow_on:
        raise typer.Exit(exit_code)
    if failures or tally.rejected.count:
        raise typer.Exit(EXIT_FAILED)


class _Server(NamedTuple):
    url: str
    key: str | None
    patience: float


class _Outlet:
    """Where batches go: to a server, or nowhere."""

    def __init__(self, sender: Sender[Batch] | None) -> None:
        self._sender = sender

    def send(self, batch: Batch) -> None:
        if self._sender is not None:
            self._sender.send(batch)

    def finish(self) -> None:
        if self._sender is not None:
            self._sender.finish()


@contextmanager
def _outlet(server: _Server | None, tally: Tally) -> Iterator[_Outlet]:
    def count(answer: Answer[Batch]) -> None:
        tally.accepted += answer.accepted
        for place, reason in answer.rejected:
            tally.rejected.add(answer.batch.log, place, reason)

    if server is None:
        yield _Outlet(None)
        return
    with Sender(server.url, count, server.patience, server.key) as sender:
        yield _Outlet(sender)


class _Meter:
    """The progress bar, in stored bytes, with the rate in lines."""

    def __init__(self, progress: Progress, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task("import", total=total, rate="")
        self._began = monotonic()
        self._before = 0

    def show(self, file: LogFile, tally: Tally) -> None:
        rate = tally.lines / max(monotonic() - self._began, 0.001)
        self._progress.update(self._task, completed=self._before + file.position, rate=f"{rate:,.0f} lines/s")

    def next_file(self, file: LogFile) -> None:
        self._before += file.position


@contextmanager
def _progress(total: int | None) -> Iterator[_Meter]:
    with progress_bar(TaskProgressColumn(), TextColumn("{task.fields[rate]}")) as progress:
        yield _Meter(progress, total)


def _import_all(files: list[str], plan: Plan, tally: Tally, outlet: _Outlet, meter: _Meter) -> list[str]:
    failures = []
    for path in files:
        with LogFile(path) as file:
            failures += _import_one(file, plan, tally, outlet, meter)
            meter.next_file(file)
    outlet.finish()
    return failures


def _import_one(file: LogFile, plan: Plan, tally: Tally, outlet: _Outlet, meter: _Meter) -> list[str]:
    lines, readable = tally.lines, tally.readable
    failures = []
    try:
        for batch in batches(file, plan, tally):
            outlet.send(batch)
            meter.show(file, tally)
        if tally.lines > lines and tally.readable == readable and file.damage is None:
            failures.append(f"{file.name}: no line could be read; the formats known are {format_names()}")
    except Malformed as error:
        failures.append(f"{file.name}: {error}")
    if file.damage is not None:
        failures.append(f"{file.damage}; the whole lines before that were taken")
    return failures


def _follow(
    files: list[str], plan: Plan, tally: Tally, server: _Server, positions: Path | None, *, dry_run: bool
) -> int:
    if dry_run:
        raise Misconfigured("--dry-run and --follow exclude each other: a pattern is tried on what is there")
    file = positions or default_file()
    return follow(Following(files, plan, server.url, server.key, file, _complain), tally)


def _acknowledged(tally: Tally) -> str:
    return (
        f"{tally.acknowledged:,} lines were acknowledged; "
        "run the same command again to import the rest: nothing is counted twice"
    )


def _complain(sentence: str) -> None:
    typer.echo(f"metronome import: {printable(sentence)}", err=True)
