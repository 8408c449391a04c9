"""The wheel and the source distribution contain every file of the package; the wheel works outside the checkout."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import pytest

from metronome import __version__
from tests.docs.pages import ROOT

DISTRIBUTION: Final = f"metronome_usage-{__version__}"
_BUILD: Final = "from setuptools import build_meta; build_meta.build_wheel('dist'); build_meta.build_sdist('dist')"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what distributions are built from, and build both with the installed setuptools."""
    source = tmp_path_factory.mktemp("wheel") / "source"
    shutil.copytree(ROOT / "metronome", source / "metronome", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-c", _BUILD], cwd=source, check=True, capture_output=True, timeout=240)
    return source


def package_files(source: Path) -> set[str]:
    return {str(path.relative_to(source)) for path in (source / "metronome").rglob("*") if path.is_file()}


def test_the_wheel_contains_every_file_of_the_package(source: Path) -> None:
    files = package_files(source)
    assert {"metronome/cli/dashboards.ndjson", "metronome/web/beacon.min.js", "metronome/py.typed"} <= files
    with ZipFile(source / "dist" / f"{DISTRIBUTION}-py3-none-any.whl") as wheel:
        packed = {*wheel.namelist()}
    assert files - packed == set()
    assert {name.partition("/")[0] for name in packed} == {"metronome", f"{DISTRIBUTION}.dist-info"}


def test_the_source_distribution_contains_every_file_of_the_package(source: Path) -> None:
    with tarfile.open(source / "dist" / f"{DISTRIBUTION}.tar.gz") as archive:
        packed = {name.removeprefix(f"{DISTRIBUTION}/") for name in archive.getnames()}
    assert {*package_files(source), "pyproject.toml", "README.md", "LICENSE"} - packed == set()
