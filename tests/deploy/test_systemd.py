"""The systemd units: valid, hardened, and with commands and settings that exist."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from metronome.cli import COMMANDS
from metronome.config import ENV_PREFIX, Settings
from tests.docs.pages import ROOT

FOLDER: Final = ROOT / "deploy" / "systemd"
UNITS: Final = ("metronome.service", "metronome-import@.service")
COMMAND: Final = "/opt/metronome/bin/metronome"
EXPOSURE: Final = 15
"""Tenths of systemd's exposure level, of which 100 is the worst; what remains is the network and the host's files."""
OF_COMMANDS: Final = {"URL", "KEY", "LOGS"}


def lines_of(unit: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", (FOLDER / unit).read_text(), re.MULTILINE)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Copy the units, with a command that exists on each machine; an instance of a template has its name."""
    for unit in UNITS:
        text = (FOLDER / unit).read_text().replace(COMMAND, "/bin/true")
        (tmp_path / unit.replace("@.", "@example.")).write_text(text)
    return tmp_path


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_a_unit_and_finds_it_hardened(installed: Path, unit: str) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    file = str(installed / unit.replace("@.", "@example."))
    for arguments in (["verify"], ["security", "--offline=yes", f"--threshold={EXPOSURE}"]):
        done = subprocess.run([analyze, *arguments, file], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Unknown" not in done.stderr


@pytest.mark.parametrize("unit", UNITS)
def test_the_command_of_a_unit_has_only_options_that_exist(unit: str) -> None:
    ((program, name, *arguments),) = map(shlex.split, lines_of(unit, "ExecStart"))
    assert program == COMMAND
    known = {option for parameter in COMMANDS[name].load(name).params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= known


def test_a_stop_may_take_longer_than_the_server_needs() -> None:
    (seconds,) = lines_of("metronome.service", "TimeoutStopSec")
    assert int(seconds) > 2 * Settings.model_fields["stop_seconds"].default


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_settings_named_in_units_exist(path: Path) -> None:
    named = set(re.findall(rf"{ENV_PREFIX}([A-Z_]+)", path.read_text()))
    assert named <= {field.upper() for field in Settings.model_fields} | OF_COMMANDS
