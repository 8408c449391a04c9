"""One call of a thread that reads, which may be ended from another one."""

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

    def run(self) -> Result:
        """Work out the answer, in the thread that calls.

        Raises:
            Busy: it was ended before it began.
            duckdb.InterruptException: it was ended.

        """
        if self._ended:
            raise Busy("the store is busy with other questions")
        self._cursor = self._open_cursor()
        try:
            return self._ask(self._cursor)
        finally:
            self._cursor.close()

    def end(self) -> None:
        """End it, from whichever thread."""
        self._ended = True
        if self._cursor is not None:
            self._cursor.interrupt()
