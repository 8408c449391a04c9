"""Metronome: self-hosted usage analytics for things that people publish."""


def __getattr__(name: str) -> str:
    """Return ``__version__``; looking it up takes 30 ms, which no command needs."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415

        return version("metronome")
    raise AttributeError(name)
