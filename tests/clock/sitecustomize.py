"""Loaded by every Python process that runs under libfaketime (see `make test-clock`): repair ``time.sleep``.

Python sleeps until an absolute time of the monotonic clock. libfaketime up to 0.9.10 (Debian 12) shifts that time by
the faked offset even if it is told to leave the monotonic clock alone, so that ``time.sleep`` fails with EINVAL.
"""

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex, /) -> None:
    select.select([], [], [], seconds if isinstance(seconds, float) else int(seconds))


time.sleep = _sleep
