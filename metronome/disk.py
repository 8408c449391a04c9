"""What is on the disk, and stays there if the machine loses power."""

import os
from pathlib import Path


def synchronise(path: Path) -> None:
    """Return once the disk has a file's bytes, or a folder's list of files."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
