"""``metronome import``: send the requests in access logs to a Metronome server."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import Annotated, Final

import typer

from metronome.cli.errors import EXIT_FAILED, print_error, reporting_errors, retry_notifier
from metronome.cli.forget import forget
from metronome.cli.options import DEFAULT_SERVER_URL, KeyOption, RetryTimeoutOption, UrlOption
from metronome.cli.output import Progress, print_lines, show_progress
from metronome.enrich.addresses import PRIVATE_NETWORKS, ProxyNetworks
from metronome.enrich.referrers import normalize_own_hosts
from metronome.errors import ConfigurationError, Malformed, RequestError
from metronome.importer.batches import ImportConfig, LogBatch, identify_log, iterate_batches
from metronome.importer.files import STANDARD_INPUT, LogFile, total_size
from metronome.importer.follow import FollowConfig, default_positions_file, follow_logs
from metronome.importer.storing import StoreWatch
from metronome.importer.summary import Details, ImportSummary
from metronome.items import EXCLUDE_SETTING, PATTERN_SETTING, compile_item_pattern
from metronome.protocols.access_logs.reader import get_format, list_format_names
from metronome.server_client import REQUEST_MAX_EVENTS, RETRY_TIMEOUT_SECONDS, BatchSender, SendResult, ServerClient


class MatchedPart(StrEnum):
    """What the patterns are searched in."""

    PATH = "path"
    URL = "url"


AUTO_FORMAT: Final = "auto"
BATCH_EVENTS: Final = 5000
_TOO_OLD: Final = "tick_max_age"
"""The setting in the server's reason."""


def import_command(  # noqa: PLR0913  # one argument for each option
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE", help="Access logs: plain or compressed; - for standard input."),
    ],
    *,
    url: UrlOption = DEFAULT_SERVER_URL,
    item_pattern: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            envvar=PATTERN_SETTING,
            help="Regular expression that is searched in each path: the group id is the item, and the group format "
            "the format of a download. Without it, each path is an item.",
        ),
    ] = None,
    exclude: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            envvar=EXCLUDE_SETTING,
            help="Regular expression that is searched in each path: requests that it matches are not counted.",
        ),
    ] = None,
    match: Annotated[
        MatchedPart,
        typer.Option(
            envvar="METRONOME_MATCH",
            help="What the patterns are searched in: the path, or host, path and query.",
        ),
    ] = MatchedPart.PATH,
    static: Annotated[
        bool,
        typer.Option(
            "--static", help="Without a pattern, count style sheets, scripts, images, fonts, robots.txt and site maps."
        ),
    ] = False,
    redirects: Annotated[
        bool, typer.Option("--redirects", help="Count redirects to downloads (302, 303, 307) as downloads.")
    ] = False,
    trusted_proxies: Annotated[
        str | None,
        typer.Option(
            metavar="NETWORKS",
            envvar="METRONOME_TRUSTED_PROXIES",
            help="Networks of proxies, separated by commas, which are never the client; private networks are known.",
        ),
    ] = None,
    own_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            envvar="METRONOME_OWN_HOSTS",
            help="Host of your own sites, which are not counted as referrers; repeatable, or separated by commas.",
        ),
    ] = None,
    log_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help=f"Log format: {AUTO_FORMAT}, {list_format_names()}; or NGINX's log_format or Apache's LogFormat, such "
            "as '%h %l %u %t \"%r\" %>s %b'.",
        ),
    ] = AUTO_FORMAT,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="First forget what these logs gave before, such as to import them with another pattern; needs a key "
            "with the scope admin.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and count the lines, but send nothing.")] = False,
    batch: Annotated[
        int, typer.Option(min=1, max=REQUEST_MAX_EVENTS, metavar="N", help="Number of events in a request.")
    ] = BATCH_EVENTS,
    retry_timeout: RetryTimeoutOption = RETRY_TIMEOUT_SECONDS,
    key: KeyOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Follow the logs as they grow and are rotated, until interrupted.")
    ] = False,
    positions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --follow: file that records how far each log has been imported.",
            show_default="in the user's state folder",
        ),
    ] = None,
) -> None:
    """Import web server access logs.

    Each request becomes a view or a download of an item.

    Importing a log again, or after it has grown, counts no request twice.
    """
    summary, started_at = ImportSummary(details=Details() if dry_run else None), monotonic()
    failures: list[str] = []
    exit_code = 0

    def resume_hint() -> str:
        return (
            f"{summary.acknowledged:,} lines were acknowledged; "
            "run the same command again to import the rest: no request is counted twice"
        )

    with reporting_errors("import", resume_hint):
        config = ImportConfig(
            item_pattern=compile_item_pattern(
                item_pattern,
                exclude=exclude,
                match_url=match is MatchedPart.URL,
                count_static=static or os.environ.get("METRONOME_STATIC_FILES") == "count",
                count_redirects=redirects or os.environ.get("METRONOME_REDIRECTS") == "count",
            ),
            own_hosts=normalize_own_hosts(tuple(host for hosts in own_host or () for host in hosts.split(","))),
            log_format=None if log_format == AUTO_FORMAT else get_format(log_format),
            batch_events=batch,
            proxies=_proxy_networks(trusted_proxies),
        )
        client = ServerClient(url, key)
        if follow and dry_run:
            raise ConfigurationError("--dry-run cannot be combined with --follow")
        if replace:
            failures += _forget_logs(files, config, client, can_replace=not (follow or dry_run))
        if follow:
            with show_progress(has_total=False) as progress:
                follow_config = FollowConfig(
                    files=files,
                    import_config=config,
                    client=client,
                    positions=positions or default_positions_file(),
                    notify=lambda message: print_error("import", message),
                    show_status=lambda text: progress.advance(0, lambda: text),
                )
                exit_code = follow_logs(follow_config, summary)
        else:
            total = total_size(files)
            watch = None if dry_run else StoreWatch(client, retry_timeout)
            sender = (
                None
                if dry_run
                else BatchSender(client, _counting_results(summary), retry_timeout, retry_notifier("import"))
            )
            with sender or nullcontext(), show_progress() as progress:
                progress.start(total)
                failures += _import_files(files, config, summary, sender, progress)
                if watch is not None and summary.accepted:
                    summary.stored = watch.wait(
                        summary.accepted, lambda pending: progress.advance(0, _waiting(pending))
                    )
    print_lines(summary.format(monotonic() - started_at, sent=not dry_run))
    if summary.stored is not None and not summary.stored.is_complete:
        failures.append(
            f"the server has the accepted events on its disk, but not in its store yet: {summary.stored.reason}; "
            "it stores them by itself, they need not be sent again"
        )
    for failure in failures:
        print_error("import", failure)
    if item_pattern and summary.unmatched:
        print_error("import", summary.unmatched)
    if exit_code or (not follow and (failures or summary.rejected.count)):
        raise typer.Exit(exit_code or EXIT_FAILED)


