"""Fixtures of the protocols' tests: the servers of `tests.server`."""

from tests.server.conftest import crew, either, item, server

__all__ = ["crew", "either", "item", "server"]
