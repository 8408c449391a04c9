"""Provide a real Elasticsearch node for tests and benchmarks.

In this order: the node at the URL in ``METRONOME_TEST_ELASTICSEARCH``; a container, if Docker is
available; Elastic's own distribution from Maven, which is unpacked once into ``.cache`` of the checkout
and started on free ports with its data in a temporary folder.
"""

import gc
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.shared_servers import run_shared, shared_server

URL_VARIABLE: Final = "METRONOME_TEST_ELASTICSEARCH"
VERSION: Final = "8.19.21"
IMAGE: Final = f"docker.elastic.co/elasticsearch/elasticsearch:{VERSION}"
ARTIFACT: Final = f"org.elasticsearch.distribution.integ-test-zip:elasticsearch:{VERSION}:zip"

CACHE: Final = Path(__file__).parents[1] / ".cache"
JAVA_VERSIONS: Final = range(17, 25)
START_TIMEOUT_SECONDS: Final = 120
STOP_TIMEOUT_SECONDS: Final = 20
DOWNLOAD_TIMEOUT_SECONDS: Final = 600
UNPRIVILEGED_UID: Final = 65534
"""User ID to run the node as if tests run as root, which Elasticsearch refuses."""

CONFIGURATION: Final = """\
cluster.name: metronome-tests
discovery.type: single-node
network.host: 127.0.0.1
http.port: {http_port}
transport.port: {transport_port}
path.data: {folder}/data
path.logs: {folder}/logs
cluster.routing.allocation.disk.threshold_enabled: false
cluster.max_shards_per_node: 20000
xpack.security.enabled: false
"""

JAVA_OPTIONS: Final = "-XX:TieredStopAtLevel=1 -XX:-UseG1GC -XX:+UseSerialGC"
"""A node of a test run is young: compiling its code thoroughly takes more time than it saves."""


class NodeUnavailableError(Exception):
    """No Elasticsearch node can be started; the message has the reason."""


