"""Names for events that bring none, so that each is known again wherever it goes."""

import hashlib
import secrets
from collections.abc import Iterator
from itertools import count


def own_identities() -> Iterator[str]:
    """Name events for ever uniquely: by 80 random bits of this process, in order within it."""
    process = secrets.token_hex(10)
    return map(f"{process}-%08x".__mod__, count())


def identities_of(content: str | bytes) -> Iterator[str]:
    """Name the events of something that may come again, by what it is and their position in it.

    Args:
        content: an idempotency key, a chunk's id, or the whole of a request.

    """
    seed = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    return map(f"{hashlib.blake2b(seed, digest_size=16).hexdigest()}-%d".__mod__, count())
