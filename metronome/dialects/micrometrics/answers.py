"""What the addresses of micro-metrics have in common: where the key lies, and how errors look.

Errors have the shape of the web framework that micro-metrics is made with:
``{"statusCode":400,"error":"Bad Request","message":"…"}``.
"""

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from metronome.dialects.credentials import bearer
from metronome.dialects.dialect import Reply, Request
from metronome.dialects.problems import headers_of, sentence
from metronome.errors import MetronomeError, TooLarge

KEY: Final = "key"
"""The parameter in the address that may hold the key."""
_PARAMETERS_MAX: Final = 1000


def key_of(request: Request) -> str:
    """Return the key of ``Authorization: Bearer …`` or of ``?key=…``, or nothing."""
    return bearer(request.headers) or dict(read_query(request.query)).get(KEY, "")


def read_query(query: str) -> list[tuple[str, str]]:
    """Read the parameters of an address or a form, empty ones too; what is no UTF-8 becomes U+FFFD.

    Raises:
        TooLarge: there are more than anyone needs.

    """
    try:
        return parse_qsl(
            query.encode(errors="replace").decode(), keep_blank_values=True, max_num_fields=_PARAMETERS_MAX
        )
    except ValueError:
        raise TooLarge(f"there are over {_PARAMETERS_MAX} parameters: send fewer, or send JSON") from None


def failure(error: MetronomeError, status: int) -> dict[str, Any]:
    """Describe an error in the protocol's own shape."""
    return {"statusCode": status, "error": HTTPStatus(status).phrase, "message": sentence(error)}


def refusal(error: MetronomeError, status: int) -> Reply:
    """Answer with an error in the protocol's own shape."""
    return Reply(status, orjson.dumps(failure(error, status)), "application/json", headers_of(error))
