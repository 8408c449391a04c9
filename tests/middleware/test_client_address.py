"""The client's IP address behind proxies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.auth.client_address import ClientAddress
from metronome.middleware.current_request import ClientAddressResolver

PROXIES = ("10.0.0.0/8", "127.0.0.1", "fd00::/8")


@pytest.mark.parametrize(
    ("peer_address", "forwarded_for", "address"),
    [
        ("203.0.113.9", "", "203.0.113.9"),
        ("203.0.113.9", "198.51.100.7", "203.0.113.9"),
        ("10.1.2.3", "198.51.100.7", "198.51.100.7"),
        ("10.1.2.3", "1.2.3.4, 198.51.100.7, 10.9.9.9", "198.51.100.7"),
        ("10.1.2.3", "10.7.7.7", "10.7.7.7"),
        ("10.1.2.3", "unknown", "10.1.2.3"),
        ("10.1.2.3", "198.51.100.7:4711", "198.51.100.7"),
        ("fd00::1", "[2001:db8::7]:80", "2001:db8::7"),
        ("::ffff:10.1.2.3", "198.51.100.7", "198.51.100.7"),
        ("", "198.51.100.7", ""),
        ("testclient", "", ""),
    ],
)
def test_resolves_the_last_address_that_is_not_a_trusted_proxy(
    peer_address: str, forwarded_for: str, address: str
) -> None:
    assert ClientAddressResolver(PROXIES).resolve(peer_address, forwarded_for) == address


def test_proxies_on_a_unix_socket_can_be_trusted() -> None:
    assert ClientAddressResolver(("unix",)).resolve("", "198.51.100.7") == "198.51.100.7"


ADDRESSES = st.ip_addresses().map(str) | st.sampled_from(["10.0.0.1", "127.0.0.1", "fd00::1", "unknown"])


@given(st.ip_addresses().map(str) | st.just("10.0.0.1"), st.lists(ADDRESSES, max_size=4))
def test_resolves_the_same_address_as_the_server(peer: str, forwarded: list[str]) -> None:
    expected = ClientAddress(PROXIES).resolve(peer, forwarded)
    assert ClientAddressResolver(PROXIES).resolve(peer, ",".join(forwarded)) == expected
