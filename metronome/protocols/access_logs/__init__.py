"""Formats of access logs: each module knows one way in which web servers write hits."""
