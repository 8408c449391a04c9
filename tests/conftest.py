"""What all tests share."""

import os

import pytest

from .elasticsearch_node import elasticsearch_url

__all__ = ["elasticsearch_url"]

# They need what `make test-clients` installs, and run with it.
collect_ignore = [] if "METRONOME_CLIENTS" in os.environ else ["clients"]

pytest.register_assert_rewrite("metronome.stores.conformance", "metronome.state.conformance")
