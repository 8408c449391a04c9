"""Metronome: self-hosted usage analytics for things that people publish."""

import zoneinfo

# Take time zones from the installed tzdata package: DuckDB and Elasticsearch bring zones of their own, which are newer
# than those of many systems, and days counted in Python must begin when the store's days do.
zoneinfo.reset_tzpath(())


def __getattr__(name: str) -> str:
    """Return ``__version__``; looking it up takes 30 ms, which no command needs."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415

        return version("metronome")
    raise AttributeError(name)
