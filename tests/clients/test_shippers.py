"""Log shippers run with the files of ingest/: tock shows just what was visited, whatever happened to Metronome."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import shippers
from tests.clients.programs import wait_until
from tests.clients.shippers import Place, Shipper
from tests.clients.sites import MISSING
from tests.servers import Server, free_port, run_metronome, serving, unique_name

COUNT = 200
RESENDING: dict[str, Shipper] = {
    "rsyslog": shippers.rsyslog_elasticsearch,
    "syslog-ng": shippers.syslog_ng_http,
    "Filebeat": shippers.filebeat_elasticsearch,
    "NGINX, followed": shippers.nginx_followed,
    "Apache, followed": shippers.apache_followed,
}
SYSLOG: dict[str, Shipper] = {
    "rsyslog, syslog": shippers.rsyslog_syslog,
    "syslog-ng, syslog": shippers.syslog_ng_syslog,
    "NGINX, syslog": shippers.nginx_syslog,
    "Apache, syslog": shippers.apache_syslog,
}
ALL = RESENDING | SYSLOG


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("shippers") / "data", syslog_port=free_port()) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shipper"
    folder.mkdir()
    return folder


@pytest.fixture
def item() -> str:
    return unique_name("item-")


def visits(item: str, views: int) -> list[str]:
    """Return paths: views, half as many downloads, and one of what is not there."""
    return [f"/{item}"] * views + [f"/{item}.csv"] * (views // 2) + [f"{MISSING}-{item}"]


def counted(server: Server, item: str) -> tuple[int, int, int]:
    """Return the views, the downloads, and what is counted of what is not there."""
    seen, downloaded, missing = (server.get(f"/tock/{path}.json") for path in visits(item, 2)[-3:])
    return sum(seen["views"].values()), downloaded["downloads"].get("csv", 0), sum(missing["views"].values())


def said(folder: Path) -> str:
    """Return what the programs in a folder have said."""
    return "\n".join(path.read_text(errors="replace") for path in folder.rglob("said"))


def wait_until_counted(server: Server, item: str, views: int, folder: Path) -> None:
    wanted = (views, views // 2, 0)
    wait_until(lambda: counted(server, item) == wanted, lambda: f"{counted(server, item)}: {said(folder)}")


@pytest.mark.parametrize("name", ALL)
def test_what_a_shipper_reads_is_counted(server: Server, folder: Path, item: str, name: str) -> None:
    with ALL[name](Place(folder, server)) as visit:
        visit(visits(item, COUNT))
        wait_until_counted(server, item, COUNT, folder)
    server.wait_until_shipped()
    assert counted(server, item) == (COUNT, COUNT // 2, 0)


@pytest.mark.parametrize("name", RESENDING)
def test_a_shipper_sends_again_what_was_not_answered_and_nothing_counts_twice(
    tmp_path: Path, folder: Path, item: str, name: str
) -> None:
    with serving(tmp_path / "data") as server:
        with RESENDING[name](Place(folder, server)) as visit:
            visit(visits(item, COUNT))
            wait_until(lambda: server.accepted() > 0, lambda: said(folder))
            server.kill()
            visit(visits(item, COUNT))
            server.start()
            wait_until_counted(server, item, 2 * COUNT, folder)
        server.wait_until_shipped()
        assert counted(server, item) == (2 * COUNT, COUNT, 0)
