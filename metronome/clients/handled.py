"""The request that is being handled, as far as the host's own code may speak of it."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from metronome.clients.hit import Hit


class Handled:
    """A request while it is handled.

    Args:
        look: returns what is seen of it by now.

    Attributes:
        described: what the host has said of it.

    """

    __slots__ = ("described", "look")

    def __init__(self, look: Callable[[], Hit]) -> None:
        self.look = look
        self.described: dict[str, Any] | None = None


HANDLED: Final[ContextVar[Handled | None]] = ContextVar("metronome_request", default=None)
"""Is set by the middleware; threads that a framework starts for a request see the same object."""


def describe_request(**fields: Any) -> None:
    """Say more of the request that is being handled: what stands here goes out with its report.

    With an ``id``, the request is of that item: a ``GET`` that went well counts as a view, or as a download where
    there is a ``format`` too. An ``event`` names what happened itself. Outside a request nothing happens.

    Args:
        fields: of the event, as `POST /tick` takes them; those said later win.

    """
    handled = HANDLED.get()
    if handled is not None:
        if handled.described is None:
            handled.described = fields
        else:
            handled.described.update(fields)
