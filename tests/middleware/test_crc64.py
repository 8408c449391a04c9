"""The checksum by which Matomo knows visitors."""

import lzma

from hypothesis import given
from hypothesis import strategies as st

from metronome.middleware.matomo import crc64, visitor_id


def of_liblzma(data: bytes) -> int:
    """Return the CRC-64 that liblzma puts behind the only block of an .xz file (its format, sections 3 and 4)."""
    file = lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC64, preset=0)
    # The footer's backward size says how long the index is, which stands between check and footer.
    index = (int.from_bytes(file[-8:-4], "little") + 1) * 4
    return int.from_bytes(file[-12 - index - 8 : -12 - index], "little")


def test_it_has_the_published_check_value() -> None:
    assert crc64(b"123456789") == 0x995DC9BBDF1939FA


def test_it_has_the_value_that_a_package_of_node_s_documents() -> None:
    assert crc64(b"Hello") == 0x51CF5C3BC87BACC8


@given(st.binary(min_size=1, max_size=300))
def test_it_is_what_liblzma_computes(data: bytes) -> None:
    assert crc64(data) == of_liblzma(data)


@given(st.ip_addresses().map(str), st.text(max_size=200))
def test_a_visitor_is_sixteen_hexadecimal_digits_of_address_and_agent(address: str, agent: str) -> None:
    assert visitor_id(address, agent) == f"{crc64((address + agent).encode(errors='replace')):016x}"
