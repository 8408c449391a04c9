"""The embedded store: one DuckDB file, nothing to install."""

from metronome.stores.duckdb.store import DuckDBStore

__all__ = ["DuckDBStore"]
