"""Middleware for other people's Python services: each request is reported, to Metronome or to any Matomo.

Nothing here imports the service, and nothing but Python's own library is needed: a host takes no dependency of
Metronome's with it. `metronome.middleware.asgi`, `wsgi`, `django` and `aiohttp` are for frameworks,
`metronome.middleware.log_handler` is for `logging`, and all of them give what they see to one
`Reporter`.
"""

from metronome.middleware.config import ClientConfig
from metronome.middleware.current_request import describe_request
from metronome.middleware.reporter import Reporter
from metronome.middleware.stats import Stats

__all__ = ["ClientConfig", "Reporter", "Stats", "describe_request"]
