"""The protocols that have no HTTP under them: each listens at a port of its own, if it has one."""

import contextlib
from collections.abc import AsyncIterator

from metronome.auth.authorizer import Authorizer
from metronome.config import Settings
from metronome.protocols.forward.listener import run_forward_listener, validate_forward_settings
from metronome.protocols.syslog.listener import run_syslog_listener, validate_syslog_access
from metronome.web.handlers import IngestContext


def validate_listeners(settings: Settings, authorizer: Authorizer) -> None:
    """See that the settings of each listener go together, before any process listens.

    Raises:
        ConfigurationError: they do not; the message names one.

    """
    if settings.forward_port is not None:
        validate_forward_settings(settings, authorizer)
    if settings.syslog_port is not None:
        validate_syslog_access(authorizer)


@contextlib.asynccontextmanager
async def run_listeners(settings: Settings, context: IngestContext, *, reuse_port: bool = False) -> AsyncIterator[None]:
    """Listen at all ports that the settings name, while the block runs.

    Args:
        settings: say which.
        context: where events go.
        reuse_port: whether other processes listen there too.

    Raises:
        ConfigurationError: the settings of a listener do not go together.
        OSError: a port cannot be listened on.

    """
    async with contextlib.AsyncExitStack() as listeners:
        if settings.forward_port is not None:
            await listeners.enter_async_context(run_forward_listener(settings, context, reuse_port=reuse_port))
        if settings.syslog_port is not None:
            syslog = run_syslog_listener(context, settings.host, settings.syslog_port, reuse_port=reuse_port)
            await listeners.enter_async_context(syslog)
        yield
