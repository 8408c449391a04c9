"""What all tests share."""

import os

import hypothesis
import pytest

from .elasticsearch_node import elasticsearch_url
from .s3_server import s3, s3_environment

__all__ = ["elasticsearch_url", "s3", "s3_environment"]

# They need what `make test-clients` installs, and run with it.
collect_ignore = [] if "METRONOME_CLIENTS" in os.environ else ["clients"]

pytest.register_assert_rewrite(
    "metronome.archives.conformance", "metronome.stores.conformance", "metronome.state.conformance"
)

# A test says what is right, not how fast it is: on a busy machine the first example alone may take too long.
hypothesis.settings.register_profile("metronome", deadline=None)
hypothesis.settings.load_profile("metronome")
