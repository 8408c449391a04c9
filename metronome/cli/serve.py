"""``metronome serve``: run the server, with an option for each setting."""

import contextlib
import errno
import inspect
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import typer
from pydantic import ByteSize

from metronome.cli.errors import reporting_errors
from metronome.cli.output import can_open_browser, open_browser
from metronome.config import (
    SECRET_SETTINGS,
    Settings,
    check_secret_options,
    format_default,
    list_settings_by_topic,
    read_settings,
)
from metronome.errors import ConfigurationError
from metronome.server.logs import configure_logging
from metronome.server.main import serve
from metronome.server.processes import run_process

_PORT_SETTINGS: Final = ("port", "forward_port", "syslog_port", "hit_port")
_BIND_ADDRESS: Final = re.compile(r"\('(?P<host>[^']*)', (?P<port>\d+)")
"""The address in the message of a server that could not be started."""


def serve_command(*, demo: bool = False, **options: Any) -> None:
    """Run the Metronome server.

    It runs until SIGTERM or Ctrl-C.

    Each option is also an environment variable: --port is METRONOME_PORT.
    """
    with reporting_errors("serve"), contextlib.ExitStack() as temporary:
        if demo:
            options |= _demo_options(options, temporary)
        check_secret_options(options)
        settings = read_settings(options)
        configure_logging(settings)
        try:
            run_process(lambda stop: serve(settings, stop, _open_page if demo else None))
        except OSError as error:
            if used := _describe_used_port(error, settings):
                raise ConfigurationError(used) from None
            raise ConfigurationError(
                f"{error}; check that METRONOME_DATA is writable, that METRONOME_HOST is an address of this machine, "
                "and that METRONOME_PORT and other ports are free"
            ) from None


def _describe_used_port(error: OSError, settings: Settings) -> str:
    """Return which port is in use, and the setting to change; empty if the error is another one."""
    address = _BIND_ADDRESS.search(str(error))
    if error.errno != errno.EADDRINUSE or address is None:
        return ""
    port = int(address["port"])
    names = [f"METRONOME_{name.upper()}" for name in _PORT_SETTINGS if getattr(settings, name) == port]
    return (
        f"port {port} of {address['host']} is already in use; stop the process that uses it, "
        f"or choose another port with {' or '.join(names) or 'another setting'}"
    )


def _demo_options(options: Mapping[str, Any], temporary: contextlib.ExitStack) -> dict[str, str]:
    """Return the options of a server that leaves nothing behind, whatever the environment says.

    Args:
        options: those of the command line.
        temporary: deletes the data folder when it is closed.

    """
    contradicting = next((name for name in _DEMO_OPTIONS if options.get(name) is not None), None)
    if contradicting is not None:
        raise ConfigurationError(
            f"--demo uses a temporary data folder, DuckDB and one process: leave out --{contradicting}, or load the "
            "demo into a running server with `metronome demo`"
        )
    folder = temporary.enter_context(TemporaryDirectory(prefix="metronome-demo-"))
    return {**_DEMO_OPTIONS, "data": folder}


def _open_page(url: str) -> None:
    if can_open_browser():
        open_browser(url)


_DEMO_OPTIONS: Final = {"data": "", "store": "duckdb", "archive": "", "workers": "1"}
_PLACEHOLDERS: Final = {
    int: "N",
    int | None: "PORT",
    float: "SECONDS",
    ByteSize: "SIZE",
    timedelta: "AGE",
    Path: "PATH",
    Path | None: "FILE",
}
"""What stands for the value of an option in the help text, by the type of the setting; otherwise ``TEXT``."""


def _format_placeholder(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    if get_origin(annotation) is tuple:
        return "LIST"
    return _PLACEHOLDERS.get(annotation, "TEXT")


def _build_option(topic: str, name: str) -> inspect.Parameter:
    field = Settings.model_fields[name]
    default = format_default(field.default)
    help_text = f"{field.description} [default: {default or 'none'}]"
    # Typer reads the text as Rich markup, in which `[user:password@]` would be a tag.
    help_text = help_text.replace("[", r"\[").replace("`", "")
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        metavar=_format_placeholder(field.annotation),
        help=help_text,
        show_default=False,
        rich_help_panel=topic,
        # It remains to say where the secret belongs, in place of "no such option".
        hidden=name in SECRET_SETTINGS - {"store"},
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


_OPTIONS = [_build_option(topic, name) for topic, names in list_settings_by_topic().items() for name in names]
_OPTIONS.insert(
    0,
    inspect.Parameter(
        "demo",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[
            bool,
            typer.Option(
                "--demo",
                help="Run a throwaway server with demo data, in a temporary folder that is deleted at its end.",
            ),
        ],
    ),
)
serve_command.__signature__ = inspect.Signature(_OPTIONS)  # type: ignore[attr-defined]
serve_command.__annotations__ = {option.name: option.annotation for option in _OPTIONS}
