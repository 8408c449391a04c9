"""NGINX as a reverse proxy, with the configuration of ingest/."""

import http.client
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import orjson
import pytest

from tests.installations import read_stored_documents
from tests.programs import shippers
from tests.programs.programs import debian, edited, started, wait_until
from tests.programs.sites import AGENT, nginx_around
from tests.servers import Server, free_port, running_server, unique_name

VISITOR: Final = "127.0.0.2"
FORGED: Final = "198.51.100.7"
COMPLAINTS: Final = ("Empty reply from server", "Server returned nothing", "EOF")
"""Messages of shippers about a connection that is closed without a response."""


class Proxy:
    """NGINX, requested from another address.

    Args:
        port: where it listens.

    """

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, body: bytes = b"", sender: str = VISITOR) -> int:
        """Send a request with a forged client address, and return the status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30, source_address=(sender, 0))
        headers = {"User-Agent": AGENT, "X-Forwarded-For": FORGED, "Content-Type": "application/json"}
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def is_there(self) -> bool:
        """Return whether it responds."""
        try:
            return self.ask("GET", "/health/live") > 0
        except OSError:
            return False


@contextmanager
def proxied(folder: Path, server: Server, **replaced: str) -> Iterator[Proxy]:
    port = free_port()
    here = {"server 127.0.0.1:8080;": f"server 127.0.0.1:{server.port};", "listen 80;": f"listen 127.0.0.1:{port};"}
    main = nginx_around(edited("nginx/proxy.conf", folder, {**here, **replaced}), folder, "access_log off;")
    with started(debian("nginx", "nginx", "-p", folder, "-c", main, "-e", "stderr"), folder):
        proxy = Proxy(port)
        wait_until(proxy.is_there, (folder / "said").read_text)
        yield proxy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "nginx"
    folder.mkdir()
    return folder


def test_the_proxy_passes_on_the_address_of_the_client(tmp_path: Path, folder: Path) -> None:
    item, data = unique_name("item-"), tmp_path / "data"
    with running_server(data, addresses="keep", trusted_proxies="127.0.0.1") as server:
        with proxied(folder, server) as proxy:
            assert proxy.ask("POST", "/tick", orjson.dumps({"id": item})) == 204
            assert proxy.ask("GET", f"/tick.gif?{urllib.parse.urlencode({'id': item})}") == 200
        server.wait_until_shipped()
        assert sum(server.get(f"/tock/{item}.json")["views"].values()) == 2
        server.stop()
    clients = [document.get("clientip") for document in read_stored_documents(data) if document["id"] == item]
    # Events sent to /tick name their client themselves.
    assert sorted(clients, key=str) == [VISITOR, None]


def test_a_large_batch_passes_the_proxy(tmp_path: Path, folder: Path) -> None:
    item = unique_name("item-")
    lines = b"\n".join([orjson.dumps({"id": item, "note": "x" * 1000})] * 5000)
    with running_server(tmp_path / "data") as server:
        with proxied(folder, server) as proxy:
            assert proxy.ask("POST", "/tick", lines) == 200
        server.wait_until_shipped()
        assert sum(server.get(f"/tock/{item}.json")["views"].values()) == 5000


def test_the_proxy_allows_metrics_only_from_its_own_machine(tmp_path: Path, folder: Path) -> None:
    with running_server(tmp_path / "data") as server, proxied(folder, server) as proxy:
        assert proxy.ask("GET", "/metrics") == 403
        # The proxy lets it pass; the server wants a key for metrics from whatever a proxy forwards.
        assert proxy.ask("GET", "/metrics", sender="127.0.0.1") == 401


def test_the_proxy_limits_the_request_rate_per_client(tmp_path: Path, folder: Path) -> None:
    slow = {"rate=50r/s": "rate=1r/m", "burst=200": "burst=3"}
    with running_server(tmp_path / "data") as server, proxied(folder, server, **slow) as proxy:
        assert [proxy.ask("POST", "/tick", b'{"id":"a"}') for _ in range(5)] == [204, 204, 204, 204, 429]
        assert proxy.ask("POST", "/tick", b'{"id":"a"}', sender="127.0.0.3") == 204


@pytest.mark.parametrize(
    "ship", [shippers.rsyslog_elasticsearch, shippers.syslog_ng_http, shippers.filebeat_elasticsearch]
)
def test_shippers_retry_through_the_proxy_after_an_outage(tmp_path: Path, folder: Path, ship: shippers.Shipper) -> None:
    item = unique_name("item-")
    shipping = tmp_path / "shipping"
    shipping.mkdir()
    with running_server(tmp_path / "data") as server, proxied(folder, server) as proxy:
        server.kill()
        with ship(shippers.Place(shipping, server, proxy=proxy.port)) as visit:
            visit([f"/{item}"] * 100)
            wait_until(
                lambda: any(word in (shipping / "said").read_text() for word in COMPLAINTS),
                (shipping / "said").read_text,
            )
            server.start()
            wait_until(
                lambda: sum(server.get(f"/tock//{item}.json")["views"].values()) == 100,
                (shipping / "said").read_text,
            )
