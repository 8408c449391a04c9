"""JSON as it goes out: whatever a host gives, what comes out can be read.

``orjson`` writes it where it is installed, in a tenth of the time.
"""

import json
import math
from datetime import date
from typing import Any

try:
    from orjson import dumps as _dumps
except ImportError:
    _dumps = None  # type: ignore[assignment]  # a host need not have it

_INTEGER_RANGE = range(-(2**63), 2**64)
_MAX_DEPTH = 20


def encode_json(value: Any) -> bytes:
    """Return a value as JSON; what JSON has no form for becomes text."""
    if _dumps is not None:
        try:
            return _dumps(value)
        except TypeError:
            # A long number, half a character, or an object of the host's own.
            pass
    return json.dumps(_to_plain(value, 0), separators=(",", ":"), ensure_ascii=False).encode()


def _to_plain(value: Any, depth: int) -> Any:  # noqa: PLR0911  # one for each kind of value
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if value in _INTEGER_RANGE else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth < _MAX_DEPTH and isinstance(value, dict):
        return {_to_plain(str(name), depth): _to_plain(inner, depth + 1) for name, inner in value.items()}
    if depth < _MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [_to_plain(inner, depth + 1) for inner in value]
    return value.isoformat() if isinstance(value, date) else _to_plain(str(value), depth)
