"""What the hosts of the tests are told: a client's configuration, in the environment."""

import json
import os
from typing import Any

from metronome.middleware import ClientConfig, Reporter

ENVIRONMENT = "TEST_CLIENT"


def reporter() -> Reporter:
    """Make the reporter that a test has asked for."""
    given: dict[str, Any] = json.loads(os.environ[ENVIRONMENT])
    # JSON has no tuples.
    config: dict[str, Any] = {name: tuple(value) if type(value) is list else value for name, value in given.items()}
    return Reporter(ClientConfig(**config))
