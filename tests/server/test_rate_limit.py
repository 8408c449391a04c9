"""The number of requests that one client address may send."""

import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple
from urllib.error import HTTPError

import pytest

from metronome.scopes import Scope
from tests.installations import create_key
from tests.servers import REQUEST_TIMEOUT_SECONDS, Server, running_server

BURST: Final = 20
EVENT: Final = b'{"id":"x"}'


class Limited(NamedTuple):
    """A server that accepts two requests a second from each client, and a key that may import."""

    server: Server
    key: str


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    data = tmp_path_factory.mktemp("limited") / "data"
    key = create_key(data, "importer", Scope.IMPORT)
    with running_server(data, rate_limit=BURST / 10, visitors="off") as server:
        yield Limited(server, key)


def send(server: Server, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Mapping[str, str]]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(server.url + path, body, names)  # noqa: S310  # our own server
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS) as response:  # noqa: S310  # our own server
            return response.status, dict(response.headers)
    except HTTPError as error:
        with error:
            return error.code, dict(error.headers)


@pytest.mark.parametrize(
    ("path", "body", "accepted"),
    [
        ("/tick", EVENT, 204),
        ("/tock/x.json", None, 200),
        ("/", None, 200),
        ("/es/_bulk", b"\n", 400),
        ("/sign-in", b"key=unknown", 401),
        # A key is looked up before the request is counted.
        ("/tick?key", EVENT, 401),
        ("/items.json?key", None, 401),
        ("/hit/x?key", None, 401),
        ("/forget?key", b"{}", 401),
    ],
)
def test_a_client_that_sends_too_many_requests_is_told_to_wait(
    limited: Limited, path: str, body: bytes | None, accepted: int
) -> None:
    network = f"2001:db8:{len(path)}:{accepted}"
    headers = {"Authorization": "Bearer unknown"} if path.endswith("key") else {}
    responses = [
        send(limited.server, path, body, X_Forwarded_For=f"{network}::{number:x}", **headers)
        for number in range(BURST + 15)
    ]
    statuses = Counter(status for status, _ in responses)
    assert statuses.keys() == {accepted, 429}
    assert statuses[accepted] >= BURST
    assert int(next(headers for status, headers in responses if status == 429)["Retry-After"]) >= 1
    assert send(limited.server, path, body, X_Forwarded_For="198.51.100.1", **headers)[0] == accepted


def test_pixels_are_shown_and_counted_as_refused(limited: Limited) -> None:
    responses = [send(limited.server, "/tick.gif?id=x", X_Forwarded_For="203.0.113.9") for _ in range(BURST + 15)]
    assert {status for status, _ in responses} == {200}
    assert sum("over 2 requests a second" in headers.get("X-Metronome-Error", "") for _, headers in responses) >= 5
    status, _ = send(limited.server, "/tick.gif?id=x", X_Forwarded_For="203.0.113.10")
    assert status == 200


def test_this_machine_and_keys_that_may_import_are_not_limited(limited: Limited) -> None:
    assert {send(limited.server, "/tick", EVENT)[0] for _ in range(2 * BURST)} == {204}
    headers = {"Authorization": f"Bearer {limited.key}", "X_Forwarded_For": "203.0.113.11"}
    assert {send(limited.server, "/tick", EVENT, **headers)[0] for _ in range(2 * BURST)} == {204}
