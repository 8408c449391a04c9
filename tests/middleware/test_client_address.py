"""Who a request came from, as its proxies tell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.auth.client_address import ClientAddress
from metronome.middleware.client_address import ClientAddressResolver

PROXIES = ("10.0.0.0/8", "127.0.0.1", "fd00::/8")


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
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
def test_the_last_address_that_is_no_proxy_s_is_right(peer: str, forwarded: str, address: str) -> None:
    assert ClientAddressResolver(PROXIES).resolve(peer, forwarded) == address


def test_a_proxy_on_a_unix_socket_is_believed_where_it_is_said() -> None:
    assert ClientAddressResolver(("unix",)).resolve("", "198.51.100.7") == "198.51.100.7"


ADDRESSES = st.ip_addresses().map(str) | st.sampled_from(["10.0.0.1", "127.0.0.1", "fd00::1", "unknown"])


@given(st.ip_addresses().map(str) | st.just("10.0.0.1"), st.lists(ADDRESSES, max_size=4))
def test_it_is_whom_metronome_itself_would_name(peer: str, forwarded: list[str]) -> None:
    own = ClientAddress(PROXIES).resolve(peer, forwarded)
    assert ClientAddressResolver(PROXIES).resolve(peer, ",".join(forwarded)) == own
