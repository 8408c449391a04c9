"""Middleware for Python services: reports each request to Metronome or to any Matomo.

The package needs only Python's standard library, so that a service takes on no dependency. `metronome.middleware.asgi`,
`wsgi`, `django` and `aiohttp` are adapters for frameworks, `metronome.middleware.log_handler` is one for `logging`; all
of them hand their records to a `Reporter`.
"""

from metronome.middleware.config import ClientConfig
from metronome.middleware.current_request import describe_request
from metronome.middleware.reporter import Reporter
from metronome.middleware.transport import Stats

__all__ = ["ClientConfig", "Reporter", "Stats", "describe_request"]
