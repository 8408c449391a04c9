"""Client libraries: the events that they send are counted exactly."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.programs.programs import SECONDS, Command, finish, go, java, node, python, wait_until
from tests.servers import Server, free_port, running_server, unique_name

COUNT = 40


class Client(NamedTuple):
    """A client library.

    Attributes:
        command: makes its command of the server's address, forward's port and the item.
        resends: whether it sends again what was not answered.
        names: whether what it sends again has the same identity as before; else an event counts twice whose answer was
            lost, and only a clean stop loses none.

    """

    command: Callable[[str, int, str], Command]
    resends: bool
    names: bool = True


def bulk_with(library: str, module: str) -> Callable[[str, int, str], Command]:
    return lambda url, _, item: python(library, "bulk.py", module, f"{url}/es", item, COUNT)


def forward_in(mode: str) -> Callable[[str, int, str], Command]:
    return lambda _, port, item: node("forward.mjs", port, item, COUNT, MODE=mode)


CLIENTS = {
    "elasticsearch 8": Client(
        lambda url, _, item: python("elasticsearch8", "bulk.py", "elasticsearch", f"{url}/es", item, COUNT),
        resends=True,
    ),
    "elasticsearch 9": Client(
        lambda url, _, item: python("elasticsearch9", "bulk.py", "elasticsearch", f"{url}/es", item, COUNT),
        resends=True,
    ),
    "elasticsearch-java": Client(
        lambda url, _, item: java("elasticsearch-java", "JavaClient.java", url, item, COUNT), resends=False
    ),
    "Java's high-level REST client": Client(
        lambda url, _, item: java("high-level-client", "HighLevelClient.java", url, item, COUNT), resends=False
    ),
    "elasticsearch-go": Client(lambda url, _, item: go("bulk", f"{url}/es", item, COUNT), resends=True),
    "fluent-logger-golang": Client(
        lambda _, port, item: go("forward", "127.0.0.1", port, item, COUNT), resends=True, names=False
    ),
    "opensearch-py": Client(
        lambda url, _, item: python("opensearch", "bulk.py", "opensearchpy", f"{url}/es", item, COUNT), resends=True
    ),
    "@elastic/elasticsearch": Client(lambda url, _, item: node("bulk.mjs", f"{url}/es", item, COUNT), resends=True),
    "pino-elasticsearch": Client(lambda url, _, item: node("pino.mjs", f"{url}/es", item, COUNT), resends=False),
    "winston-elasticsearch": Client(
        lambda url, _, item: node("winston.mjs", f"{url}/es", item, COUNT), resends=True, names=False
    ),
    "matomo-tracker": Client(lambda url, _, item: node("matomo.mjs", url, item, COUNT), resends=False),
    "@umami/node": Client(lambda url, _, item: node("umami.mjs", url, item, COUNT), resends=False),
    "OpenTelemetry's SDK": Client(lambda url, _, item: python("otlp", "otlp.py", url, item, COUNT), resends=True),
    "fluent-logger": Client(
        lambda _, port, item: python("fluent", "forward.py", "127.0.0.1", port, item, COUNT), resends=False
    ),
    **{
        f"@fluent-org/logger, {mode}": Client(forward_in(mode), resends=True, names=False)
        for mode in ("Message", "Forward", "PackedForward", "CompressedPackedForward")
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("libraries") / "data", forward_port=free_port()) as running:
        yield running


@pytest.fixture
def item() -> str:
    # Items of Matomo are paths.
    return f"/{unique_name('item-')}"


def port_of(server: Server) -> int:
    return int(str(server.settings["forward_port"]))


def views(server: Server, item: str) -> int:
    server.wait_until_shipped()
    return sum(server.get(f"/tock/{item}.json")["views"].values())


@pytest.mark.parametrize("name", CLIENTS)
def test_events_of_a_client_are_counted(server: Server, name: str, item: str) -> None:
    said = finish(CLIENTS[name].command(server.url, port_of(server), item))
    assert views(server, item) == COUNT, said


@pytest.mark.parametrize("name", [name for name, client in CLIENTS.items() if client.resends])
def test_retries_of_a_client_are_counted_once_when_metronome_is_killed_or_stopped(
    tmp_path: Path, name: str, item: str
) -> None:
    with running_server(tmp_path / "data", forward_port=free_port()) as server:
        command = CLIENTS[name].command(server.url, port_of(server), item)
        said = tmp_path / "said"
        with said.open("wb") as output:
            process = subprocess.Popen(
                command.arguments,
                env={**os.environ, **command.environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: server.accepted_events() > 0, said.read_text)
        if CLIENTS[name].names:
            server.kill()
        else:
            server.stop()
        server.start()
        assert process.wait(SECONDS) == 0, said.read_text()
        assert views(server, item) == COUNT, said.read_text()


@pytest.mark.parametrize("name", [name for name, client in CLIENTS.items() if not client.resends])
def test_events_before_and_after_a_restart_are_counted(tmp_path: Path, name: str, item: str) -> None:
    with running_server(tmp_path / "data", forward_port=free_port()) as server:
        command = CLIENTS[name].command(server.url, port_of(server), item)
        finish(command)
        server.stop()
        server.start()
        finish(command)
        assert views(server, item) == 2 * COUNT
