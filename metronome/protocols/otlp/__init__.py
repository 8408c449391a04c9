"""OpenTelemetry's OTLP over HTTP: log records of its SDKs, its collector and other forwarders."""

from typing import Final

from metronome.protocol import Endpoint
from metronome.protocols.otlp import protocol

ENDPOINTS: Final = (Endpoint("POST", "", "/v1/logs", protocol),)
