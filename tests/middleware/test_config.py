"""Invalid configurations are rejected."""

import re
from typing import Any

import pytest

from metronome.middleware.config import ClientConfig

INVALID = [
    ({"url": "stats.example.org"}, "invalid url"),
    ({"url": "ftp://stats.example.org"}, "invalid url"),
    ({"url": "http://[::1"}, "invalid url"),
    ({"url": "http://h:99999"}, "invalid url"),
    ({"url": "http://user:secret@stats.example.org"}, "invalid url"),
    ({"protocol": "piwik"}, "one of metronome, matomo"),
    ({"mode": "both"}, "one of response, request"),
    ({"key": "a\nb"}, "invalid key"),
    ({"queue_max": 0}, "invalid queue_max 0: expected 1 or more"),
    ({"site": 0}, "invalid site 0"),
    ({"timeout_seconds": -1.0}, "invalid timeout_seconds -1.0: expected 0 or more"),
    ({"skip": "/health"}, "expected a tuple, as ('/health',)"),
    ({"trusted_proxies": ("10.0.0.0/99",)}, "invalid trusted proxy"),
    ({"item_pattern": "("}, "invalid item_pattern"),
    ({"item_pattern": "^/x/(.*)"}, "expected a group named id"),
]


@pytest.mark.parametrize(("values", "message"), INVALID)
def test_rejects_an_invalid_value_and_names_a_valid_one(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ClientConfig(**({"url": "https://stats.example.org"} | values))


def test_the_key_is_hidden_from_repr() -> None:
    assert "secret" not in repr(ClientConfig(url="https://stats.example.org", key="secret"))
