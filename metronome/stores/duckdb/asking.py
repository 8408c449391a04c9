"""One call of a thread that reads, which may be ended from another one."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import duckdb

from metronome.errors import Busy

Result = TypeVar("Result")


class Asking(Generic[Result]):
    """A question on its way through a connection of its own.

    Args:
        open_cursor: makes the connection.
        ask: works out the answer over it.

    """

    def __init__(
        self, open_cursor: Callable[[], duckdb.DuckDBPyConnection], ask: Callable[[duckdb.DuckDBPyConnection], Result]
    ) -> None:
        self._open_cursor = open_cursor
        self._ask = ask
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._ended = False
        self._ending = threading.Lock()

    def run(self) -> Result:
        """Work out the answer, in the thread that calls.

        Raises:
            Busy: it was ended before it began.
            duckdb.InterruptException: it was ended.

        """
        if self._ended:
            raise Busy("the store is busy with other questions")
        cursor = self._cursor = self._open_cursor()
        try:
            return self._ask(cursor)
        finally:
            # A connection that is closed cannot be interrupted.
            with self._ending:
                self._cursor = None
            cursor.close()

    def end(self) -> None:
        """End it, from whichever thread."""
        self._ended = True
        with self._ending:
            if self._cursor is not None:
                self._cursor.interrupt()
