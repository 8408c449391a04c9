"""``metronome serve``: run the server, with an option for each setting."""

import inspect
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import typer
from pydantic import ByteSize

from metronome.cli.errors import reporting_errors
from metronome.config import Settings, format_default, list_settings_by_topic, read_settings
from metronome.errors import ConfigurationError
from metronome.server.logs import configure_logging
from metronome.server.main import serve
from metronome.server.processes import run_process


def serve_command(**options: Any) -> None:
    """Run the Metronome server.

    It runs until SIGTERM or Ctrl-C.

    Each option is also an environment variable: --port is METRONOME_PORT.
    """
    with reporting_errors("serve"):
        settings = read_settings(options)
        configure_logging(settings)
        try:
            run_process(lambda stop: serve(settings, stop))
        except OSError as error:
            raise ConfigurationError(
                f"{error}; check that METRONOME_DATA is writable, that METRONOME_HOST is an address of this machine, "
                "and that METRONOME_PORT and other ports are free"
            ) from None


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
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


_OPTIONS = [_build_option(topic, name) for topic, names in list_settings_by_topic().items() for name in names]
serve_command.__signature__ = inspect.Signature(_OPTIONS)  # type: ignore[attr-defined]
serve_command.__annotations__ = {option.name: option.annotation for option in _OPTIONS}
