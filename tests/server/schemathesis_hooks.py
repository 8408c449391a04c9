"""Teaches schemathesis to send NDJSON; loaded by SCHEMATHESIS_HOOKS."""

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def serialize_ndjson(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """Return a text as it is, and any other value as a line of JSON."""
    # Unlike orjson, json also writes integers of over 64 bits.
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text.encode(errors="replace")
