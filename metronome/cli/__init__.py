"""The command line: one file for each command."""

import typer

from metronome.cli.dashboards import dashboard_commands
from metronome.cli.dead_letters import dead_letters
from metronome.cli.import_ import import_logs
from metronome.cli.keys import key_commands
from metronome.cli.query import query_command
from metronome.cli.reenrich import reenrich
from metronome.cli.replay import replay
from metronome.cli.serve import serve_command
from metronome.cli.tock import tock_command
from metronome.cli.verify import verify

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("serve")(serve_command)
app.command("import")(import_logs)
app.command("tock")(tock_command)
app.command("query")(query_command)
app.command("dead")(dead_letters)
app.command("reenrich")(reenrich)
app.command("replay")(replay)
app.command("verify")(verify)
app.add_typer(key_commands, name="keys", help="Make, list and revoke the keys that say who may do what.")
app.add_typer(dashboard_commands, name="dashboards", help="Bring Metronome's dashboards into a Kibana.")


@app.callback()
def metronome() -> None:
    """Count how things that people publish are used."""


def main() -> None:
    """Run the command that the arguments name."""
    app()
