"""``metronome serve``: run the server, with an option for each setting."""

import inspect
from typing import Annotated, Any

import typer

from metronome.cli.errors import reporting_errors
from metronome.config import ENV_PREFIX, Settings, format_default, read_settings
from metronome.errors import ConfigurationError
from metronome.server.logs import configure_logging
from metronome.server.main import serve
from metronome.server.processes import run_process


def serve_command(**options: Any) -> None:
    """Run the Metronome server.

    It runs until SIGTERM or Ctrl-C. Each option can also be set as an environment variable.
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


def _build_option(name: str) -> inspect.Parameter:
    field = Settings.model_fields[name]
    default = format_default(field.default)
    help_text = f"{field.description} [{ENV_PREFIX}{name.upper()}; default: {default or 'none'}]"
    # Typer reads the text as Rich markup, in which `[user:password@]` would be a tag.
    help_text = help_text.replace("[", r"\[").replace("`", "")
    option = typer.Option(f"--{name.replace('_', '-')}", help=help_text, show_default=False)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


_OPTIONS = [_build_option(name) for name in Settings.model_fields]
serve_command.__signature__ = inspect.Signature(_OPTIONS)  # type: ignore[attr-defined]
serve_command.__annotations__ = {option.name: option.annotation for option in _OPTIONS}
