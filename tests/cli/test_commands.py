"""Commands are imported when they run, and the list of commands describes each as the command itself does."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from metronome.cli import COMMANDS, app

HEAVY_MODULES = ("aiohttp", "duckdb", "elasticsearch", "pydantic", "structlog", "rich", "ua_parser")


def test_importing_the_command_line_imports_no_heavy_module() -> None:
    script = f"import sys, metronome.cli; print([name for name in {HEAVY_MODULES} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_has_the_first_line_of_each_commands_help(name: str) -> None:
    command = COMMANDS[name].load(name)
    assert command.name == name
    assert command.help.partition("\n")[0] == COMMANDS[name].help


def test_lists_all_commands() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert all(f" {name} " in result.output for name in COMMANDS)


@pytest.mark.parametrize("arguments", [["tok"], ["keys", "make"]])
def test_rejects_an_unknown_command(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert f"No such command '{arguments[-1]}'" in result.output
