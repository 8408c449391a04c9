"""Teaches schemathesis to send NDJSON; loaded by SCHEMATHESIS_HOOKS."""

from typing import Any

import orjson
import schemathesis


@schemathesis.serializer("application/x-ndjson")
def serialize_ndjson(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """Return a text as it is, and any other value as a line of JSON."""
    return value.encode(errors="replace") if isinstance(value, str) else orjson.dumps(value, default=str)
