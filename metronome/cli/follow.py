"""Follows logs as they grow, and sends each hit as soon as it is there, until it is told to stop."""

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from types import FrameType
from typing import Final, NamedTuple, NoReturn

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from metronome.cli.follow_positions import Inode, Position, Positions
from metronome.cli.follow_trail import Trail, Wire
from metronome.cli.log_batches import Batch, Plan
from metronome.cli.log_files import STANDARD_INPUT
from metronome.cli.sender import Answer, Sender
from metronome.cli.tally import Notes, Tally
from metronome.errors import Misconfigured

_POLL_SECONDS: Final = 0.25
_SAVE_SECONDS: Final = 1.0
_TELL_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 2.0
"""For so long what is on its way may be answered after the command was told to stop."""
_EXITS: Final = {signal.SIGINT: 130, signal.SIGTERM: 0}


class Following(NamedTuple):
    """What is followed, and where it goes.

    Attributes:
        files: the paths at which the logs are written.
        plan: how they are to be read.
        url: the server.
        key: is shown to the server, if it asks for one.
        positions: the file that says how far the logs were taken before.
        tell: tells the operator a sentence.

    """

    files: list[str]
    plan: Plan
    url: str
    key: str | None
    positions: Path
    tell: Callable[[str], None]


class _Stopped(BaseException):
    """Somebody wants the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = _EXITS[signal.Signals(number)]


def follow(following: Following, tally: Tally) -> int:
    """Follow logs until SIGINT or SIGTERM.

    Args:
        following: what is followed, and where it goes.
        tally: counts each line.

    Returns:
        The exit status.

    Raises:
        Misconfigured: a log cannot be followed, positions cannot be kept, or there is no Metronome at the address.
        CallerError: the server refuses to take anything of the kind; the message has its reason.

    """
    if STANDARD_INPUT in following.files:
        raise Misconfigured("standard input cannot be followed: it is read to its end anyway, so leave out --follow")
    try:
        with _stoppable():
            _run(following, Positions(following.positions), tally)
    except _Stopped as stop:
        return stop.exit_code


def _run(following: Following, positions: Positions, tally: Tally) -> NoReturn:
    def count(answer: Answer[Batch]) -> None:
        tally.accepted += answer.accepted
        for place, reason in answer.rejected:
            tally.rejected.add(answer.batch.log, place, reason)
        answer.batch.done()

    with Sender(following.url, count, math.inf, following.key, _seldom(following.tell)) as sender:
        wire = Wire(following.url.rstrip("/"), sender.send, sender.finish, following.tell)
        trails: list[Trail] = []
        try:
            trails.extend(
                Trail(path, following.plan, tally, positions, wire) for path in dict.fromkeys(following.files)
            )
            for trail in trails:
                trail.start()
            _go_on(trails, sender, positions, tally, following.tell)
        except _Stopped:
            _ignore_signals()
            sender.settle(_STOP_SECONDS)
            raise
        finally:
            positions.save(_positions(trails))
            for trail in trails:
                trail.close()


def _go_on(
    trails: list[Trail], sender: Sender[Batch], positions: Positions, tally: Tally, tell: Callable[[str], None]
) -> NoReturn:
    saved, logs = -math.inf, list[Inode]()
    unreadable, rejected = _seldom(tell), _seldom(tell)
    with _status(trails, tally) as show:
        while True:
            found = _positions(trails)
            is_due = monotonic() - saved >= _SAVE_SECONDS
            if is_due or [one.inode for one in found] != logs:
                # That a log is followed must be known before it can be rotated away.
                positions.save(found)
                saved, logs = monotonic(), [one.inode for one in found]
                _tell_last(tally.unreadable, "could not be read", unreadable)
                _tell_last(tally.rejected, "were rejected by the server", rejected)
            show()
            news = [trail.poll() for trail in trails]
            sender.collect()
            if not any(news):
                sleep(_POLL_SECONDS)


def _positions(trails: list[Trail]) -> list[Position]:
    return [position for trail in trails for position in trail.positions()]


def _tell_last(notes: Notes, what: str, tell: Callable[[str], None]) -> None:
    if notes.last is not None:
        tell(f"{notes.count:,} lines {what}; the last is {notes.last.log}, {notes.last.place}: {notes.last.reason}")


def _seldom(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Return what tells once a minute at the most, and nothing that was told just before."""
    last = ("", -math.inf)

    def told(sentence: str) -> None:
        nonlocal last
        if monotonic() - last[1] >= _TELL_SECONDS:
            last = (sentence, monotonic())
            tell(sentence)

    return told


@contextmanager
def _status(trails: list[Trail], tally: Tally) -> Iterator[Callable[[], None]]:
    """Show a line in a terminal: lines, their rate, and how much has not been read yet."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.fields[lines]}"))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("follow", total=None, lines="")
        before, since = tally.lines, monotonic()
        rate = 0.0

        def show() -> None:
            nonlocal before, since, rate
            now = monotonic()
            if now - since < _SAVE_SECONDS:
                return
            rate = (tally.lines - before) / (now - since)
            before, since = tally.lines, now
            behind = sum(trail.behind for trail in trails)
            shown = f"{tally.lines:,} lines, {rate:,.0f} lines/s, {behind:,} bytes behind, {tally.accepted:,} accepted"
            progress.update(task, lines=shown)

        yield show


@contextmanager
def _stoppable() -> Iterator[None]:
    def stop(number: int, _: FrameType | None) -> None:
        raise _Stopped(number)

    before = {number: signal.signal(number, stop) for number in _EXITS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in _EXITS:
        signal.signal(number, signal.SIG_IGN)
