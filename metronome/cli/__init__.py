"""The command line: one file for each command."""

import typer

from metronome.cli.dashboards import dashboards_app
from metronome.cli.dead_letters import dead_letters
from metronome.cli.import_ import import_logs
from metronome.cli.keys import keys_app
from metronome.cli.query import query_command
from metronome.cli.reenrich import reenrich_command
from metronome.cli.replay import replay_command
from metronome.cli.serve import serve_command
from metronome.cli.tock import tock_command
from metronome.cli.verify import verify_command

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("serve")(serve_command)
app.command("import")(import_logs)
app.command("tock")(tock_command)
app.command("query")(query_command)
app.command("dead")(dead_letters)
app.command("reenrich")(reenrich_command)
app.command("replay")(replay_command)
app.command("verify")(verify_command)
app.add_typer(keys_app, name="keys", help="Make, list and revoke the keys that say who may do what.")
app.add_typer(dashboards_app, name="dashboards", help="Bring Metronome's dashboards into a Kibana.")


@app.callback()
def metronome() -> None:
    """Count how things that people publish are used."""


def main() -> None:
    """Run the command that the arguments name."""
    app()
