"""Queries: parsed from a query string or from JSON, run, and returned as a table."""
