"""A configuration that cannot be is refused where it is written."""

import re
from typing import Any

import pytest

from metronome.middleware.config import ClientConfig

WRONG = [
    ({"url": "stats.example.org"}, "no web address"),
    ({"url": "ftp://stats.example.org"}, "no web address"),
    ({"url": "http://[::1"}, "no web address"),
    ({"url": "http://h:99999"}, "no web address"),
    ({"url": "http://user:secret@stats.example.org"}, "no web address"),
    ({"protocol": "piwik"}, "one of metronome, matomo"),
    ({"mode": "both"}, "one of response, request"),
    ({"key": "a\nb"}, "the key"),
    ({"queue_max": 0}, "queue_max is 0"),
    ({"site": 0}, "site is 0"),
    ({"timeout_seconds": -1.0}, "timeout_seconds is -1.0"),
    ({"skip": "/health"}, "write a tuple, as ('/health',)"),
    ({"trusted_proxies": ("10.0.0.0/99",)}, "no network"),
    ({"item_pattern": "("}, "no regular expression"),
    ({"item_pattern": "^/x/(.*)"}, "needs a group named id"),
]


@pytest.mark.parametrize(("given", "said"), WRONG)
def test_what_cannot_be_is_refused_with_what_to_write(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        ClientConfig(**({"url": "https://stats.example.org"} | given))


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(ClientConfig(url="https://stats.example.org", key="secret"))
