"""How much one answer may hold: it has to fit into memory, of this service and of whoever asks."""

from typing import Final

from metronome.errors import Unaskable
from metronome.question import Answer

MAX_DOCUMENTS: Final = 100_000
"""How many documents one report may go through."""
MAX_BYTES: Final = 32 * 2**20
"""How large these may be altogether."""
MAX_ROWS: Final = 50_000
"""How many lengths of time, groups, or values of tags one answer may have."""

_ADVICE: Final = "ask for a shorter time with startDate, endDate or last, or for one type"


def too_much(what: str) -> Unaskable:
    """Return the error of a report that would be too large.

    Args:
        what: of which there is too much, as ``over 100 documents``.

    """
    return Unaskable(f"the answer would hold {what}: {_ADVICE}")


def check_whole(answer: Answer) -> Answer:
    """Return an answer that has all its rows.

    Raises:
        Unaskable: it has too many.

    """
    if answer.total > MAX_ROWS or not answer.exact:
        raise too_much(f"over {MAX_ROWS} rows")
    return answer
