"""What all tests share."""

import os
import signal

import hypothesis
import pytest

from tests.elasticsearch_node import elasticsearch_url
from tests.s3_server import s3, s3_environment

pytest.register_assert_rewrite(
    "tests.contracts",
    "tests.browser.chromium",
)

from tests.browser.chromium import browser, visitor  # noqa: E402  # what it asserts is to be told in full

__all__ = ["browser", "elasticsearch_url", "s3", "s3_environment", "visitor"]

# They need what `make test-clients` installs, and run with it.
collect_ignore = [] if "METRONOME_CLIENTS" in os.environ else ["programs"]

# Processes that a shell starts in the background ignore Ctrl-C, and so would those that are started here to test it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A test says what is right, not how fast it is: on a busy machine the first example alone may take too long.
hypothesis.settings.register_profile("thorough", deadline=None)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=20)
hypothesis.settings.load_profile("thorough")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name binary parameters by their argument: pytest-xdist needs the same test names in all of its workers.

    Compressed and packed bytes may contain the current time.
    """
    return argname if isinstance(val, bytes) and not val.decode("latin-1").isprintable() else None
