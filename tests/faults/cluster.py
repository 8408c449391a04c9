"""A cluster of three real Elasticsearch nodes on the loopback interface, which can be killed and paused."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import orjson

from tests import elasticsearch_node
from tests.elasticsearch_node import ELASTICSEARCH, JAVA_OPTIONS
from tests.servers import free_port

MEMORY: Final = "384m"
_TIMEOUT_SECONDS: Final = 180.0
_CONFIGURATION: Final = """\
cluster.name: metronome-fault-tests
node.name: {name}
network.host: 127.0.0.1
http.port: {http_port}
transport.port: {transport_port}
discovery.seed_hosts: [{seeds}]
cluster.initial_master_nodes: [node-0, node-1, node-2]
cluster.fault_detection.follower_check: {{interval: 500ms, timeout: 1s, retry_count: 2}}
cluster.fault_detection.leader_check: {{interval: 500ms, timeout: 1s, retry_count: 2}}
path.data: {folder}/data
path.logs: {folder}/logs
cluster.routing.allocation.disk.threshold_enabled: false
xpack.security.enabled: false
"""


class ClusterNode:
    """A node of a cluster.

    Args:
        number: of the node.
        folder: for its files.
        transport_ports: those of all nodes.

    """

    def __init__(self, number: int, folder: Path, transport_ports: list[int]) -> None:
        self.http_port = free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self._folder = folder
        home = elasticsearch_node._unpacked_distribution(folder, ELASTICSEARCH)
        for name in ("data", "logs", "tmp"):
            (folder / name).mkdir()
        shutil.copytree(home / "config", folder / "config")
        (folder / "config" / "elasticsearch.yml").write_text(
            _CONFIGURATION.format(
                name=f"node-{number}",
                http_port=self.http_port,
                transport_port=transport_ports[number],
                seeds=", ".join(f'"127.0.0.1:{port}"' for port in transport_ports),
                folder=folder,
            )
        )
        self._command = [str(home / "bin" / "elasticsearch")]
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "ES_JAVA_HOME": str(elasticsearch_node._find_java_home(ELASTICSEARCH.java_versions)),
            "ES_JAVA_OPTS": f"-Xms{MEMORY} -Xmx{MEMORY} {JAVA_OPTIONS}",
            "ES_PATH_CONF": str(folder / "config"),
            "ES_TMPDIR": str(folder / "tmp"),
            "HOME": str(folder),
        }
        self._user = elasticsearch_node._unprivileged_user(folder)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the node, without waiting."""
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
                **self._user,
            )

    def signal(self, number: int) -> None:
        """Send a signal to the node: its launcher leads a process group of its own."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """Kill the node."""
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    @property
    def output(self) -> str:
        """The last of what the node wrote."""
        return (self._folder / "output").read_text(errors="replace")[-2000:]


class Cluster:
    """Three nodes; the first one is the one that Metronome connects to."""

    def __init__(self, nodes: list[ClusterNode]) -> None:
        self.nodes = nodes

    def health(self) -> dict[str, Any]:
        """Return the health of the cluster as its first node sees it; empty if it does not respond."""
        with suppress(OSError):
            url = f"{self.nodes[0].url}/_cluster/health?timeout=2s"
            with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310  # our own node
                return dict(orjson.loads(response.read()))
        return {}

    def wait_until_green(self) -> None:
        """Wait until all nodes are there, and have a copy of each shard."""
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        health: dict[str, Any] = {}
        while (health.get("number_of_nodes"), health.get("status")) != (len(self.nodes), "green"):
            assert time.monotonic() < deadline, f"{health}: {[node.output for node in self.nodes]}"
            time.sleep(0.3)
            health = self.health()


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Run a cluster during the block."""
    with ExitStack() as stack:
        ports = [free_port() for _ in range(3)]
        folders = [
            Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="metronome-cluster-", ignore_cleanup_errors=True)
                )
            )
            for _ in ports
        ]
        cluster = Cluster([ClusterNode(number, folder, ports) for number, folder in enumerate(folders)])
        for node in cluster.nodes:
            stack.callback(node.kill)
            node.start()
        cluster.wait_until_green()
        yield cluster
