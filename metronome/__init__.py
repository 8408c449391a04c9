"""Metronome: self-hosted usage analytics for things that people publish."""

from typing import Final

__version__: Final = "0.1.0"
