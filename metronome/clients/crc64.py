"""CRC-64/XZ: the polynomial of ECMA-182, bits reflected, all ones before and after.

Source: https://reveng.sourceforge.io/crc-catalogue/17plus.htm#crc.cat.crc-64-xz. It is what the CRC-64 packages of
Node compute, also those that call themselves ECMA-182, and what liblzma does. A library of its own is not worth being
asked of every host: what is hashed is short, and remembered.
"""

from functools import lru_cache
from typing import Final

_POLYNOMIAL: Final = 0xC96C5795D7870F42
"""0x42F0E1EBA9EA3693 from its last bit to its first."""
_ONES: Final = 0xFFFFFFFFFFFFFFFF
_REMEMBERED: Final = 4096


def _step(remainder: int) -> int:
    for _ in range(8):
        remainder = (remainder >> 1) ^ (_POLYNOMIAL if remainder & 1 else 0)
    return remainder


_TABLE: Final = tuple(map(_step, range(256)))


def crc64(data: bytes) -> int:
    """Return the checksum of bytes, a number of 64 bits."""
    table, remainder = _TABLE, _ONES
    for byte in data:
        remainder = table[(remainder ^ byte) & 0xFF] ^ (remainder >> 8)
    return remainder ^ _ONES


@lru_cache(_REMEMBERED)
def visitor_of(address: str, agent: str) -> str:
    """Return by what Matomo is to know a visitor: 16 hexadecimal digits, of the address and the user agent."""
    return f"{crc64((address + agent).encode(errors='replace')):016x}"
