"""Run moto's S3 server, which stores buckets in memory, as a process on the loopback interface."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from http.client import HTTPException
from typing import Any, Final

import pytest

from tests.servers import free_port, unique_name
from tests.shared_servers import run_shared, shared_server

START_TIMEOUT_SECONDS: Final = 60.0
KEY, SECRET = "key", "secret"


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server.

    Attributes:
        url: its URL.
        pid: its process ID.

    """

    url: str
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for its clients."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def create_unique_bucket(self) -> str:
        """Create a bucket with a unique name, and return the name."""
        name = unique_name("bucket")
        self.create_bucket(name)
        return name

    def create_bucket(self, name: str) -> None:
        """Create a bucket."""
        request = urllib.request.Request(f"{self.url}/{name}", b"", method="PUT")  # noqa: S310  # our own server
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310  # likewise

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Suspend the process during the block."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


@contextlib.contextmanager
def running_s3_server(port: int | None = None) -> Iterator[S3Server]:
    """Run a server during the block."""
    port = port or free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not _is_reachable(url):
            assert process.poll() is None, f"moto's server ended with {process.returncode}"
            assert time.monotonic() < deadline, "moto's server does not answer"
            time.sleep(0.1)
        yield S3Server(url, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _is_reachable(url: str) -> bool:
    with contextlib.suppress(OSError, HTTPException):
        urllib.request.urlopen(f"{url}/moto-api/", timeout=10).close()  # noqa: S310  # our own server
        return True
    return False


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> S3Server:
    """Return the server that all tests of this run share; tests that stop or pause a server start their own."""
    return S3Server(**shared_server(__name__, tmp_path_factory))


@pytest.fixture
def s3_environment(s3: S3Server) -> Iterator[None]:
    """Make this process and its children use the shared server."""
    with environment_variables(s3.environment):
        yield


@contextlib.contextmanager
def environment_variables(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables during the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _described() -> Iterator[dict[str, Any]]:
    with running_s3_server() as server:
        yield asdict(server)


if __name__ == "__main__":
    run_shared(_described)
