"""The errors that Metronome raises on purpose. Each class says when it is raised, whether to retry, and what to do."""

from typing import ClassVar


class MetronomeError(Exception):
    """Base class of all errors that Metronome raises on purpose.

    Attributes:
        http_status: the status of an HTTP response with this error.
        retry: whether the same call may succeed later.
        advice: what to do, as the end of a sentence. It addresses the client for a `RequestError`, otherwise the
            operator. Empty where the message itself says it.
        public_message: what clients are told instead of message and advice, which may name what is behind the service.

    """

    http_status: ClassVar[int] = 500
    retry: ClassVar[bool] = False
    advice: ClassVar[str] = "report this to the maintainers, with the log lines around it"
    public_message: ClassVar[str] = ""


class RequestError(MetronomeError):
    """The request is wrong: sent again unchanged, it fails again."""

    http_status = 400
    advice = ""


class Malformed(RequestError):
    """A request, an event or a line cannot be parsed, or has a value that is not valid."""


class PayloadTooLarge(RequestError):
    """A request or an event exceeds a limit; the message names it, and says what to do."""

    http_status = 413


class RequestTimeout(RequestError):
    """The body of a request did not arrive in time."""

    http_status = 408
    retry = True
    advice = "send it again, over a faster connection or in smaller parts"


class RateLimited(RequestError):
    """A client address sends more requests than it may."""

    http_status = 429
    retry = True
    advice = "send fewer requests, such as batches, or use a key with the scope import"


class UnsupportedEncoding(RequestError):
    """The request has a Content-Encoding that Metronome cannot decode."""

    http_status = 415
    advice = "send the body uncompressed, or as gzip, deflate or zstd"


class InvalidQuery(RequestError):
    """A query names a field, a parameter or a value that does not exist."""


class QueryTooExpensive(RequestError):
    """A query exceeds the limit of groups, rows, time or memory."""

    advice = "query a shorter range, fewer groups, or one item at a time"


class Unauthorized(RequestError):
    """The request needs a key and has none, or one that is unknown, expired or revoked."""

    http_status = 401
    advice = "send a key as `Authorization: Bearer …`; the operator creates one with `metronome keys create`"


class Forbidden(RequestError):
    """The key is valid, but does not permit this request."""

    http_status = 403
    advice = "use a key with the scope that the message names, from an origin that it permits"


class NotFound(RequestError):
    """Nothing is served at this URL."""

    http_status = 404
    advice = "see the README for what can be queried"


class MethodNotAllowed(RequestError):
    """This URL does not accept the request's method."""

    http_status = 405
    advice = "use a method that the Allow header lists"


class Unavailable(MetronomeError):
    """Something that the call needs is unavailable; the same call may succeed later."""

    http_status = 503
    retry = True
    advice = "try again later"


class SpoolFull(Unavailable):
    """The disk, or the part of it that the spool may use, is full: no event of the request was accepted."""

    advice = "bring the store back, raise spool_max_bytes, or free disk space"


class SpoolFileLost(Unavailable):
    """The spool's file was deleted or replaced while the server runs: no event of the request was accepted."""

    advice = (
        "wait until metronome_unshipped_events is 0, then restart Metronome; restore the file first if it was replaced "
        "by mistake"
    )
    public_message = "the service cannot keep events at the moment; send them again later"


class StoreUnavailable(Unavailable):
    """The store is unreachable or overloaded; the spool keeps the events until it recovers."""

    advice = "check that the store is running and reachable; no event is lost meanwhile"
    public_message = "the store is unavailable at the moment; no event is lost, try again later"


class ArchiveUnavailable(Unavailable):
    """The archive is unreachable, full or overloaded; the spool keeps the events until it recovers."""

    advice = "check that the archive is reachable and has space; no event is lost meanwhile"
    public_message = "the archive is unavailable at the moment; no event is lost"


class Overloaded(Unavailable):
    """The maximum number of queries is waiting for the store."""

    advice = "try again in a moment, or run fewer large queries at once"


class MemoryLimitReached(Unavailable):
    """The requests that are being received take all memory that they may take."""

    advice = "try again in a moment, or send less at once; the operator can raise METRONOME_IN_FLIGHT_MAX_BYTES"


class ServerUnavailable(Unavailable):
    """The Metronome server that a command connects to is unreachable or overloaded.

    Attributes:
        retry_after_seconds: minimum delay before a retry.

    """

    advice = ""

    def __init__(self, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class KibanaUnavailable(Unavailable):
    """The Kibana to install dashboards in is unreachable or still starting."""

    advice = "check that it is running and reachable at the URL of --kibana, or wait longer with --retry-timeout"


class OperatorError(MetronomeError):
    """The operator has to change the installation before this can succeed."""

    http_status = 503
    public_message = "the operator of this service has to correct its configuration; no event is lost"


class ConfigurationError(OperatorError):
    """A setting has a value that is not valid."""

    advice = "correct the setting that the message names"


class StoreAccessDenied(OperatorError):
    """The store rejects Metronome's credentials, or they lack a privilege."""

    retry = True
    advice = "give Metronome credentials with the privileges in docs/operations.md; the spool keeps the events"


class ArchiveAccessDenied(OperatorError):
    """The archive's bucket or folder does not exist, or its credentials are rejected or lack a privilege."""

    retry = True
    advice = (
        "check the archive's URL, and that the environment holds credentials with the privileges in docs/archive.md; "
        "no event is lost meanwhile"
    )


class KibanaAccessDenied(OperatorError):
    """Kibana rejects the credentials, or they lack a privilege."""

    advice = (
        "set METRONOME_KIBANA_KEY, or METRONOME_KIBANA_USER and METRONOME_KIBANA_PASSWORD, to an account that may "
        "manage saved objects in this space"
    )


class DashboardsRejected(OperatorError):
    """Kibana rejects the dashboards: it is too old for them, or finds a conflict."""

    advice = "correct what the message names, and run the same command again"


class DataFolderLocked(OperatorError):
    """Another Metronome process uses this data folder."""

    advice = "stop the other process, or use another data folder with METRONOME_DATA"


class ArchiveDamaged(MetronomeError):
    """An object of the archive is missing, truncated or altered."""

    advice = "restore the object from a copy of the archive, then run the same command again"


def describe(error: MetronomeError) -> str:
    """Return what is wrong and what to do, for the operator."""
    return f"{error}; {error.advice}" if error.advice else str(error)


def describe_to_client(error: MetronomeError) -> str:
    """Return what is wrong and what to do, without what clients must not know."""
    # The message may quote lone surrogates, which UTF-8 cannot encode.
    return (error.public_message or describe(error)).encode(errors="backslashreplace").decode()
