"""The command line: ``metronome COMMAND``."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

UsageError: Any = typer.BadParameter.__base__
"""The base class of errors in arguments, of which Typer exports this subclass only."""

_ADVICE: Final = "see"


class LazyCommand(NamedTuple):
    """A command whose module is imported when the command runs.

    Attributes:
        target: the function or the `typer.Typer` of the command, as ``module:name``.
        help: what the list of commands says about it; the command itself says the same first.

    """

    target: str
    help: str

    def load(self, name: str) -> Any:
        """Import the command."""
        module, _, attribute = self.target.partition(":")
        app = getattr(import_module(module), attribute)
        if not isinstance(app, typer.Typer):
            function, app = app, typer.Typer(add_completion=False)
            app.command(name)(function)
        command = typer.main.get_command(app)
        command.name, command.help = name, command.help or self.help
        _join_lines(command)
        _hide_types_of_flags(command)
        return command


def _join_lines(command: Any) -> None:
    """Join the lines of each paragraph of the help text, as Typer keeps the line breaks of the docstring."""
    command.help = "\n\n".join(paragraph.replace("\n", " ") for paragraph in (command.help or "").split("\n\n"))
    for subcommand in getattr(command, "commands", {}).values():
        _join_lines(subcommand)


def _hide_types_of_flags(command: Any) -> None:
    """Leave out the ``<bool>`` that Typer prints after each option without a value."""
    for parameter in command.get_params(typer.Context(command)):
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
    for subcommand in getattr(command, "commands", {}).values():
        _hide_types_of_flags(subcommand)


COMMANDS: Final = {
    "serve": LazyCommand("metronome.cli.serve:serve_command", "Run the Metronome server."),
    "demo": LazyCommand(
        "metronome.cli.demo:demo_command", "Fill a server with demo data: a quarter of a year of a data portal."
    ),
    "import": LazyCommand("metronome.cli.import_:import_command", "Import web server access logs."),
    "tock": LazyCommand("metronome.cli.tock:tock_command", "Show how an item is used."),
    "query": LazyCommand("metronome.cli.query:query_command", "Count, group and filter events."),
    "funnel": LazyCommand(
        "metronome.cli.funnel:funnel_command", "Show how many sessions take several steps, one after the other."
    ),
    "fields": LazyCommand("metronome.cli.fields:fields_command", "Show the fields that events have."),
    "export": LazyCommand(
        "metronome.cli.export:export_command", "Write stored events to a Parquet, NDJSON or CSV file."
    ),
    "load": LazyCommand("metronome.cli.export:load_command", "Load exported files into a server's store."),
    "replay": LazyCommand("metronome.cli.replay:replay_command", "Load an archive back into a server's store."),
    "verify": LazyCommand("metronome.cli.verify:verify_command", "Compare an archive with a server's store."),
    "backup": LazyCommand(
        "metronome.cli.backup:backup_command",
        "Back up a running server with an embedded store: its events, spool, dead letters, keys and salts.",
    ),
    "forget": LazyCommand(
        "metronome.cli.forget:forget_command",
        "Forget events: of an item, of a visitor, of an imported log, or all before a day.",
    ),
    "reenrich": LazyCommand("metronome.cli.reenrich:reenrich_command", "Enrich stored events again."),
    "reset": LazyCommand(
        "metronome.cli.reset:reset_command",
        "Set the embedded store's files aside, so that the server starts with an empty store.",
    ),
    "dead-letters": LazyCommand(
        "metronome.cli.dead_letters:dead_letters_app", "List or requeue documents that the store rejected."
    ),
    "keys": LazyCommand("metronome.cli.keys:keys_app", "Create, list and revoke API keys."),
    "dashboards": LazyCommand("metronome.cli.dashboards:dashboards_app", "Install Metronome's dashboards in Kibana."),
}


@contextmanager
def _advising(ctx: Any) -> Iterator[None]:
    """End the messages of usage errors with what to do."""
    try:
        yield
    except UsageError as error:
        if _ADVICE not in error.message:
            path = error.ctx.command_path if error.ctx else ctx.command_path
            message = error.message.rstrip(". ")
            error.message = f"{message}{' ' if message.endswith('?') else '; '}{_ADVICE} `{path} --help`"
        raise


class LazyGroup(TyperGroup):
    """Lists all commands without importing them, and imports the one that runs."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help text."""
        _hide_types_of_flags(self)
        super().format_help(ctx, formatter)

    def list_commands(self, _ctx: Any) -> list[str]:
        """Return the names of the commands."""
        return [*COMMANDS]

    def get_command(self, _ctx: Any, cmd_name: str) -> TyperCommand | None:
        """Return a stand-in for a command, with its name and help only; None if there is no such command."""
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name].help) if cmd_name in COMMANDS else None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options before the name of the command."""
        with _advising(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name."""
        with _advising(ctx):
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Return the name of the command that runs, the command itself, and the arguments after its name."""
        try:
            name, command, rest = super().resolve_command(ctx, args)
        except UsageError as error:
            similar = get_close_matches(args[0], COMMANDS, 1)
            error.message = error.message.rstrip(".") + (f": did you mean {similar[0]}?" if similar else "")
            raise
        return name, COMMANDS[command.name].load(command.name) if command and command.name else None, rest


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(requested: bool) -> None:  # noqa: FBT001  # called by Typer with the value of the option
    if requested:
        from metronome.cli.version import format_version  # noqa: PLC0415  # takes 20 ms, which no command needs

        typer.echo(format_version())
        raise typer.Exit


@app.callback()
def metronome(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the versions of Metronome and of its stores.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Self-hosted usage analytics for datasets, documents, APIs and web pages."""


def main() -> None:
    """Run the command that the arguments name."""
    # Otherwise `python -m metronome` would be the name in help texts and in the script for shell completion.
    app(prog_name="metronome")
