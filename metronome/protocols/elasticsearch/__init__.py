"""Elasticsearch's protocol for sending events, so that its clients and shippers can send to Metronome unchanged."""

from typing import Final

from metronome.protocol import Endpoint
from metronome.protocols.elasticsearch import protocol

ENDPOINTS: Final = tuple(
    Endpoint(method, "/es", path, protocol, allow_credentials=False)
    for path in ("", r"/{path:[\s\S]*}")
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE")
)