def _forget_logs(files: list[str], config: ImportConfig, client: ServerClient, *, can_replace: bool) -> list[str]:
    """Forget what logs gave before, and return an error message for each object that may still have some of it."""
    if not can_replace:
        raise ConfigurationError("--replace cannot be combined with --follow or --dry-run")
    if STANDARD_INPUT in files:
        raise ConfigurationError("--replace needs files: standard input cannot be read twice")
    total_size(files)
    # All are read before anything is forgotten.
    identities = {identify_log(file, config.log_format): file for file in files}
    damaged: list[str] = []
    with show_progress(has_total=False) as progress:
        for identity, file in identities.items():
            result = forget(client, {"import": identity}, progress)
            if not any(result["forgotten"].values()):
                print_error("import", f"{file}: there was nothing to replace")
            damaged += result.get("damaged", ())
    return damaged


def _proxy_networks(text: str | None) -> ProxyNetworks:
    networks = [part.strip() for part in (text or "").split(",") if part.strip() not in {"", "none"}]
    try:
        return ProxyNetworks((*PRIVATE_NETWORKS, *networks))
    except ValueError as error:
        raise ConfigurationError(
            f"invalid --trusted-proxies {text}: expected networks such as 203.0.113.0/24: {error}"
        ) from None


def _waiting(pending: int) -> Callable[[], str]:
    return lambda: f"{pending:,} events to be stored"


def _counting_results(summary: ImportSummary) -> Callable[[SendResult[LogBatch]], None]:
    def count(result: SendResult[LogBatch]) -> None:
        is_first = not summary.acknowledged
        summary.add_result(result.batch.log, result.accepted, result.rejected)
        if is_first and not result.accepted and all(_TOO_OLD in reason for _, reason in result.rejected):
            raise RequestError(
                f"all {len(result.rejected):,} events of the first batch are too old for the server, so no more are "
                f"sent: {result.rejected[0][1]}. The setting is METRONOME_TICK_MAX_AGE; a key with the scope import "
                "(METRONOME_KEY or --key-file) may send events of any age"
            )

    return count


def _import_files(
    paths: list[str],
    config: ImportConfig,
    summary: ImportSummary,
    sender: BatchSender[LogBatch] | None,
    progress: Progress,
) -> list[str]:
    """Import files, and return an error message for each that could not be read completely."""
    failures = []
    for path in paths:
        with LogFile(path) as file:
            failures += _import_file(file, config, summary, sender, progress)
    if sender is not None:
        sender.flush()
    return failures


def _import_file(
    file: LogFile,
    config: ImportConfig,
    summary: ImportSummary,
    sender: BatchSender[LogBatch] | None,
    progress: Progress,
) -> list[str]:
    lines, readable, bytes_read = summary.lines, summary.readable, 0
    failures = []
    try:
        for batch in iterate_batches(file, config, summary):
            if sender is not None:
                sender.send(batch)
            progress.advance(file.bytes_read - bytes_read, lambda: f"{progress.rate(summary.lines):,.0f} lines/s")
            bytes_read = file.bytes_read
        if summary.lines > lines and summary.readable == readable and file.read_error is None:
            failures.append(f"{file.name}: no line could be read; known formats are {list_format_names()}")
    except Malformed as error:
        failures.append(f"{file.name}: {error}")
    if file.read_error is not None:
        failures.append(f"{file.read_error}; the complete lines before were imported")
    return failures
