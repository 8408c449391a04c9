"""The bars that show how far a command is: in a terminal only, and gone when it is done."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TimeRemainingColumn


@contextmanager
def progress_bar(*columns: ProgressColumn) -> Iterator[Progress]:
    """Show a bar, what the columns say of its task, and how long it will take, while the block runs."""
    console = Console(stderr=True)
    everything = (BarColumn(), *columns, TimeRemainingColumn())
    with Progress(*everything, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield progress
