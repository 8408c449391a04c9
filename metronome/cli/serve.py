"""``metronome serve``: run the service, with an option for each setting."""

import inspect
from typing import Annotated, Any

import typer
from rich.console import Console

from metronome.config import ENV_PREFIX, Settings, format_default, read_settings
from metronome.errors import MetronomeError, describe
from metronome.server.logs import configure_logging
from metronome.server.main import serve
from metronome.server.processes import run_process


def serve_command(**options: Any) -> None:
    """Take events and answer for them, until stopped by SIGTERM or Ctrl-C."""
    try:
        settings = read_settings(options)
        configure_logging(settings)
        run_process(lambda stop: serve(settings, stop))
    except MetronomeError as error:
        _exit_with_error(describe(error))
    except OSError as error:
        _exit_with_error(
            f"{error}; see that METRONOME_DATA can be written, and that METRONOME_PORT and other ports set are free"
        )


def _exit_with_error(sentence: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"metronome: {sentence}", markup=False, highlight=False)
    raise typer.Exit(2)


def _build_option(name: str) -> inspect.Parameter:
    field = Settings.model_fields[name]
    default = format_default(field.default)
    help_text = f"{field.description} [{ENV_PREFIX}{name.upper()}; default: {default or 'none'}]"
    option = typer.Option(f"--{name.replace('_', '-')}", help=help_text, show_default=False)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


_OPTIONS = [_build_option(name) for name in Settings.model_fields]
serve_command.__signature__ = inspect.Signature(_OPTIONS)  # type: ignore[attr-defined]
serve_command.__annotations__ = {option.name: option.annotation for option in _OPTIONS}
