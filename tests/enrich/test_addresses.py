"""Anonymized IP addresses do not identify a household."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.enrich.addresses import anonymize_address, normalize_address


@pytest.mark.parametrize(
    ("address", "cut", "whole"),
    [
        ("203.0.113.77", "203.0.113.0", "203.0.113.77"),
        ("255.255.255.255", "255.255.255.0", "255.255.255.255"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::", "2001:db8:1:2:3:4:5:6"),
        ("2001:DB8:0001::00FF", "2001:db8:1::", "2001:db8:1::ff"),
        ("::1", "::", "::1"),
        ("::ffff:203.0.113.77", "203.0.113.0", "203.0.113.77"),
        ("fe80::1%eth0", "fe80::", "fe80::1"),
        ("203.0.113.77:4711", "203.0.113.0", "203.0.113.77"),
        ("[2001:db8:1:2::3]:4711", "2001:db8:1::", "2001:db8:1:2::3"),
        ("203.0.113.77, 198.51.100.9", "203.0.113.0", "203.0.113.77"),
    ],
)
def test_normalizes_and_anonymizes_addresses(address: str, cut: str, whole: str) -> None:
    assert (anonymize_address(address), normalize_address(address)) == (cut, whole)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "unknown",
        "203.0.113",
        "203.0.113.256",
        "0203.0.113.1",
        "203.0.113.7:80:90",
        "[]",
        "1::2::3",
        "1" * 100_000,
    ],
)
def test_invalid_address_is_none(text: str) -> None:
    assert anonymize_address(text) is None
    assert normalize_address(text) is None


@given(st.ip_addresses(v=4), st.integers(0, 255))
def test_ipv4_addresses_of_a_network_are_anonymized_alike(address: IPv4Address, last: int) -> None:
    neighbour = IPv4Address((int(address) & ~255) | last)
    assert anonymize_address(str(neighbour)) == anonymize_address(str(address))


@given(st.integers(2**64, 2**128 - 1).map(IPv6Address), st.integers(0, 2**80 - 1))
def test_ipv6_addresses_of_a_network_are_anonymized_alike(address: IPv6Address, rest: int) -> None:
    neighbour = IPv6Address((int(address) >> 80 << 80) | rest)
    if neighbour.ipv4_mapped is None:
        assert anonymize_address(str(neighbour)) == anonymize_address(str(address))


@given(st.one_of(st.ip_addresses().map(str), st.text(max_size=70)))
def test_normalizing_and_anonymizing_are_idempotent(text: str) -> None:
    for work in (anonymize_address, normalize_address):
        found = work(text)
        if found is not None:
            assert work(found) == found
            assert str(ip_address(found)) == found
