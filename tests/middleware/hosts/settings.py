"""The reporter of the tests' hosts, whose configuration is in an environment variable."""

import json
import os
from typing import Any

from metronome.middleware import ClientConfig, Reporter

ENVIRONMENT = "TEST_CLIENT"


def reporter() -> Reporter:
    """Return a reporter with the test's configuration."""
    values: dict[str, Any] = json.loads(os.environ[ENVIRONMENT])
    # JSON has no tuples.
    config: dict[str, Any] = {name: tuple(value) if type(value) is list else value for name, value in values.items()}
    return Reporter(ClientConfig(**config))
