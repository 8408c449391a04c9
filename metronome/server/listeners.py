"""The protocols that have no HTTP under them: each listens at a port of its own, if it has one."""

import contextlib
from collections.abc import AsyncIterator

from metronome.auth.authorizer import Guard
from metronome.config import Settings
from metronome.protocols.forward.listener import check_forward, forwarding
from metronome.protocols.syslog.listener import listening_for_syslog, require_public_ticks
from metronome.web.handlers import Doorway


def check_streams(settings: Settings, guard: Guard) -> None:
    """See that the settings of each listener go together, before any process listens.

    Raises:
        Misconfigured: they do not; the message names one.

    """
    if settings.forward_port is not None:
        check_forward(settings, guard)
    if settings.syslog_port is not None:
        require_public_ticks(guard)


@contextlib.asynccontextmanager
async def streaming(settings: Settings, doorway: Doorway, *, shared: bool = False) -> AsyncIterator[None]:
    """Listen at all ports that the settings name, while the block runs.

    Args:
        settings: say which.
        doorway: where events go.
        shared: whether other processes listen there too.

    Raises:
        Misconfigured: the settings of a listener do not go together.
        OSError: a port cannot be listened on.

    """
    async with contextlib.AsyncExitStack() as listeners:
        if settings.forward_port is not None:
            await listeners.enter_async_context(forwarding(settings, doorway, shared=shared))
        if settings.syslog_port is not None:
            syslog = listening_for_syslog(doorway, settings.host, settings.syslog_port, shared=shared)
            await listeners.enter_async_context(syslog)
        yield
