"""Every error that Metronome raises on purpose, in one tree.

::

    MetronomeError
    ├── RequestError             the request is wrong: sending it again unchanged fails again
    │   ├── Malformed           it cannot be read, or says something that cannot be
    │   ├── PayloadTooLarge            it is over a limit
    │   ├── RequestTimeout             its body did not come in time
    │   ├── UnsupportedEncoding     its Content-Encoding is not one that is spoken here
    │   ├── InvalidQuery           the question names something that cannot be asked
    │   ├── QueryTooExpensive           the question takes more groups, rows or time than it may
    │   ├── Unauthorized               a key is needed here, and none came or none that is known
    │   ├── Forbidden          the key does not allow this
    │   ├── NotFound          nothing answers at this address
    │   └── MethodNotAllowed         this address does not take this method
    ├── Away                    try again later: nothing is wrong with the request
    │   ├── SpoolFull           no room on the disk for more events
    │   ├── StoreUnavailable           the store does not answer
    │   ├── ArchiveUnavailable         the archive does not answer
    │   ├── Busy                as many questions wait for the store as may
    │   ├── ServerUnavailable          the Metronome server that a command sends to does not answer
    │   └── KibanaUnavailable          the Kibana that dashboards are to be installed in does not answer
    ├── OperatorError           somebody has to change the installation
    │   ├── ConfigurationError       a setting has a value that cannot be
    │   ├── StoreAccessDenied         the store does not accept these credentials
    │   ├── ArchiveAccessDenied       there is no such archive, or it does not accept these credentials
    │   ├── KibanaAccessDenied        Kibana does not accept these credentials
    │   ├── DashboardsRejected       Kibana does not take these dashboards
    │   └── DataFolderLocked     another Metronome works in this data folder
    └── Damaged                 an object of the archive is not as it was written

``retry`` says whether the same call may succeed later. ``advice`` is a sentence for whoever has to
act: the caller of a ``RequestError``, else the operator. The message itself says what is wrong; where it may name
what is behind the service, ``public_message`` is what strangers are told in its place.
"""

from typing import ClassVar


class MetronomeError(Exception):
    """Anything that Metronome raises on purpose."""

    retry: ClassVar[bool] = False
    advice: ClassVar[str] = "report this to the maintainers, with the log lines around it"
    public_message: ClassVar[str] = ""


class RequestError(MetronomeError):
    """The request is wrong; sending it again unchanged fails again."""

    advice = "change the request as the message says"


class Malformed(RequestError):
    """A request, an event or a line cannot be read, or says something that cannot be."""


class PayloadTooLarge(RequestError):
    """A request or an event is over a limit."""

    advice = "send less at once, or raise the limit that the message names"


class RequestTimeout(RequestError):
    """The body of a request did not come in time."""

    retry = True
    advice = "send it again, over a better line or in smaller parts"


class UnsupportedEncoding(RequestError):
    """The Content-Encoding of a request is not one that is spoken here."""

    advice = "send the body plain, or as gzip, deflate or zstd"


class InvalidQuery(RequestError):
    """A question names something that cannot be asked."""


class QueryTooExpensive(RequestError):
    """A question takes more groups, rows or time than it may."""

    advice = "ask for a shorter range, for fewer groups, or for one item at a time"


class Unauthorized(RequestError):
    """A key is needed, and none came, or one that is unknown, has expired or was revoked."""

    advice = "send a key as `Authorization: Bearer …`; whoever runs this service makes one with `metronome keys create`"


class Forbidden(RequestError):
    """The key is known, but does not allow this."""

    advice = "use a key with the scope that the message names, from an origin that it is for"


class NotFound(RequestError):
    """Nothing answers at this address."""

    advice = "the README lists what can be asked"


class MethodNotAllowed(RequestError):
    """This address does not take this method."""

    advice = "the Allow header lists the methods that it takes"


class Unavailable(MetronomeError):
    """Something is not there for the moment; the same call may succeed later."""

    retry = True
    advice = "try again later"


class SpoolFull(Unavailable):
    """There is no room on the disk for more events, so none was taken."""

    advice = "bring the store back, raise spool_max_bytes, or make room on the disk"


class StoreUnavailable(Unavailable):
    """The store does not answer, or is too busy to; the spool keeps the events until it does."""

    advice = "see that the store runs and can be reached; no event is lost meanwhile"
    public_message = "the store does not answer at the moment; no event is lost, ask again later"


class ArchiveUnavailable(Unavailable):
    """The archive does not answer, has no room, or is too busy; the spool keeps the events until it does."""

    advice = "see that the archive can be reached and has room; no event is lost meanwhile"
    public_message = "the archive does not answer at the moment; no event is lost"


class Overloaded(Unavailable):
    """As many questions wait for the store as may."""

    advice = "ask again in a moment, or ask fewer large questions at once"


class ServerUnavailable(Unavailable):
    """The Metronome server that a command sends to does not answer."""

    advice = "start it with `metronome serve`, or name another with --url; then run the same command again"


class KibanaUnavailable(Unavailable):
    """The Kibana that dashboards are to be installed in does not answer, or is starting still."""

    advice = "see that it runs and is reached at the address of --kibana, or wait longer for it with --retry-timeout"


class OperatorError(MetronomeError):
    """Somebody has to change the installation before this can succeed."""

    public_message = "this service has to be set right by those who run it; no event is lost"


class ConfigurationError(OperatorError):
    """A setting has a value that cannot be."""

    advice = "correct the setting that the message names"


class StoreAccessDenied(OperatorError):
    """The store does not accept these credentials, or they lack a right."""

    retry = True
    advice = "give Metronome credentials with the rights that docs/operations.md lists; the spool keeps the events"


class ArchiveAccessDenied(OperatorError):
    """There is no such bucket or folder, or it does not accept these credentials, or they lack a right."""

    retry = True
    advice = (
        "see that the archive's address is right, and that the environment holds credentials with the rights that "
        "docs/archive.md lists; no event is lost meanwhile"
    )


class KibanaAccessDenied(OperatorError):
    """Kibana does not accept these credentials, or they lack a right."""

    advice = (
        "set METRONOME_KIBANA_KEY, or METRONOME_KIBANA_USER and METRONOME_KIBANA_PASSWORD, to one that may manage "
        "saved objects in this space"
    )


class DashboardsRejected(OperatorError):
    """Kibana does not take these dashboards: it is too old for them, or does not like what they hold."""

    advice = "put right what the message names, and run the same command again"


class DataFolderLocked(OperatorError):
    """Another Metronome works in this data folder."""

    advice = "stop the other one, or give this one a data folder of its own with METRONOME_DATA"


class ArchiveDamaged(MetronomeError):
    """An object of the archive is missing, cut short, or not what was written."""

    advice = "bring the object back from a copy of the archive, then run the same command again"
