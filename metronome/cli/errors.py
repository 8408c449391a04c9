"""Exit codes of the commands, and the one place where their errors are reported.

0: success
1: the command ran, but events were rejected, objects are damaged, archive and store differ, or the server is
   unavailable or rejects the request
2: invalid usage or configuration
130: interrupted
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import typer

from metronome.cli.output import print_note
from metronome.errors import ConfigurationError, Malformed, MetronomeError, OperatorError, RequestError
from metronome.server_client import rate_limited

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


@contextmanager
def reporting_errors(command: str, resume_hint: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Report an error or Ctrl-C in the block on standard error, and exit with the code for it.

    Args:
        command: name of the command, which the message begins with.
        resume_hint: returns how to continue after an interruption or a temporary failure; empty if there is nothing
            to continue.

    """
    try:
        yield
    except KeyboardInterrupt:
        print_error(command, "; ".join(filter(None, ["interrupted", resume_hint()])))
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except MetronomeError as error:
        advice = "" if isinstance(error, (RequestError, ConfigurationError)) else error.advice
        if error.retry:
            advice = resume_hint() or advice
        print_error(command, "; ".join(filter(None, [str(error), advice])))
        raise typer.Exit(EXIT_USAGE if isinstance(error, (OperatorError, Malformed)) else EXIT_FAILED) from None


def retry_notifier(command: str) -> Callable[[str], None]:
    """Return a function that reports the reason of a retry, so that a command that waits does not seem to hang."""
    return rate_limited(lambda reason: print_error(command, f"{reason}; retrying"))


def print_error(command: str, message: str) -> None:
    """Print a message of a command on standard error."""
    print_note(f"metronome {command}: {message}")
