"""``metronome dashboards``: brings Kibana's dashboards into a Kibana, or writes them into a folder."""

import asyncio
from pathlib import Path
from typing import Annotated, Final

import typer

from metronome.cli.kibana import Credentials, Installed, Kibana
from metronome.cli.tables import note
from metronome.config import read_settings
from metronome.dashboards import bundle, dashboard_ids, ndjson
from metronome.errors import MetronomeError, Misconfigured

EXIT_FAILED: Final = 2
EXIT_INTERRUPTED: Final = 130

_USUAL_URL: Final = "http://127.0.0.1:5601"

Prefix = Annotated[
    str | None,
    typer.Option(
        envvar="METRONOME_INDEX_PREFIX",
        help="What the names of the events' indices begin with, as the server's setting says.",
        show_default="metronome",
    ),
]

dashboard_commands = typer.Typer(no_args_is_help=True)


@dashboard_commands.command("install")
def install(  # noqa: PLR0913  # one argument for each option
    *,
    kibana: Annotated[str, typer.Option(envvar="METRONOME_KIBANA", help="The Kibana's address.")] = _USUAL_URL,
    space: Annotated[
        str, typer.Option(metavar="NAME", help="The space that gets them.", show_default="the default one")
    ] = "",
    index_prefix: Prefix = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite/--no-overwrite", help="Whether they take the place of those that were installed before."
        ),
    ] = True,
    key: Annotated[
        str, typer.Option(envvar="METRONOME_KIBANA_KEY", help="An API key, encoded.", show_default="none")
    ] = "",
    user: Annotated[
        str, typer.Option(envvar="METRONOME_KIBANA_USER", help="Or a user's name.", show_default="none")
    ] = "",
    password: Annotated[
        str, typer.Option(envvar="METRONOME_KIBANA_PASSWORD", help="The user's password.", show_default="none")
    ] = "",
    ca: Annotated[
        Path | None,
        typer.Option(
            envvar="METRONOME_KIBANA_CA",
            help="File with the certificate that signed Kibana's own.",
            show_default="those that the machine knows",
        ),
    ] = None,
    patience: Annotated[
        float, typer.Option(min=0, help="For how many seconds to wait for a Kibana that is away, or starting.")
    ] = 60,
) -> None:
    """Install the data view and the dashboards in a Kibana; again, to bring them up to date."""
    try:
        prefix = _checked_prefix(index_prefix)
        objects = bundle(prefix)
        there = Kibana(kibana, Credentials(key, user, password), space, ca, patience)
        work = there.install(ndjson(objects), len(objects), _say, overwrite=overwrite)
        installed = asyncio.run(work)
    except KeyboardInterrupt:
        _say("interrupted; run it again to have all of it installed")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except MetronomeError as error:
        raise _failed(error) from None
    typer.echo(_told(installed, there, prefix))


@dashboard_commands.command("write")
def write(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Is made if it is not there.")],
    *,
    index_prefix: Prefix = None,
) -> None:
    """Write the data view and the dashboards into a folder, as a file that Kibana imports."""
    try:
        prefix = _checked_prefix(index_prefix)
        objects = bundle(prefix)
        file = folder / f"{prefix}.ndjson"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_bytes(ndjson(objects))
        except OSError as error:
            raise Misconfigured(f"{file} cannot be written: {error.strerror}; name another folder") from None
    except MetronomeError as error:
        raise _failed(error) from None
    typer.echo(f"{len(objects)} objects are in {file}: import it in Kibana, under Stack Management, Saved Objects")


def _checked_prefix(prefix: str | None) -> str:
    return read_settings({"index_prefix": prefix}).index_prefix


def _told(installed: Installed, kibana: Kibana, prefix: str) -> str:
    version = f"Kibana {installed.version}" if installed.version else "Kibana"
    return "\n".join(
        [
            f"{installed.objects} objects are in {version}: a data view of {prefix}-*, its panels, and the dashboards",
            *(f"  {kibana.address_of(dashboard)}" for dashboard in dashboard_ids(prefix)),
        ]
    )


def _failed(error: MetronomeError) -> typer.Exit:
    _say(f"{error}; {error.advice}")
    return typer.Exit(EXIT_FAILED)


def _say(sentence: str) -> None:
    note(f"metronome dashboards: {sentence}")
