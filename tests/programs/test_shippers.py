"""Log shippers with the configurations of ingest/: requests are counted exactly, also when Metronome fails."""

import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import shippers
from tests.programs.programs import wait_until
from tests.programs.shippers import Place, Shipper
from tests.programs.sites import MISSING
from tests.servers import Server, free_port, run_metronome, running_server, unique_name

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
POSITIONS = {"rsyslog": "work", "Filebeat": "data", "NGINX, followed": "following", "Apache, followed": "following"}
"""The read positions of shippers that identify lines by position."""
KEYED = ("rsyslog", "syslog-ng", "Filebeat", "NGINX, followed")
PATIENT = tuple(name for name in KEYED if name != "rsyslog")
ALL = RESENDING | SYSLOG


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("shippers") / "data", syslog_port=free_port()) as running:
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
    """Return paths of views, half as many downloads, and one missing file."""
    return [f"/{item}"] * views + [f"/{item}.csv"] * (views // 2) + [f"{MISSING}-{item}"]


def counted(server: Server, item: str) -> tuple[int, int, int]:
    """Return the numbers of views, downloads and errors; zeros while the store of a restarted server opens."""
    closed: dict[str, dict[str, int]] = {"views": {}, "downloads": {}}
    seen, downloaded, missing = (closed | server.get(f"/tock/{path}.json") for path in visits(item, 2)[-3:])
    return sum(seen["views"].values()), downloaded["downloads"].get("csv", 0), sum(missing["views"].values())


def has_refused(server: Server) -> bool:
    """Return whether a server has rejected events because its spool was full."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:  # noqa: S310  # our own server
        return b'metronome_refused_total{reason="SpoolFull"}' in answer.read()


def said(folder: Path) -> str:
    """Return the output of the programs in a folder."""
    return "\n".join(path.read_text(errors="replace") for path in folder.rglob("said"))


def wait_until_counted(server: Server, item: str, views: int, folder: Path) -> None:
    wanted = (views, views // 2, 0)
    wait_until(lambda: counted(server, item) == wanted, lambda: f"{counted(server, item)}: {said(folder)}")


@pytest.mark.parametrize("name", ALL)
def test_lines_that_a_shipper_reads_are_counted(server: Server, folder: Path, item: str, name: str) -> None:
    with ALL[name](Place(folder, server)) as visit:
        visit(visits(item, COUNT))
        wait_until_counted(server, item, COUNT, folder)
    server.wait_until_shipped()
    assert counted(server, item) == (COUNT, COUNT // 2, 0)


@pytest.mark.parametrize("name", RESENDING)
def test_a_shipper_retries_unacknowledged_lines_and_nothing_counts_twice(
    tmp_path: Path, folder: Path, item: str, name: str
) -> None:
    with running_server(tmp_path / "data") as server:
        with RESENDING[name](Place(folder, server)) as visit:
            visit(visits(item, COUNT))
            wait_until(lambda: server.accepted_events() > 0, lambda: said(folder))
            server.kill()
            visit(visits(item, COUNT))
            server.start()
            wait_until_counted(server, item, 2 * COUNT, folder)
        server.wait_until_shipped()
        assert counted(server, item) == (2 * COUNT, COUNT, 0)


@pytest.mark.parametrize("name", POSITIONS)
def test_lines_that_are_read_again_count_once(server: Server, folder: Path, item: str, name: str) -> None:
    for times in (1, 2):
        with RESENDING[name](Place(folder, server)) as visit:
            visit(visits(item, COUNT))
            wait_until_counted(server, item, times * COUNT, folder)
        server.wait_until_shipped()
        assert counted(server, item) == (times * COUNT, times * COUNT // 2, 0)
        shutil.rmtree(folder / POSITIONS[name])


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """Return a server that requires a key, and a key."""
    data = tmp_path_factory.mktemp("locked") / "data"
    made = run_metronome("keys", "create", "shipper", "--create", "--scope", "import", data=data)
    with running_server(data, public="tock") as running:
        yield running, made.stdout.split()[-1]


@pytest.mark.parametrize("name", KEYED)
def test_a_shipper_with_a_key_is_accepted(locked: tuple[Server, str], folder: Path, item: str, name: str) -> None:
    server, key = locked
    with RESENDING[name](Place(folder, server, key)) as visit:
        visit(visits(item, COUNT))
        wait_until_counted(server, item, COUNT, folder)


@pytest.mark.parametrize("name", PATIENT)
def test_without_a_key_a_shipper_is_rejected_and_keeps_its_lines(
    locked: tuple[Server, str], folder: Path, item: str, name: str
) -> None:
    server, key = locked
    with RESENDING[name](Place(folder, server)) as visit:
        visit(visits(item, COUNT))
        wait_until(lambda: "401" in said(folder) or "is needed" in said(folder), lambda: said(folder))
    assert counted(server, item) == (0, 0, 0)
    with RESENDING[name](Place(folder, server, key)):
        wait_until_counted(server, item, COUNT, folder)


def test_without_a_key_rsyslog_is_rejected_and_writes_unsent_lines_to_a_file(
    locked: tuple[Server, str], folder: Path, item: str
) -> None:
    server, _ = locked
    unsent = folder / "metronome-unsent.log"
    with shippers.rsyslog_elasticsearch(Place(folder, server)) as visit:
        visit(visits(item, COUNT))
        wait_until(lambda: unsent.exists() and unsent.read_text().count(item) > COUNT, lambda: said(folder))
    assert "is needed" in said(folder)
    assert counted(server, item) == (0, 0, 0)


@pytest.mark.parametrize("name", RESENDING)
def test_lines_sent_while_the_spool_is_full_are_retried_and_counted_once(
    tmp_path: Path, folder: Path, item: str, name: str
) -> None:
    store = f"http://127.0.0.1:{free_port()}"
    full = {"store": store, "spool_max_bytes": 20_000, "stop_seconds": 1, "public": "tick,tock,admin"}
    with running_server(tmp_path / "data", **full) as server:
        with RESENDING[name](Place(folder, server)) as visit:
            for _ in range(3):
                visit(visits(item, COUNT))
            wait_until(lambda: has_refused(server), lambda: said(folder))
            # The store is available again.
            server.stop()
            server.settings = {}
            server.start()
            wait_until_counted(server, item, 3 * COUNT, folder)
        server.wait_until_shipped()
        assert counted(server, item) == (3 * COUNT, 3 * COUNT // 2, 0)
