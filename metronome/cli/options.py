"""Options that several commands share."""

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import typer

from metronome.archive.base import DateRange
from metronome.config import FILE_SUFFIX
from metronome.errors import ConfigurationError, Malformed
from metronome.times import parse_period

DEFAULT_SERVER_URL: Final = "http://127.0.0.1:8080"
_DAY: Final = timedelta(days=1)


def secret_option(name: str, variable: str, description: str) -> Any:
    """Return an option for a file with a secret, whose value is the secret.

    Other users of the machine can read the command line, so the secret itself is no option: without a file it is
    taken from the environment.

    Args:
        name: the option, such as ``--key-file``.
        variable: the environment variable with the secret; with ``_FILE`` appended, the one with the file's path.
        description: the help text.

    """

    def read(path: str | None) -> str | None:
        if not path:
            return os.environ.get(variable) or None
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise typer.BadParameter(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None

    return typer.Option(
        name,
        metavar="FILE",
        envvar=f"{variable}{FILE_SUFFIX}",
        show_envvar=False,
        help=f"{description} Without it: {variable}.",
        callback=read,
        show_default=False,
    )


UrlOption = Annotated[str, typer.Option(metavar="URL", envvar="METRONOME_URL", help="URL of the Metronome server.")]
KeyOption = Annotated[
    str | None,
    secret_option("--key-file", "METRONOME_KEY", "File with an API key, if the server requires one."),
]
RetryTimeoutOption = Annotated[
    float,
    typer.Option(min=0, metavar="SECONDS", help="Seconds to keep retrying while the server is busy or unreachable."),
]
DataOption = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", envvar="METRONOME_DATA", help="Data folder of the server.", show_default="data"),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        metavar="STORE",
        envvar="METRONOME_STORE",
        help="Store of the server: duckdb or a URL.",
        show_default="duckdb",
    ),
]

FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="TIME",
        help="Start of the time range: a day, month or year, a time, -30d, -12h, -3mo, yesterday or last-month.",
        show_default="no limit",
    ),
]
ToOption = Annotated[
    str | None,
    typer.Option(
        "--to", metavar="TIME", help="End of the time range; days, months and years are included.", show_default="now"
    ),
]
TimeZoneOption = Annotated[str, typer.Option(metavar="ZONE", help="Time zone of days, such as Europe/Zurich.")]
BotsOption = Annotated[bool, typer.Option("--bots", help="Include events caused by bots.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the server's JSON response.")]

ArchiveArgument = Annotated[
    str,
    typer.Argument(
        metavar="ARCHIVE",
        help="URL of the archive: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder.",
    ),
]
FirstDayOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="DAY",
        help="First UTC day, such as 2015-01-22, 2015-01, -30d or last-month.",
        show_default="no limit",
    ),
]
LastDayOption = Annotated[
    str | None,
    typer.Option("--to", metavar="DAY", help="Last UTC day, inclusive.", show_default="no limit"),
]


def require_one_format(*, as_json: bool, as_csv: bool) -> None:
    """Check that a command is asked for at most one format.

    Raises:
        ConfigurationError: it is asked for JSON and CSV.

    """
    if as_json and as_csv:
        raise ConfigurationError("--json cannot be combined with --csv")


def parse_day_range(first: str | None, last: str | None) -> DateRange:
    """Parse the values of ``--from`` and ``--to`` as days.

    Raises:
        ConfigurationError: a value is not a period of days, or the last day is before the first.

    """
    now = datetime.now(UTC)
    days = DateRange(_parse_day("--from", first, now), _parse_day("--to", last, now))
    if days.first is not None and days.last is not None and days.last < days.first:
        raise ConfigurationError(f"--to {last} is before --from {first}")
    return days


def _parse_day(option: str, text: str | None, now: datetime) -> date | None:
    if text is None:
        return None
    try:
        start, end = parse_period(text, ZoneInfo("UTC"), now)
    except Malformed:
        start = end = now
    if start == end:
        raise ConfigurationError(f"invalid {option} {text!r}: expected a date such as 2015-01-22, 2015-01 or -30d")
    return start.date() if option == "--from" else (end - _DAY).date()
