"""``metronome --version``: the versions that a bug report needs."""

import platform
import sqlite3
from importlib.metadata import PackageNotFoundError, version

from metronome import __version__


def format_version() -> str:
    """Return the versions of Metronome, of Python and of the stores' libraries, in two lines."""
    return (
        f"metronome {__version__}\n"
        f"Python {platform.python_version()}, DuckDB {_package_version('duckdb')}, SQLite {sqlite3.sqlite_version}, "
        f"Elasticsearch client {_package_version('elasticsearch')}"
    )


def _package_version(name: str) -> str:
    """Return the version of an installed package from its metadata, which takes less time than importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
