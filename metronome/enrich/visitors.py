"""Visitors without cookies: the same for a day, nobody from the next day on."""

from hashlib import blake2b
from typing import Final

_ID_BYTES: Final = 8
_SALT_MAX_BYTES: Final = blake2b.MAX_KEY_SIZE


def hash_visitor(salt: bytes, day: str, ip_address: str, user_agent: str, site: str) -> str:
    """Name a visitor by what the browser says anyway, under a salt that nobody has any more after some days.

    It is a keyed BLAKE2b hash (RFC 7693): who does not have the salt can neither find the address by trying all of
    them, nor tell that two names of different days are one visitor's.

    Args:
        salt: the secret of the day, of some 32 bytes; what is over 64 bytes does not count.
        day: the one that the salt is for, as ``2026-01-31``.
        ip_address: the network address, whole.
        user_agent: the user agent.
        site: the host whose pages are visited: visitors of two sites are not to be told to be the same.

    Returns:
        16 hexadecimal digits.

    """
    # The agent comes last, for it alone may hold anything, even what stands between the others.
    text = f"{day}\0{ip_address}\0{site}\0{user_agent}"
    return blake2b(text.encode("utf-8", "replace"), digest_size=_ID_BYTES, key=salt[:_SALT_MAX_BYTES]).hexdigest()
