"""The response to a tracking pixel: a transparent GIF image of one pixel."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from metronome.errors import MetronomeError, describe_to_client
from metronome.protocol import Reply

TRANSPARENT_GIF: Final = bytes.fromhex(
    "474946383961 0100 0100 80 00 00"  # GIF89a of 1 by 1, with a palette of two
    "000000 ffffff"  # its colours
    "21f904 01 0000 00 00"  # the first one is transparent
    "2c 0000 0000 0100 0100 00"  # an image of 1 by 1
    "02 02 4401 00 3b"  # its pixel, compressed, and the end
)
"""43 bytes, by the GIF89a specification."""

ERROR_HEADER: Final = "X-Metronome-Error"

_NO_CACHE_HEADERS: Final = {
    "Cache-Control": "no-store, no-cache, max-age=0, must-revalidate, private",
    "Pragma": "no-cache",
    "Expires": "0",
}
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_ERROR_MAX_CHARACTERS: Final = 500


def gif_reply(headers: Mapping[str, str] = _NO_HEADERS) -> Reply:
    """Return the image with status 200; caches do not keep it.

    Args:
        headers: additional headers.

    """
    return Reply(200, TRANSPARENT_GIF, "image/gif", {**_NO_CACHE_HEADERS, **headers})


def gif_error_reply(error: MetronomeError) -> Reply:
    """Return the image with status 200, so that pages do not show a broken image; a header has the error."""
    return gif_reply(
        {ERROR_HEADER: to_header_text(describe_to_client(error)), "Access-Control-Expose-Headers": ERROR_HEADER}
    )


def to_header_text(text: str) -> str:
    """Return a text as a valid header value: printable ASCII, truncated."""
    printable = "".join(character if " " <= character <= "~" else "?" for character in text)
    return printable[:_ERROR_MAX_CHARACTERS]
