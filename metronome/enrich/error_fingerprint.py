"""Fingerprints of error messages: messages of the same error have the same one."""

import re
from typing import Final

from metronome.enrich.caches import cached

_FINGERPRINT_MAX_CHARACTERS: Final = 256
_MESSAGE_MAX_CHARACTERS: Final = 512

_VARIABLE_PARTS: Final = re.compile(
    r"""
      (?P<kept> <(?:n|id|uuid|url|query|email|time|text|address|ip)>
              | (?:\bstatus(?:[ ]code)?|\bHTTP)[ :=]{0,3}[1-5]\d\d\b )
    | (?P<url> \b(?:data|blob):[^\s"'<>()]+ )
    | (?P<query> (?<=[\w/.~-]) \? [\w.~%+\[\]-]{1,64}+ = [^\s"'<>()]* )
    | (?P<email> (?<![\w.+-]) [\w.+-]{1,64}+ @ [\w-]{1,63}+ (?:\.[\w-]{1,63}+){1,8} )
    | (?P<uuid> \b[0-9a-f]{8} (?:-[0-9a-f]{4}){3} - [0-9a-f]{12}\b )
    | (?P<time> \b\d{4}-\d\d-\d\d (?:[T ]\d\d:\d\d (?::\d\d (?:[.,]\d{1,9})? )? (?:[ ]?Z\b|[ ]?[+-]\d\d:?\d\d\b)? )?
              | \b\d\d?:\d\d:\d\d (?:[.,]\d{1,9})? )
    | (?P<ip> \b\d{1,3} (?:\.\d{1,3}){3} (?::\d{1,5})? \b | \b(?:[0-9a-f]{1,4}:){3,7} (?::?[0-9a-f]{1,4}\b|:) )
    | (?P<address> \b0x[0-9a-f]+ )
    | (?P<id> \b (?=[a-f]{0,64}\d) (?=\d{0,64}[a-f]) [0-9a-f]{8,}\b
            | \b (?=(?:[a-z_-]{0,64}\d){3}) [\w-]{20,}\b )
    | (?P<text> "[^"]{0,200}" | `[^`]{0,200}` | (?<![\w'>])'[^']{0,200}'(?!\w)
              | [“«„][^”»“]{0,200}[”»“] | ‘[^‘’]{0,200}’ )
    | (?P<n> (?:(?<![\w>)\]-])[+-])? \d+ (?:[.,](?![0-9a-f]{8})\d+)* (?:e[+-]\d+)? )
    """,  # noqa: RUF001
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
"""What differs between messages of the same error. Each part needs a digit, a quotation mark, an ``@``, ``=`` or
``:``, and no placeholder has one of these, so repeated replacement comes to an end."""


@cached(_MESSAGE_MAX_CHARACTERS, size=8_192)
def error_fingerprint(message: str) -> str:
    """Return an error message with placeholders for everything that differs between messages of the same error.

    Numbers become ``<n>``, hexadecimal and other IDs ``<id>``, UUIDs ``<uuid>``, memory addresses ``<address>``,
    IP addresses ``<ip>``, quoted text ``<text>``, a URL's query ``<query>``, a ``data:`` or ``blob:`` URL ``<url>``,
    times ``<time>``, and email addresses ``<email>``. An HTTP status is kept: it distinguishes errors. White space
    becomes a single space.

    Args:
        message: only its first 512 characters count.

    Returns:
        At most 256 characters. The fingerprint of a fingerprint is the same.

    """
    text = _replace_variable_parts(message[:_MESSAGE_MAX_CHARACTERS])
    while (again := _replace_variable_parts(text)) != text:
        text = again
    # Truncation can split a part, and a placeholder is longer than a digit.
    text = " ".join(text[:_FINGERPRINT_MAX_CHARACTERS].split())
    while (again := " ".join(_replace_variable_parts(text)[:_FINGERPRINT_MAX_CHARACTERS].split())) != text:
        text = again
    return text


def _replace_variable_parts(text: str) -> str:
    return _VARIABLE_PARTS.sub(_placeholder, " ".join(text.split()))


def _placeholder(found: re.Match[str]) -> str:
    kind = found.lastgroup
    return found[0] if kind == "kept" else f"?<{kind}>" if kind == "query" else f"<{kind}>"
