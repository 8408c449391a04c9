"""What all tests share."""

import os

import pytest

from .elasticsearch_node import elasticsearch_url

pytest.register_assert_rewrite("metronome.stores.conformance", "metronome.state.conformance", "tests.browser.chromium")

from .browser.chromium import browser, visitor  # noqa: E402  # what it asserts is to be told in full

__all__ = ["browser", "elasticsearch_url", "visitor"]

# They need what `make test-clients` installs, and run with it.
collect_ignore = [] if "METRONOME_CLIENTS" in os.environ else ["clients"]
