"""Protocols: one module or package for each, with its parser, replies, and routes or listener."""