@pytest.fixture(scope="session")
def elasticsearch_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of the node that all tests of this run share; skip the tests if there is none."""
    found = shared_server(__name__, tmp_path_factory)
    if "error" in found:
        message = f"no Elasticsearch: {found['error']}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return str(found["url"])


@contextmanager
def elasticsearch_node(memory: str = "512m") -> Iterator[str]:
    """Provide a node during the block, and stop it afterwards if it was started here.

    Args:
        memory: heap size of a node that is started here, in Java's notation.

    Returns:
        The node's URL.

    Raises:
        NodeUnavailableError: no node can be started.

    """
    given = os.environ.get(URL_VARIABLE)
    if given:
        _wait_for(given, None)
        yield given
        return
    with ExitStack() as stack:
        url = _start_container(stack, memory) or stack.enter_context(_unpacked_node(memory))
        yield url


def _start_container(stack: ExitStack, memory: str) -> str | None:
    try:
        from docker.errors import DockerException  # type: ignore[import-untyped]  # noqa: PLC0415  # both come with testcontainers
        from testcontainers.community.elasticsearch import ElasticSearchContainer  # noqa: PLC0415
    except ImportError:
        return None
    with warnings.catch_warnings():
        # Without Docker, its client leaves a socket open, which causes a warning at garbage collection.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            container: Any = ElasticSearchContainer(IMAGE, mem_limit="2g")
        except DockerException:
            container = None
        gc.collect()
    if container is None:
        return None
    container.with_env("xpack.security.enabled", "false")
    container.with_env("ES_JAVA_OPTS", f"-Xms{memory} -Xmx{memory}")
    try:
        started: Any = stack.enter_context(container)
    except DockerException:
        return None
    return f"http://{started.get_container_host_ip()}:{started.get_exposed_port(9200)}"


@contextmanager
def _unpacked_node(memory: str) -> Iterator[str]:
    java_home = _find_java_home()
    with tempfile.TemporaryDirectory(prefix="metronome-elasticsearch-") as name:
        folder = Path(name)
        home = _unpacked_distribution(folder)
        http_port, transport_port = _free_ports()
        (folder / "tmp").mkdir()
        shutil.copytree(home / "config", folder / "config")
        (folder / "config" / "elasticsearch.yml").write_text(
            CONFIGURATION.format(http_port=http_port, transport_port=transport_port, folder=folder)
        )
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "ES_JAVA_HOME": str(java_home),
            "ES_JAVA_OPTS": f"-Xms{memory} -Xmx{memory} {JAVA_OPTIONS}",
            "ES_PATH_CONF": str(folder / "config"),
            "ES_TMPDIR": str(folder / "tmp"),
            "HOME": str(folder),
        }
        with (folder / "output").open("wb") as output:
            node = subprocess.Popen(
                [str(home / "bin" / "elasticsearch")],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
                **_unprivileged_user(folder),
            )
        try:
            url = f"http://127.0.0.1:{http_port}"
            _wait_for(url, node, folder / "output")
            yield url
        finally:
            _stop_node(node)


def _stop_node(node: "subprocess.Popen[bytes]") -> None:
    # The launcher leads its own process group, which includes the server.
    try:
        os.killpg(node.pid, signal.SIGTERM)
        node.wait(STOP_TIMEOUT_SECONDS)
    except ProcessLookupError:
        pass
    except subprocess.TimeoutExpired:
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()


def _wait_for(url: str, node: "subprocess.Popen[bytes] | None", output: Path | None = None) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{url}/_cluster/health?timeout=5s", timeout=10) as reply:  # noqa: S310  # our own node
                if json.load(reply)["status"] in {"green", "yellow"}:
                    return
        except OSError:
            pass
        ended = node is not None and node.poll() is not None
        if ended or time.monotonic() > deadline:
            said = output.read_text(errors="replace")[-2000:] if output else ""
            raise NodeUnavailableError(f"{url} {'ended' if ended else 'did not answer'}: {said}")
        time.sleep(0.2)


def _unprivileged_user(folder: Path) -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    for path in (folder, *folder.rglob("*")):
        os.chown(path, UNPRIVILEGED_UID, UNPRIVILEGED_UID)
    return {"user": UNPRIVILEGED_UID, "group": UNPRIVILEGED_UID, "extra_groups": []}


def _unpacked_distribution(folder: Path) -> Path:
    cached = CACHE / f"elasticsearch-{VERSION}"
    if not cached.exists():
        archive = _download_distribution()
        CACHE.mkdir(exist_ok=True)
        # Unpack to a temporary folder and rename, so that concurrent runs see a complete distribution.
        with tempfile.TemporaryDirectory(dir=CACHE) as aside:
            _unpack(archive, Path(aside))
            try:
                (Path(aside) / cached.name).rename(cached)
            except OSError:
                if not cached.exists():
                    raise
    if os.geteuid() != 0 or _is_readable_by_all(cached):
        return cached
    shutil.copytree(cached, folder / cached.name)
    return folder / cached.name


def _is_readable_by_all(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (path, *path.parents))


def _unpack(archive: Path, into: Path) -> None:
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            path = Path(members.extract(member, into))
            path.chmod(0o755 if path.is_dir() or (member.external_attr >> 16) & 0o100 else 0o644)


def _download_distribution() -> Path:
    group, name, version, _ = ARTIFACT.split(":")
    local = Path.home() / ".m2" / "repository" / group.replace(".", "/") / name / version / f"{name}-{version}.zip"
    if not local.exists():
        maven = shutil.which("mvn")
        if maven is None:
            raise NodeUnavailableError(f"set {URL_VARIABLE}, or install Docker or Maven")
        command = [maven, "-q", "-B", "dependency:get", f"-Dartifact={ARTIFACT}", "-Dtransitive=false"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise NodeUnavailableError(f"{' '.join(command)} took over {DOWNLOAD_TIMEOUT_SECONDS} s") from None
        if done.returncode != 0 or not local.exists():
            raise NodeUnavailableError(f"{' '.join(command)} failed: {(done.stdout + done.stderr)[-1000:]}")
    return local


def _find_java_home() -> Path:
    homes = [Path(os.environ["JAVA_HOME"])] if "JAVA_HOME" in os.environ else []
    on_path = shutil.which("java")
    if on_path is not None:
        homes.append(Path(on_path).resolve().parents[1])
    homes.extend(sorted(Path("/usr/lib/jvm").glob("*")))
    for home in homes:
        if _read_java_version(home / "bin" / "java") in JAVA_VERSIONS:
            return home
    raise NodeUnavailableError(
        f"no Java {JAVA_VERSIONS.start} to {JAVA_VERSIONS.stop - 1} on the PATH, in JAVA_HOME or /usr/lib/jvm"
    )


def _read_java_version(java: Path) -> int:
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
    except OSError:
        return 0
    version = re.search(r'version "(\d+)', said)
    return int(version[1]) if version else 0


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@contextmanager
def _described() -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        try:
            description = {"url": stack.enter_context(elasticsearch_node())}
        except NodeUnavailableError as error:
            description = {"error": str(error)}
        yield description


if __name__ == "__main__":
    run_shared(_described)
