"""What all tests share."""

import pytest

from .elasticsearch_node import elasticsearch_url

__all__ = ["elasticsearch_url"]

pytest.register_assert_rewrite("metronome.stores.conformance")
