"""The wheel and the source distribution contain every file of the package; the wheel works outside the checkout."""

import re
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import pytest

from metronome import __version__
from tests.docs.pages import ROOT
from tests.servers import START_TIMEOUT_SECONDS, build_environment, free_port

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
    assert {
        "metronome/cli/dashboards.ndjson",
        "metronome/web/beacon.min.js",
        "metronome/web/matomo.min.js",
        "metronome/py.typed",
    } <= files
    with ZipFile(source / "dist" / f"{DISTRIBUTION}-py3-none-any.whl") as wheel:
        packed = {*wheel.namelist()}
    assert files - packed == set()
    assert {name.partition("/")[0] for name in packed} == {"metronome", f"{DISTRIBUTION}.dist-info"}


def test_the_source_distribution_contains_every_file_of_the_package(source: Path) -> None:
    with tarfile.open(source / "dist" / f"{DISTRIBUTION}.tar.gz") as archive:
        packed = {name.removeprefix(f"{DISTRIBUTION}/") for name in archive.getnames()}
    assert {*package_files(source), "pyproject.toml", "README.md", "LICENSE"} - packed == set()


class Installation:
    """A fresh virtual environment with the wheel, which knows nothing of the checkout.

    Args:
        folder: where it is installed, and where its commands run.
        wheel: the wheel.

    """

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True, timeout=120)
        self.run("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel), timeout=500)

    def command(self, program: str, *arguments: str) -> list[str]:
        """Return the words of a command of the environment."""
        return [str(self.folder / "venv" / "bin" / program), *arguments]

    @property
    def variables(self) -> dict[str, str]:
        """The environment of its commands."""
        variables = build_environment(url=self.url)
        return {name: value for name, value in variables.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}

    def run(self, program: str, *arguments: str, timeout: float = 60.0) -> str:
        """Run a command, and return its output."""
        done = subprocess.run(
            self.command(program, *arguments),
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def get(self, path: str) -> str:
        """Return the body of the response to a GET request."""
        request = urllib.request.Request(self.url + path, headers={"Accept": "*/*"})  # noqa: S310  # our own server
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310  # our own server
            return str(response.read().decode())

    def wait_for(self, path: str, text: str) -> None:
        """Wait until a response contains a text."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            try:
                body = self.get(path)
            except OSError as error:
                body = str(error)
            if text in body:
                return
            assert time.monotonic() < deadline, body
            time.sleep(0.1)


@pytest.fixture(scope="module")
def installation(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Install the wheel, and run its server."""
    folder = tmp_path_factory.mktemp("installation")
    installed = Installation(folder, source / "dist" / f"{DISTRIBUTION}-py3-none-any.whl")
    command = installed.command("metronome", "serve", "--data", "data", "--port", str(installed.port))
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, cwd=folder, env=installed.variables, stdout=log, stderr=log) as process,
    ):
        try:
            installed.wait_for("/health/ready/store", '"ok"')
            yield installed
        finally:
            process.terminate()
            process.wait(30)
    assert process.returncode == 0


@pytest.mark.slow  # installs all dependencies
@pytest.mark.timeout(600)
class TestOutsideTheCheckout:
    def test_the_command_and_the_package_have_the_version(self, installation: Installation) -> None:
        assert installation.run("metronome", "--version").startswith(f"metronome {__version__}\n")
        assert installation.run("python", "-m", "metronome", "--version").startswith(f"metronome {__version__}\n")
        where = installation.run("python", "-c", "import metronome; print(metronome.__file__)")
        assert where.startswith(str(installation.folder))

    def test_an_event_is_in_the_report(self, installation: Installation) -> None:
        agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
        event = f'{{"id": "rivers", "agent": "{agent}", "clientip": "8.8.8.8"}}'.encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{installation.url}/tick", event, headers)  # noqa: S310  # our own server
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310  # our own server
            assert response.status == 204
        installation.wait_for("/tock/rivers.json", "{")
        installation.wait_for("/query?by=browser,country", '["Firefox","US",1]')
        assert "1" in installation.run("metronome", "tock", "rivers")

    def test_an_access_log_is_imported(self, installation: Installation) -> None:
        log = str(ROOT / "tests" / "data" / "access.log")
        assert "accepted by the server              59" in installation.run("metronome", "import", log)

    def test_keys_and_dashboards_are_written(self, installation: Installation) -> None:
        installation.run("metronome", "dashboards", "write", "dashboards")
        assert (installation.folder / "dashboards" / "metronome.ndjson").stat().st_size > 10_000
        other = str(installation.folder / "other")
        assert "scopes     tick" in installation.run("metronome", "keys", "create", "site", "--create", "--data", other)

    def test_the_script_for_pages_and_the_page_with_all_its_files_are_served(self, installation: Installation) -> None:
        assert "sendBeacon" in installation.get("/metronome.js")
        page = installation.get("/")
        assert "<html" in page
        files = set(re.findall(r"""(?:href|src)="?(/[^"'? >]+\.(?:css|js|svg|ico))""", page))
        assert any(file.endswith(".css") for file in files)
        assert all(installation.get(file) for file in files)
