"""What commands print: lines on standard output; notes and progress on standard error."""

import os
import sys
import webbrowser
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final

import typer


def sanitize_for_terminal(text: str) -> str:
    """Replace characters that could control a terminal: logs and events contain whatever clients send."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines on standard output."""
    for line in lines:
        typer.echo(sanitize_for_terminal(line))


def print_response(body: bytes) -> None:
    """Print the body of a response unchanged on standard output."""
    typer.echo(body, nl=not body.endswith(b"\n"))


def print_note(text: str) -> None:
    """Print a remark on standard error, so that it does not get into a pipe."""
    # Not `typer.echo`, which would write past the progress bar, into its line.
    sys.stderr.write(f"{sanitize_for_terminal(text)}\n")


def note_pending(count: int) -> None:
    """Print that a report may lack accepted events."""
    print_note(f"up to {count:,} accepted events are not in the store yet and missing here: repeat the command later")


_DRAW_INTERVAL_SECONDS: Final = 0.1
_DISPLAY_VARIABLES: Final = ("DISPLAY", "WAYLAND_DISPLAY")


class Progress:
    """A progress bar with a text, redrawn at most ten times a second.

    Args:
        bar: where to draw; None to draw nothing.

    """

    def __init__(self, bar: Any = None) -> None:
        self._bar = bar
        self._task = None if bar is None else bar.add_task("", total=None, text="")
        self._completed = 0.0
        self._next_draw = 0.0
        self._started_at = monotonic()

    def start(self, total: float | None, text: str = "") -> None:
        """Set the total if it is known, and measure rates from now on."""
        self._started_at = monotonic()
        if self._bar is not None:
            self._bar.update(self._task, total=total, text=text)

    def advance(self, amount: float = 1, text: Callable[[], str] | None = None) -> None:
        """Add an amount to what is completed; *text* is called to get the new text when it is redrawn."""
        self._completed += amount
        if self._bar is None:
            return
        now = monotonic()
        if now >= self._next_draw:
            self._next_draw = now + _DRAW_INTERVAL_SECONDS
            changes = {} if text is None else {"text": text()}
            self._bar.update(self._task, completed=self._completed, **changes)

    def rate(self, count: float) -> float:
        """Return how many of *count* there were per second since the start."""
        return count / max(monotonic() - self._started_at, 0.001)


@contextmanager
def show_progress(*, has_total: bool = True) -> Iterator[Progress]:
    """Show progress on standard error while the block runs, if that is a terminal.

    Args:
        has_total: whether to show a bar and the remaining time; otherwise a spinner.

    """
    if not sys.stderr.isatty():
        yield Progress()
        return
    from rich import progress  # noqa: PLC0415  # it takes 60 ms, and is only needed at a terminal
    from rich.console import Console  # noqa: PLC0415

    text = progress.TextColumn("{task.fields[text]}", markup=False)
    bar = (progress.BarColumn(), progress.TaskProgressColumn(), text, progress.TimeRemainingColumn())
    columns = bar if has_total else (progress.SpinnerColumn(), text)
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as drawn:
        yield Progress(drawn)


def can_open_browser() -> bool:
    """Return whether the user is at a terminal of a computer with a display."""
    return sys.stdout.isatty() and any(map(os.environ.get, _DISPLAY_VARIABLES))


def open_browser(url: str) -> None:
    """Open a URL in the user's browser."""
    webbrowser.open(url)
