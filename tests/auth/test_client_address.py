"""The address of a sender: what proxies say is believed, and what strangers say is not."""

import tempfile
from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest
from aiohttp import ClientSession, UnixConnector, web
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from metronome.auth.client_address import ClientAddress, is_local_client

LOOPBACK = ("127.0.0.0/8", "::1/128")
PROXIES = (*LOOPBACK, "10.0.0.0/8", "2001:db8:ff::/48", "192.0.2.9")
STRANGER = "203.0.113.7"


@pytest.mark.parametrize(
    ("remote", "forwarded", "sender"),
    [
        # Nobody stands between.
        (STRANGER, [], STRANGER),
        ("127.0.0.1", [], "127.0.0.1"),
        ("::1", [], "::1"),
        # Strangers say what they like.
        (STRANGER, ["127.0.0.1"], STRANGER),
        (STRANGER, ["10.0.0.1, 127.0.0.1"], STRANGER),
        ("2001:db8::7", ["::1"], "2001:db8::7"),
        # A proxy's word counts for whom it heard it from, and not for what that one said.
        ("127.0.0.1", [STRANGER], STRANGER),
        ("10.1.2.3", ["198.51.100.1, 203.0.113.7"], STRANGER),
        ("10.1.2.3", ["127.0.0.1, 203.0.113.7"], STRANGER),
        ("10.1.2.3", ["127.0.0.1", "203.0.113.7"], STRANGER),
        ("10.1.2.3", [f"{STRANGER}, 10.9.9.9,192.0.2.9"], STRANGER),
        ("10.1.2.3", [f"{STRANGER}", "10.9.9.9", "192.0.2.9"], STRANGER),
        ("192.0.2.9", ["192.0.2.8"], "192.0.2.8"),
        ("192.0.2.8", [STRANGER], "192.0.2.8"),
        # All are proxies: the first of them began it.
        ("127.0.0.1", ["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        ("127.0.0.1", ["127.0.0.1"], "127.0.0.1"),
        # What is no address ends the chain where it was last right.
        ("10.1.2.3", ["unknown"], "10.1.2.3"),
        ("10.1.2.3", [""], "10.1.2.3"),
        ("10.1.2.3", [f"{STRANGER}, unknown"], "10.1.2.3"),
        ("10.1.2.3", [f"{STRANGER}, , 10.0.0.2"], "10.0.0.2"),
        ("10.1.2.3", ["_hidden, 10.0.0.2"], "10.0.0.2"),
        ("10.1.2.3", ["1" * 4000], "10.1.2.3"),
        # Ports, brackets, zones and mapped addresses.
        ("10.1.2.3", [f"{STRANGER}:4711"], STRANGER),
        ("10.1.2.3", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("10.1.2.3", ["2001:DB8:0::7"], "2001:db8::7"),
        ("2001:db8:ff:1::2", ["2001:db8::7"], "2001:db8::7"),
        ("::ffff:10.1.2.3", [STRANGER], STRANGER),
        ("::ffff:203.0.113.7", ["127.0.0.1"], STRANGER),
        ("10.1.2.3", ["::ffff:203.0.113.7, ::ffff:10.0.0.1"], STRANGER),
        ("fe80::1%eth0", [STRANGER], "fe80::1"),
        # A worker of our own, over a Unix socket.
        ("", [STRANGER], STRANGER),
        ("", [""], ""),
        ("", [], ""),
    ],
)
def test_the_client_is_the_last_address_that_is_not_a_trusted_proxy(
    remote: str, forwarded: list[str], sender: str
) -> None:
    assert ClientAddress(PROXIES).resolve(remote, forwarded) == sender


def test_without_trusted_proxies_the_header_is_ignored() -> None:
    for remote in ("127.0.0.1", "::1", "10.0.0.1", STRANGER):
        assert ClientAddress(()).resolve(remote, ["198.51.100.1"]) == remote


addresses = st.ip_addresses().map(str)
words = addresses | st.text() | st.sampled_from(["", "127.0.0.1", "::1", "unknown"])


@given(said=st.lists(words), last=addresses.filter(lambda address: address not in {"127.0.0.1", "::1"}))
def test_whatever_a_stranger_said_the_proxy_s_last_word_counts(said: list[str], last: str) -> None:
    senders = ClientAddress(["192.0.2.9"])
    expected = getattr(ip_address(last), "ipv4_mapped", None) or last
    if last != "192.0.2.9":
        assert senders.resolve("192.0.2.9", [*said, last]) == str(expected)
        assert senders.resolve("192.0.2.9", [", ".join([*said, last])]) == str(expected)


@given(remote=words, said=st.lists(words))
def test_a_sender_is_an_address_or_whoever_is_at_the_other_end(remote: str, said: list[str]) -> None:
    sender = ClientAddress(PROXIES).resolve(remote, said)
    assert sender == remote or str(ip_address(sender)) == sender


@pytest.fixture
async def runner() -> AsyncIterator[web.AppRunner]:
    """A server that says whom it takes each request to be from."""
    senders = ClientAddress(LOOPBACK)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=senders.resolve_request(request))

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    yield runner
    await runner.cleanup()


SAID = [("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-For", STRANGER), ("X-Forwarded-For", "127.0.0.1")]


async def test_the_address_is_taken_from_all_headers_of_a_request(runner: web.AppRunner) -> None:
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with ClientSession() as session:
        assert await (await session.get(url, headers=SAID)).text() == STRANGER
        assert await (await session.get(url)).text() == "127.0.0.1"


async def test_the_word_of_a_worker_of_our_own_counts(runner: web.AppRunner) -> None:
    with tempfile.TemporaryDirectory() as folder:
        await web.UnixSite(runner, f"{folder}/main.sock").start()
        async with ClientSession(connector=UnixConnector(f"{folder}/main.sock")) as session:
            assert await (await session.get("http://main", headers=SAID)).text() == STRANGER
            assert await (await session.get("http://main")).text() == ""


@pytest.mark.parametrize(
    ("peer", "headers", "is_local"),
    [
        ("127.0.0.1", {}, True),
        ("127.8.9.10", {"Host": "127.0.0.1"}, True),
        ("::1", {"Host": "[::1]:8080"}, True),
        ("::ffff:127.0.0.1", {"Host": "[::ffff:127.0.0.1]:8080"}, True),
        ("127.0.0.1", {"Host": "LOCALHOST.:8080"}, True),
        ("127.0.0.1", {"Host": "shop.localhost"}, True),
        # The page, its forms and its links, and pages of other servers on this machine.
        ("127.0.0.1", {"Sec-Fetch-Site": "none"}, True),
        ("127.0.0.1", {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:8080"}, True),
        ("127.0.0.1", {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"}, True),
        ("::1", {"Origin": "http://[::1]"}, True),
        # Other machines.
        (None, {}, False),
        ("", {}, False),
        ("192.0.2.1", {}, False),
        ("2001:db8::1", {}, False),
        # A name of another site that resolves to this machine.
        ("127.0.0.1", {"Host": "rebinding.example.org:8080"}, False),
        ("127.0.0.1", {"Host": "localhost.example.org"}, False),
        ("127.0.0.1", {"Host": "127.0.0.1.example.org"}, False),
        ("127.0.0.1", {"Host": "localhost@example.org"}, False),
        ("127.0.0.1", {"Host": "example.org@localhost"}, False),
        ("127.0.0.1", {"Host": "192.0.2.1"}, False),
        ("127.0.0.1", {"Host": "0.0.0.0:8080"}, False),
        ("127.0.0.1", {"Host": "[::1"}, False),
        ("127.0.0.1", {"Host": "localhost:8080/x"}, False),
        ("127.0.0.1", {"Host": ""}, False),
        # Pages of other sites in a browser on this machine: images and forms have no origin that the server sees.
        ("127.0.0.1", {"Sec-Fetch-Site": "cross-site"}, False),
        ("127.0.0.1", {"Origin": "https://example.org"}, False),
        ("127.0.0.1", {"Origin": "https://localhost.example.org"}, False),
        ("127.0.0.1", {"Origin": "http://127.0.0.1.example.org"}, False),
        ("127.0.0.1", {"Origin": "null"}, False),
        ("127.0.0.1", {"Origin": "http://["}, False),
        ("127.0.0.1", {"Origin": "file://"}, False),
        # Behind a proxy on this machine, whatever it says.
        ("127.0.0.1", {"X-Forwarded-For": "203.0.113.7"}, False),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, False),
        ("127.0.0.1", {"X-Forwarded-For": "unknown"}, False),
        ("127.0.0.1", {"x-forwarded-for": ""}, False),
        ("127.0.0.1", {"Forwarded": "for=_hidden"}, False),
        ("127.0.0.1", {"X-Real-IP": "203.0.113.7"}, False),
        ("127.0.0.1", {"Via": "1.1 proxy"}, False),
    ],
)
def test_only_programs_on_this_machine_are_local(peer: str | None, headers: dict[str, str], *, is_local: bool) -> None:
    assert is_local_client(peer, CIMultiDict({"Host": "localhost:8080"} | headers)) is is_local
