"""Messages of errors, folded so that those of one fault are one."""

import re
from functools import lru_cache
from typing import Final

_FINGERPRINT_MAX_CHARACTERS: Final = 256
_MESSAGE_MAX_CHARACTERS: Final = 512
_CACHED_MAX_CHARACTERS: Final = 512

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
"""What differs between two messages of one fault. Each of these needs a digit, a quotation mark, an ``@``, ``=`` or
``:``, of which no placeholder has any: so folding again and again comes to an end."""


def error_fingerprint(message: str) -> str:
    """Put placeholders in the place of all that differs between messages of one fault.

    Numbers become ``<n>``, hexadecimal and other ids ``<id>``, UUIDs ``<uuid>``, addresses of memory ``<address>``,
    those of the network ``<ip>``, what stands in quotation marks ``<text>``, a URL's query ``<query>``, a whole
    ``data:`` or ``blob:`` ``<url>``, times ``<time>``, addresses of mail ``<email>``. A status of HTTP stays, for two
    of them are two faults. White space is one space.

    Args:
        message: of any length; what comes after 512 characters does not count.

    Returns:
        At most 256 characters; folded once more they stay as they are.

    """
    return _fingerprint_cached(message) if len(message) <= _CACHED_MAX_CHARACTERS else _fingerprint_uncached(message)


def _fingerprint_uncached(message: str) -> str:
    text = _replace_variable_parts(message[:_MESSAGE_MAX_CHARACTERS])
    while (again := _replace_variable_parts(text)) != text:
        text = again
    # Cutting can part what belonged together, and a placeholder is longer than a digit.
    text = " ".join(text[:_FINGERPRINT_MAX_CHARACTERS].split())
    while (again := " ".join(_replace_variable_parts(text)[:_FINGERPRINT_MAX_CHARACTERS].split())) != text:
        text = again
    return text


_fingerprint_cached = lru_cache(maxsize=8_192)(_fingerprint_uncached)


def _replace_variable_parts(text: str) -> str:
    return _VARIABLE_PARTS.sub(_placeholder, " ".join(text.split()))


def _placeholder(found: re.Match[str]) -> str:
    kind = found.lastgroup
    return found[0] if kind == "kept" else f"?<{kind}>" if kind == "query" else f"<{kind}>"
