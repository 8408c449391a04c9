"""Metronome: self-hosted usage analytics for things that people publish."""

from importlib.metadata import version

__version__ = version("metronome")
