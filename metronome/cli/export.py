"""``metronome export`` and ``metronome load``: stored documents as files, and back into a server."""

from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from metronome.cli.errors import EXIT_FAILED, print_error, reporting_errors, retry_notifier
from metronome.cli.options import (
    DEFAULT_SERVER_URL,
    FromOption,
    KeyOption,
    RetryTimeoutOption,
    TimeZoneOption,
    ToOption,
    UrlOption,
)
from metronome.cli.output import Progress, note_pending, print_lines, print_note, show_progress
from metronome.cli.query import encode_filter
from metronome.exports import (
    SUFFIXES,
    LoadBatch,
    LoadCheckpoint,
    PartFile,
    iterate_load_batches,
    require_suffix,
)
from metronome.importer.summary import RejectedLines, format_counts
from metronome.retry import Backoff, retry
from metronome.server_client import (
    DOCUMENTS_PATH,
    RETRY_TIMEOUT_SECONDS,
    BatchSender,
    EventLoopThread,
    SendResult,
    ServerClient,
    encode_parameters,
)

_PAGE_TIMEOUT_SECONDS = 120.0
_BACKOFF = Backoff(0.25, 8.0)
_NDJSON = "application/x-ndjson"

RestartOption = Annotated[bool, typer.Option("--restart", help="Start at the beginning, also after an interruption.")]


def export_command(  # noqa: PLR0913  # one argument for each option
    filters: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILTER",
            help="Events to include, as in metronome query: event=download, 'bot!=*' (without bots).",
            show_default="all events",
        ),
    ] = None,
    *,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help=f"File to write; its name ends with {', '.join(SUFFIXES)}.")
    ],
    start: FromOption = None,
    end: ToOption = None,
    tz: TimeZoneOption = "UTC",
    restart: RestartOption = False,
    url: UrlOption = DEFAULT_SERVER_URL,
    key: KeyOption = None,
    retry_timeout: RetryTimeoutOption = RETRY_TIMEOUT_SECONDS,
) -> None:
    """Write stored events to a Parquet, NDJSON or CSV file.

    An interrupted export continues when the same command is repeated.
    """
    started_at = monotonic()
    with reporting_errors("export", lambda: "run the same command again to continue"):
        require_suffix(file)
        client = ServerClient(url, key, note_pending)
        selection = "&".join(
            [*encode_parameters([("from", start), ("to", end), ("tz", tz)]), *map(encode_filter, filters or ())]
        )
        total = _count_documents(client, selection)
        with PartFile(file, f"{url.rstrip('/')}?{selection}\n", restart=restart) as part:
            received = part.count_documents()
            if received:
                print_note(f"continuing after {received:,} documents; use --restart to start at the beginning")
            with show_progress() as progress:
                progress.start(total)
                progress.advance(received)
                received += _receive(client, selection, part, progress, retry_timeout)
            omitted = part.finish()
    if not received:
        print_note("no events match in this time range")
    print_lines(format_counts([("documents", received)], received, "documents", monotonic() - started_at))
    if omitted:
        print_note(f"{omitted:,} rare fields have no column of their own: they are in the column document")


def _count_documents(client: ServerClient, selection: str) -> int:
    path = f"/query?metrics=count&bots=1&{selection}"
    result = client.get_json(path, "rows")
    with client.parsing_response(path):
        return int(result["rows"][0][0]) if result["rows"] else 0


