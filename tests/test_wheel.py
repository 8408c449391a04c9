"""The built wheel contains every file of the package."""

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow  # pip installs setuptools first
def test_the_wheel_contains_every_file_of_the_package(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "metronome", source / "metronome", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, timeout=240)
    (wheel,) = tmp_path.glob("*.whl")
    files = {str(path.relative_to(source)) for path in (source / "metronome").rglob("*") if path.is_file()}
    assert "metronome/cli/dashboards.ndjson" in files
    assert files - {*ZipFile(wheel).namelist()} == set()
