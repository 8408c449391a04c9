"""Names for events that bring none, so that each is known again wherever it goes."""

import hashlib
import secrets
from collections.abc import Iterator
from itertools import count


def own_identities() -> Iterator[str]:
    """Name events for ever uniquely: by 80 random bits of this process, in order within it."""
    process = secrets.token_hex(10)
    return map(f"{process}-%08x".__mod__, count())


def identities_again(key: str, address: str, body: bytes) -> Iterator[str]:
    """Name the events of a request that may come again with its idempotency key.

    Two senders may well use the same key: only the same request is the same.

    Args:
        key: what the sender says again.
        address: the request's path and query.
        body: its body, decoded.

    """
    return identities_of(f"{key}\n{address}\n".encode(errors="backslashreplace") + body)


def identities_of(content: str | bytes) -> Iterator[str]:
    """Name the events of something that may come again, by what it is and their position in it.

    Args:
        content: a chunk's id, or the whole of a request.

    """
    seed = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    return map(f"{hashlib.blake2b(seed, digest_size=16).hexdigest()}-%d".__mod__, count())
