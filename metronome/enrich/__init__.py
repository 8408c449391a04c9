"""Enrichment: fields derived from an event, such as browser, country and channel, by pure functions."""
