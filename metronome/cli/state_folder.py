"""Where commands keep, for the user who runs them, how far they have come."""

import os
from pathlib import Path


def state_folder() -> Path:
    """Return the folder, which need not be there yet.

    Source: https://specifications.freedesktop.org/basedir-spec/latest/.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return folder / "metronome"
