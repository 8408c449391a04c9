"""The checksum in Matomo's visitor IDs."""

import lzma

from hypothesis import given
from hypothesis import strategies as st

from metronome.middleware.matomo import crc64, visitor_id


def liblzma_crc64(data: bytes) -> int:
    """Return the CRC-64 that liblzma writes after the only block of an .xz file (sections 3 and 4 of its format)."""
    file = lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC64, preset=0)
    # The footer's backward size is the length of the index, which is between check and footer.
    index = (int.from_bytes(file[-8:-4], "little") + 1) * 4
    return int.from_bytes(file[-12 - index - 8 : -12 - index], "little")


def test_matches_the_published_check_value() -> None:
    assert crc64(b"123456789") == 0x995DC9BBDF1939FA


def test_matches_the_documented_value_of_a_node_package() -> None:
    assert crc64(b"Hello") == 0x51CF5C3BC87BACC8


@given(st.binary(min_size=1, max_size=300))
def test_matches_liblzma(data: bytes) -> None:
    assert crc64(data) == liblzma_crc64(data)


@given(st.ip_addresses().map(str), st.text(max_size=200))
def test_a_visitor_id_is_the_checksum_of_address_and_user_agent(address: str, agent: str) -> None:
    assert visitor_id(address, agent) == f"{crc64((address + agent).encode(errors='replace')):016x}"
