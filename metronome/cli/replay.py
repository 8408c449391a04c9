"""``metronome replay``: send the documents of an archive to a Metronome server."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from metronome.archive.erasure import Tombstone, drop_forgotten, read_tombstones
from metronome.archive.inventory import ArchiveObject, list_objects, read_objects
from metronome.archive.objects import open_archive
from metronome.archive.replay import ReplayBatch, ReplayBatcher, ReplayCheckpoint, default_checkpoint_file
from metronome.cli.errors import EXIT_FAILED, print_error, reporting_errors, retry_notifier
from metronome.cli.options import (
    DEFAULT_SERVER_URL,
    ArchiveArgument,
    FirstDayOption,
    KeyOption,
    LastDayOption,
    RetryTimeoutOption,
    UrlOption,
    parse_day_range,
)
from metronome.cli.output import print_lines, show_progress
from metronome.errors import ArchiveDamaged
from metronome.importer.summary import RejectedLines, format_counts
from metronome.server_client import (
    DOCUMENTS_PATH,
    RETRY_TIMEOUT_SECONDS,
    BatchSender,
    EventLoopThread,
    SendResult,
    ServerClient,
)


@dataclass(slots=True)
class ReplaySummary:
    """Counts of a replay."""

    objects: int = 0
    previously_sent: int = 0
    sent: int = 0
    accepted: int = 0
    already_stored: int = 0
    forgotten: int = 0
    rejected: RejectedLines = field(default_factory=RejectedLines)
    damaged: list[str] = field(default_factory=list)
    unlisted: int = 0

    def add_result(self, result: SendResult[ReplayBatch]) -> None:
        """Count the server's response to a batch."""
        self.objects += len(result.batch.completed_objects)
        self.sent += result.batch.events
        self.accepted += result.accepted
        self.already_stored += result.already_stored
        for location, reason in result.rejected:
            path, _, line = location.rpartition(", ")
            self.rejected.add(path, line, reason)

    def format(self, seconds: float) -> list[str]:
        """Return all counts as lines of a table."""
        rows = [
            ("objects sent", self.objects),
            *([("  sent before", self.previously_sent)] if self.previously_sent else []),
            *([("  in no manifest", self.unlisted)] if self.unlisted else []),
            ("documents sent", self.sent),
            ("  new in the store", self.accepted - self.already_stored),
            ("  already stored", self.already_stored),
            ("  rejected", self.rejected.count),
            *([("forgotten, not sent", self.forgotten)] if self.forgotten else []),
            ("damaged or missing", len(self.damaged)),
        ]
        return [
            *format_counts(rows, self.sent, "documents", seconds),
            *self.rejected.format("rejected by the server"),
        ]


def replay_command(  # noqa: PLR0913  # one argument for each option
    archive: ArchiveArgument,
    *,
    url: UrlOption = DEFAULT_SERVER_URL,
    first: FirstDayOption = None,
    last: LastDayOption = None,
    key: KeyOption = None,
    retry_timeout: RetryTimeoutOption = RETRY_TIMEOUT_SECONDS,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File that records which objects were sent, so that an interrupted replay can be resumed.",
            show_default="in the user's state folder",
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Send all objects again, including those of an interrupted replay.")
    ] = False,
) -> None:
    """Load an archive back into a server's store.

    Events that the store already has are not counted twice.
    """
    summary, started_at = ReplaySummary(), monotonic()

    def resume_hint() -> str:
        return (
            f"{summary.sent:,} documents were sent; "
            "run the same command again to send the rest: no event is counted twice"
            if summary.sent
            else ""
        )

    with reporting_errors("replay", resume_hint):
        days, client, opened_archive = parse_day_range(first, last), ServerClient(url, key), open_archive(archive)
        with (
            ReplayCheckpoint(checkpoint or default_checkpoint_file(archive, url), restart=restart) as sent_objects,
            EventLoopThread("archive") as loop_thread,
            show_progress() as progress,
        ):
            # Before the objects: what is forgotten meanwhile is read as it was.
            tombstones = loop_thread.run(read_tombstones(opened_archive))
            inventory = loop_thread.run(
                list_objects(opened_archive, days, lambda count: progress.advance(0, lambda: f"{count:,} manifests"))
            )
            summary.damaged += inventory.errors
            summary.unlisted = sum(archive_object.manifest_entry is None for archive_object in inventory.objects)
            objects = _skip_sent(inventory.objects, sent_objects, summary)
            progress.start(sum(archive_object.size for archive_object in objects), f"{len(objects):,} objects")

            def on_result(result: SendResult[ReplayBatch]) -> None:
                summary.add_result(result)
                for archive_object in result.batch.completed_objects:
                    sent_objects.mark_sent(archive_object)
                    progress.advance(archive_object.size, lambda: f"{progress.rate(summary.sent):,.0f} documents/s")

            with BatchSender(client, on_result, retry_timeout, retry_notifier("replay"), DOCUMENTS_PATH) as sender:
                _send_objects(read_objects(loop_thread, opened_archive, objects), tombstones, sender, summary)
            if not summary.damaged:
                sent_objects.delete()
    print_lines(summary.format(monotonic() - started_at))
    for damage in summary.damaged:
        print_error("replay", f"{damage}; {ArchiveDamaged.advice}")
    is_empty = not (summary.objects or summary.previously_sent)
    if is_empty and not summary.damaged:
        print_error("replay", "the archive has no objects for these days; check its prefix")
    if summary.damaged or summary.rejected.count or is_empty:
        raise typer.Exit(EXIT_FAILED)


def _send_objects(
    objects: Iterable[tuple[ArchiveObject, bytes | ArchiveDamaged]],
    tombstones: Sequence[Tombstone],
    sender: BatchSender[ReplayBatch],
    summary: ReplaySummary,
) -> None:
    batcher = ReplayBatcher()
    for archive_object, lines in objects:
        if isinstance(lines, ArchiveDamaged):
            summary.damaged.append(str(lines))
            continue
        kept, forgotten = drop_forgotten(tombstones, archive_object, lines)
        summary.forgotten += forgotten
        for batch in batcher.add(archive_object, kept):
            sender.send(batch)
    for batch in batcher.flush():
        sender.send(batch)
    sender.flush()


def _skip_sent(
    objects: Sequence[ArchiveObject], sent_objects: ReplayCheckpoint, summary: ReplaySummary
) -> list[ArchiveObject]:
    unsent = [archive_object for archive_object in objects if archive_object not in sent_objects]
    summary.previously_sent = len(objects) - len(unsent)
    if summary.previously_sent:
        print_error(
            "replay",
            f"skipping {summary.previously_sent:,} of {len(objects):,} objects, which an incomplete replay has sent; "
            "use --restart to send them again, for example into an empty store",
        )
    return unsent