def _receive(client: ServerClient, selection: str, part: PartFile, progress: Progress, retry_timeout: float) -> int:
    """Append the documents that are missing to a file, and return their number."""
    # Only this command needs it at once, and it imports much.
    from metronome.reports.documents import read_cursor  # noqa: PLC0415

    received, on_retry = 0, retry_notifier("export")

    with EventLoopThread("export") as loop_thread:
        open_session = client.open_session(_PAGE_TIMEOUT_SECONDS)
        session = loop_thread.run(open_session.__aenter__())

        async def get(path: str) -> bytes:
            return await retry(
                lambda: client.request(session, "GET", path, {"Accept": _NDJSON}),
                _BACKOFF,
                on_retry=lambda error, _: on_retry(str(error)),
                timeout_seconds=retry_timeout,
            )

        def rate() -> str:
            return f"{progress.rate(received):,.0f} documents/s"

        try:
            last = part.last_document()
            while True:
                after = None if last is None else str(read_cursor(last))
                path = "&".join([f"{DOCUMENTS_PATH}?{selection}", *encode_parameters([("after", after)])])
                page = loop_thread.run(get(path))
                if not page:
                    return received
                with client.parsing_response(path):
                    last = page[page.rstrip(b"\n").rfind(b"\n") + 1 :]
                    read_cursor(last)
                part.append(page)
                count = page.count(b"\n")
                received += count
                progress.advance(count, rate)
        finally:
            loop_thread.run(open_session.__aexit__(None, None, None))


@dataclass(slots=True)
class LoadSummary:
    """Counts of a load."""

    files: int = 0
    sent: int = 0
    accepted: int = 0
    already_stored: int = 0
    rejected: RejectedLines = field(default_factory=RejectedLines)

    def add_result(self, file: Path, result: SendResult[LoadBatch]) -> None:
        """Count the server's response to a batch."""
        self.sent += result.batch.documents
        self.accepted += result.accepted
        self.already_stored += result.already_stored
        for location, reason in result.rejected:
            self.rejected.add(str(file), location, reason)

    def format(self, seconds: float) -> list[str]:
        """Return all counts as lines of a table."""
        rows = [
            ("files", self.files),
            ("documents sent", self.sent),
            ("  new in the store", self.accepted - self.already_stored),
            ("  already stored", self.already_stored),
            ("  rejected", self.rejected.count),
        ]
        return [
            *format_counts(rows, self.sent, "documents", seconds),
            *self.rejected.format("rejected by the server"),
        ]


def load_command(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Files of metronome export, or NDJSON of documents.")
    ],
    *,
    restart: RestartOption = False,
    url: UrlOption = DEFAULT_SERVER_URL,
    key: KeyOption = None,
    retry_timeout: RetryTimeoutOption = RETRY_TIMEOUT_SECONDS,
) -> None:
    """Load exported files into a server's store.

    Events that the store already has are not counted twice.
    """
    summary, started_at = LoadSummary(), monotonic()
    with reporting_errors(
        "load", lambda: f"{summary.sent:,} documents were sent; run the same command again to send the rest"
    ):
        client = ServerClient(url, key)
        for file in files:
            require_suffix(file)
        checkpoints = [LoadCheckpoint(file, url, restart=restart) for file in files]
        with show_progress(has_total=False) as progress:
            for file, checkpoint in zip(files, checkpoints, strict=True):
                _load_file(file, checkpoint, client, summary, progress, retry_timeout)
        for checkpoint in checkpoints:
            checkpoint.delete()
    print_lines(summary.format(monotonic() - started_at))
    if summary.rejected.count:
        raise typer.Exit(EXIT_FAILED)


def _load_file(
    file: Path,
    checkpoint: LoadCheckpoint,
    client: ServerClient,
    summary: LoadSummary,
    progress: Progress,
    retry_timeout: float,
) -> None:
    if checkpoint.accepted:
        print_error("load", f"skipping {checkpoint.accepted:,} documents of {file}, which were sent before")

    def on_result(result: SendResult[LoadBatch]) -> None:
        summary.add_result(file, result)
        checkpoint.accepted += result.batch.documents
        checkpoint.record(checkpoint.accepted)
        progress.advance(
            result.batch.documents, lambda: f"{summary.sent:,} documents, {progress.rate(summary.sent):,.0f}/s"
        )

    with BatchSender(client, on_result, retry_timeout, retry_notifier("load"), DOCUMENTS_PATH) as sender:
        for batch in iterate_load_batches(file, checkpoint.accepted):
            sender.send(batch)
        sender.flush()
    summary.files += 1
