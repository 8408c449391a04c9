"""Metronome: self-hosted usage analytics for things that people publish."""

import zoneinfo
from importlib.metadata import version

__version__ = version("metronome")

# Take time zones from the installed tzdata package: DuckDB and Elasticsearch bring zones of their own, which are newer
# than those of many systems, and days counted in Python must begin when the store's days do.
zoneinfo.reset_tzpath(())
