"""Commands are imported when they run, and the list of commands describes each as the command itself does."""

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from metronome import __version__
from metronome.cli import COMMANDS, app
from metronome.config import SECRET_SETTINGS, SETTING_TOPICS, Settings, list_settings_by_topic
from tests.servers import build_environment, run_metronome

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


def run_module(*arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "metronome", *arguments],
        env={**build_environment(), **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def test_python_runs_the_package_as_a_program_with_the_name_of_the_command() -> None:
    first, second = run_module("--version").splitlines()
    assert first == f"metronome {__version__}"
    assert second.startswith(f"Python {sys.version.split()[0]}, DuckDB ")
    assert "Usage: metronome [OPTIONS] COMMAND" in run_module("--help")


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("ke", ["keys"]),
        ("keys cr", ["create"]),
        ("serve --archive-roll-a", ["--archive-roll-age"]),
        ("keys create site --scope t", ["tick", "tock"]),
    ],
)
def test_the_shell_completes_commands_options_and_values(words: str, completions: list[str]) -> None:
    variables = {"_METRONOME_COMPLETE": "complete_bash", "COMP_WORDS": f"metronome {words}"}
    variables["COMP_CWORD"] = str(len(words.split()))
    result = CliRunner().invoke(app, [], env=variables, prog_name="metronome")
    assert result.stdout.split() == completions


def test_the_script_for_completion_completes_the_command() -> None:
    script = run_module("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert script.splitlines()[-1].endswith("-F _metronome_completion metronome")


def test_each_setting_has_one_topic_and_ten_are_essential() -> None:
    topics = list_settings_by_topic()
    assert sorted(name for names in topics.values() for name in names) == sorted(Settings.model_fields)
    assert topics.keys() == SETTING_TOPICS.keys(), "add new settings to SETTING_TOPICS in metronome/config.py"
    assert (next(iter(topics)), len(topics["Essential"])) == ("Essential", 10)


def test_help_of_the_server_lists_all_settings_by_topic_within_80_columns() -> None:
    result = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    titles = [line.strip("╭─╮ ") for line in lines if line.startswith("╭")]
    assert titles == ["Options", *SETTING_TOPICS]
    missing = {name for name in Settings.model_fields if f"--{name.replace('_', '-')} " not in result.stdout}
    assert missing == SECRET_SETTINGS - {"store"}


@pytest.mark.parametrize("name", ["import", "tock", "query", "replay", "verify"])
def test_commands_of_a_server_read_its_url_and_key_from_the_environment(name: str) -> None:
    variables = {parameter.name: parameter.envvar for parameter in COMMANDS[name].load(name).params}
    assert (variables["url"], variables["key"]) == ("METRONOME_URL", "METRONOME_KEY_FILE")


def test_a_command_without_a_server_says_how_to_start_one() -> None:
    variables = {"METRONOME_URL": "http://127.0.0.1:1"}
    for arguments in (["import", "tests/data/access.log", "--retry-timeout", "0"], ["tock", "rivers"], ["query"]):
        result = CliRunner().invoke(app, arguments, env=variables)
        assert result.exit_code == 1
        assert (
            "http://127.0.0.1:1 does not respond: connection refused; start the server with `metronome serve`, "
            "or set its URL with --url or METRONOME_URL"
        ) in result.stderr


def pages_of_help() -> list[list[str]]:
    """List the words of each command and subcommand."""
    pages: list[list[str]] = [[]]
    for name, lazy in COMMANDS.items():
        pages += [[name], *([name, subcommand] for subcommand in getattr(lazy.load(name), "commands", {}))]
    return pages


def test_each_page_of_help_fits_80_columns_without_cutting_a_word() -> None:
    for words in pages_of_help():
        result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
        assert result.exit_code == 0
        assert [line for line in result.stdout.splitlines() if len(line) > 80 or re.search(r"\w…", line)] == []
        assert "<bool>" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["querry"], "did you mean query? see `metronome --help`"),
        (["--nosuch"], "see `metronome --help`"),
        (["query", "--limit", "x"], "see `metronome query --help`"),
        (["keys", "revoke"], "see `metronome keys revoke --help`"),
    ],
)
def test_usage_errors_end_with_what_to_do(arguments: list[str], advice: str) -> None:
    result = run_metronome(*arguments)
    assert result.exit_code == 2
    assert advice in " ".join(result.stderr.replace("│", "").split())
