"""The picture that pixels are answered with: one transparent point."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from metronome.errors import MetronomeError, describe_to_client
from metronome.protocol import Reply

TRANSPARENT_GIF: Final = bytes.fromhex(
    "474946383961 0100 0100 80 00 00"  # GIF89a of 1 by 1, with a palette of two
    "000000 ffffff"  # its colours
    "21f904 01 0000 00 00"  # the first of them is transparent
    "2c 0000 0000 0100 0100 00"  # a picture of 1 by 1
    "02 02 4401 00 3b"  # its point, compressed, and the end
)
"""43 bytes, as the GIF89a specification has it."""

ERROR_HEADER: Final = "X-Metronome-Error"

_NO_CACHE_HEADERS: Final = {
    "Cache-Control": "no-store, no-cache, max-age=0, must-revalidate, private",
    "Pragma": "no-cache",
    "Expires": "0",
}
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_ERROR_MAX_CHARACTERS: Final = 500


def gif_reply(headers: Mapping[str, str] = _NO_HEADERS) -> Reply:
    """Answer 200 with the picture, to be kept by no cache.

    Args:
        headers: to be added.

    """
    return Reply(200, TRANSPARENT_GIF, "image/gif", {**_NO_CACHE_HEADERS, **headers})


def gif_error_reply(error: MetronomeError) -> Reply:
    """Answer 200 with the picture all the same: a page must not show a broken one. A header says what is wrong."""
    return gif_reply(
        {ERROR_HEADER: to_header_text(describe_to_client(error)), "Access-Control-Expose-Headers": ERROR_HEADER}
    )


def to_header_text(text: str) -> str:
    """Bring a text into a form that may stand in a header: printable ASCII, not too long."""
    printable = "".join(character if " " <= character <= "~" else "?" for character in text)
    return printable[:_ERROR_MAX_CHARACTERS]
