"""``metronome import``: sends the hits of access logs to a Metronome server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Annotated, Final, NamedTuple

import typer
from rich.progress import Progress, TaskProgressColumn, TextColumn

from metronome.cli.output import progress_bar
from metronome.enrich.referrers import normalize_own_hosts
from metronome.errors import ConfigurationError, Malformed, MetronomeError, ServerUnavailable
from metronome.importer.batches import ImportConfig, LogBatch, iterate_batches
from metronome.importer.files import LogFile, total_size
from metronome.importer.follow import FollowConfig, default_positions_file, follow_logs
from metronome.importer.summary import ImportSummary, sanitize_for_terminal
from metronome.items import PATTERN_SETTING, compile_item_pattern
from metronome.protocols.access_logs.reader import get_format, list_format_names
from metronome.server_client import RETRY_TIMEOUT_SECONDS, BatchSender, SendResult

AUTO_FORMAT: Final = "auto"
BATCH_EVENTS: Final = 5000
BATCH_MAX_EVENTS: Final = 10_000
"""As many as the server takes in one request."""
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
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
        str,
        typer.Option(
            "--format", metavar="NAME", help=f"How the lines are written: {AUTO_FORMAT}, {list_format_names()}."
        ),
    ] = AUTO_FORMAT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and count, but send nothing.")] = False,
    batch: Annotated[
        int, typer.Option(min=1, max=BATCH_MAX_EVENTS, help="How many events are sent together.")
    ] = BATCH_EVENTS,
    retry_timeout: Annotated[
        float, typer.Option(min=0, help="For how many seconds to try again where the server is busy or away.")
    ] = RETRY_TIMEOUT_SECONDS,
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
    tally = ImportSummary()
    began = monotonic()
    try:
        plan = ImportConfig(
            item_rule=compile_item_pattern(item_pattern),
            own_hosts=normalize_own_hosts(tuple(host for hosts in own_host or () for host in hosts.split(","))),
            log_format=None if log_format == AUTO_FORMAT else get_format(log_format),
            batch_events=batch,
        )
        failures: list[str] = []
        if follow_on:
            exit_code = _follow_files(
                files, plan, tally, _ServerOptions(url, key, retry_timeout), positions, dry_run=dry_run
            )
        else:
            exit_code = 0
            size = total_size(files)
            server = None if dry_run else _ServerOptions(url, key, retry_timeout)
            with _open_output(server, tally) as outlet, _show_progress(size) as progress:
                failures = _import_files(files, plan, tally, outlet, progress)
    except KeyboardInterrupt:
        _print_error(f"interrupted; {_resume_hint(tally)}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except ConfigurationError as error:
        _print_error(str(error))
        raise typer.Exit(EXIT_USAGE) from None
    except ServerUnavailable as error:
        _print_error(f"{error}; {_resume_hint(tally)}")
        raise typer.Exit(EXIT_FAILED) from None
    except MetronomeError as error:
        _print_error(str(error))
        raise typer.Exit(EXIT_FAILED) from None
    typer.echo(tally.format(monotonic() - began, sent=not dry_run))
    for failure in failures:
        _print_error(failure)
    if follow_on:
        raise typer.Exit(exit_code)
    if failures or tally.rejected.count:
        raise typer.Exit(EXIT_FAILED)


class _ServerOptions(NamedTuple):
    url: str
    key: str | None
    retry_timeout: float


class _BatchOutput:
    """Where batches go: to a server, or nowhere."""

    def __init__(self, sender: BatchSender[LogBatch] | None) -> None:
        self._sender = sender

    def send(self, batch: LogBatch) -> None:
        if self._sender is not None:
            self._sender.send(batch)

    def finish(self) -> None:
        if self._sender is not None:
            self._sender.flush()


@contextmanager
def _open_output(server: _ServerOptions | None, summary: ImportSummary) -> Iterator[_BatchOutput]:
    def count(answer: SendResult[LogBatch]) -> None:
        summary.accepted += answer.accepted
        for place, reason in answer.rejected:
            summary.rejected.add(answer.batch.log, place, reason)

    if server is None:
        yield _BatchOutput(None)
        return
    with BatchSender(server.url, count, server.retry_timeout, server.key) as sender:
        yield _BatchOutput(sender)


class _ImportProgress:
    """The progress bar, in stored bytes, with the rate in lines."""

    def __init__(self, progress: Progress, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task("import", total=total, rate="")
        self._started_at = monotonic()
        self._completed_bytes = 0

    def update(self, file: LogFile, summary: ImportSummary) -> None:
        rate = summary.lines / max(monotonic() - self._started_at, 0.001)
        self._progress.update(
            self._task, completed=self._completed_bytes + file.bytes_read, rate=f"{rate:,.0f} lines/s"
        )

    def next_file(self, file: LogFile) -> None:
        self._completed_bytes += file.bytes_read


@contextmanager
def _show_progress(total: int | None) -> Iterator[_ImportProgress]:
    with progress_bar(TaskProgressColumn(), TextColumn("{task.fields[rate]}")) as progress:
        yield _ImportProgress(progress, total)


def _import_files(
    files: list[str], config: ImportConfig, summary: ImportSummary, output: _BatchOutput, progress: _ImportProgress
) -> list[str]:
    failures = []
    for path in files:
        with LogFile(path) as file:
            failures += _import_file(file, config, summary, output, progress)
            progress.next_file(file)
    output.finish()
    return failures


def _import_file(
    file: LogFile, config: ImportConfig, summary: ImportSummary, output: _BatchOutput, progress: _ImportProgress
) -> list[str]:
    lines, readable = summary.lines, summary.readable
    failures = []
    try:
        for batch in iterate_batches(file, config, summary):
            output.send(batch)
            progress.update(file, summary)
        if summary.lines > lines and summary.readable == readable and file.read_error is None:
            failures.append(f"{file.name}: no line could be read; the formats known are {list_format_names()}")
    except Malformed as error:
        failures.append(f"{file.name}: {error}")
    if file.read_error is not None:
        failures.append(f"{file.read_error}; the whole lines before that were taken")
    return failures


def _follow_files(
    files: list[str],
    config: ImportConfig,
    summary: ImportSummary,
    server: _ServerOptions,
    positions: Path | None,
    *,
    dry_run: bool,
) -> int:
    if dry_run:
        raise ConfigurationError("--dry-run and --follow exclude each other: a pattern is tried on what is there")
    file = positions or default_positions_file()
    return follow_logs(FollowConfig(files, config, server.url, server.key, file, _print_error), summary)


def _resume_hint(summary: ImportSummary) -> str:
    return (
        f"{summary.acknowledged:,} lines were acknowledged; "
        "run the same command again to import the rest: nothing is counted twice"
    )


def _print_error(sentence: str) -> None:
    typer.echo(f"metronome import: {sanitize_for_terminal(sentence)}", err=True)
