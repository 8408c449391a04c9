"""The page of real servers: beside Matomo's API, and with two workers, which relay it to another process."""

import http.client
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple
from urllib.parse import urlencode

import pytest

from metronome.scopes import Scope
from tests.installations import create_key
from tests.servers import REQUEST_TIMEOUT_SECONDS, Server, free_port, run_metronome, running_server

ERRORS: Final = "/?metric=errors"
ATTEMPTS: Final = 6
"""Each is a new connection, so that both workers receive some."""


class Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    text: str


def request(
    port: int, path: str, *, cookie: str = "", form: Mapping[str, str] | None = None, method: str = "", **headers: str
) -> Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    sent |= {"Cookie": cookie} if cookie else {}
    sent |= {"Content-Type": "application/x-www-form-urlencoded"} if form is not None else {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_TIMEOUT_SECONDS)
    try:
        connection.request(
            method or ("GET" if form is None else "POST"), path, None if form is None else urlencode(form), sent
        )
        response = connection.getresponse()
        return Response(response.status, dict(response.getheaders()), response.read().decode())
    finally:
        connection.close()


class Keyed(NamedTuple):
    server: Server
    reader: str


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """Provide a server with two workers and a key, behind a proxy that serves it below a path."""
    data = tmp_path_factory.mktemp("page") / "data"
    reader = create_key(data, "reader", Scope.QUERY)
    with running_server(data, workers=2, base_path="/stats", hit_port=free_port()) as server:
        server.post_events(b'[{"id":"rivers"},{"id":"rivers","event":"error","message":"no tile 12"}]')
        server.wait_until_shipped()
        yield Keyed(server, reader)


def sign_in(keyed: Keyed, key: str, **headers: str) -> Response:
    form = {"key": key, "next": "/stats/items/rivers"}
    headers = {"Origin": f"http://127.0.0.1:{keyed.server.port}", **headers}
    return request(keyed.server.port, "/stats/sign-in", form=form, **headers)


def test_workers_serve_the_page(keyed: Keyed) -> None:
    for path in ("/stats/", "/", "/stats/items/rivers", "/items/rivers", "/stats/tables/items"):
        response = request(keyed.server.port, path)
        assert response.status == 200
        assert "rivers" in response.text
        assert "/stats/assets/page." in response.text
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert request(keyed.server.port, "/stats/", method="HEAD").status == 200
    missing = request(keyed.server.port, "/stats/nothing", Accept="text/html")
    assert (missing.status, "/stats/assets/page." in missing.text) == (404, True)


def test_a_sign_in_holds_on_all_workers_and_for_its_browser_only(keyed: Keyed) -> None:
    port = keyed.server.port
    signed_in = sign_in(keyed, keyed.reader)
    assert (signed_in.status, signed_in.headers["Location"]) == (303, "/stats/items/rivers")
    cookie, *attributes = signed_in.headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "Path=/stats/", "SameSite=Lax"} <= set(attributes)
    assert [request(port, f"/stats{ERRORS}", cookie=cookie).status for _ in range(ATTEMPTS)] == [200] * ATTEMPTS
    # The connections between the processes are shared by all clients.
    assert [request(port, f"/stats{ERRORS}").status for _ in range(ATTEMPTS)] == [303] * ATTEMPTS
    assert [request(port, "/stats/metrics", cookie=cookie).status for _ in range(ATTEMPTS)] == [401] * ATTEMPTS
    assert request(port, "/stats/sign-out", form={}, cookie=cookie).status == 303
    assert [request(port, f"/stats{ERRORS}", cookie=cookie).status for _ in range(ATTEMPTS)] == [303] * ATTEMPTS


def test_workers_pass_on_what_protects_the_sign_in(keyed: Keyed) -> None:
    assert sign_in(keyed, keyed.reader, Sec_Fetch_Site="cross-site").status == 403
    assert sign_in(keyed, keyed.reader, Origin="http://evil.example").status == 403
    assert "Secure" in sign_in(keyed, keyed.reader, X_Forwarded_Proto="https").headers["Set-Cookie"]
    assert "Secure" not in sign_in(keyed, keyed.reader, X_Forwarded_Proto="http").headers["Set-Cookie"]
    shown = request(keyed.server.port, "/stats/items/rivers", Host="stats.example.org", X_Forwarded_Proto="https")
    assert "https://stats.example.org/stats/usage.js" in shown.text


@pytest.mark.slow
def test_a_sign_in_ends_when_its_key_is_revoked(keyed: Keyed) -> None:
    data, port = keyed.server.data, keyed.server.port
    made = run_metronome("keys", "create", "guest", "--scope", "query", data=data).stdout.splitlines()[-1]
    cookie = sign_in(keyed, made).headers["Set-Cookie"].partition(";")[0]
    assert request(port, f"/stats{ERRORS}", cookie=cookie).status == 200
    assert run_metronome("keys", "revoke", "guest", data=data).exit_code == 0
    for _ in range(1000):
        if request(port, f"/stats{ERRORS}", cookie=cookie).status == 303:
            break
    else:
        pytest.fail("the sign-in goes on without its key")


@pytest.mark.parametrize("path", ["/", "/stats/"])
def test_matomos_api_stays_beside_the_page(keyed: Keyed, path: str) -> None:
    called = request(keyed.server.port, f"{path}?module=API&method=SitesManager.getAllSites&token_auth={keyed.reader}")
    assert (called.status, '"result":"error"' in called.text) == (403, True)
    assert request(keyed.server.port, path, form={"module": "x"}).status == 404


def test_the_port_of_hits_keeps_its_root(keyed: Keyed) -> None:
    hit_port = int(str(keyed.server.settings["hit_port"]))
    assert request(hit_port, "/items/rivers").status == 204
    assert (
        request(hit_port, "/", Authorization=f"Bearer {keyed.reader}")
        .headers["Content-Type"]
        .startswith("application/json")
    )


def test_the_page_of_a_single_process_is_open_before_the_first_key(server: Server) -> None:
    assert request(server.port, "/").status == 200
    assert request(server.port, "/", method="HEAD").status == 200
    assert request(server.port, ERRORS).status == 200
    assert request(server.port, "/sign-in").headers["Location"] == "/"
    called = request(server.port, "/?module=API&method=SitesManager.getSiteFromId&idSite=1")
    assert '"idsite":1' in called.text


@pytest.mark.slow
def test_a_page_has_every_event_that_was_accepted_before(server: Server, item: str) -> None:
    for count in range(1, 6):
        server.post_events(b'{"id":"%b"}' % item.encode())
        assert f'<span class="value">{count}</span>' in request(server.port, f"/items/{item}").text
