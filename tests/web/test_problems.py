"""Every error has an HTTP status and a response as RFC 9457 specifies."""

from collections.abc import Iterator

import orjson
import pytest

from metronome import errors
from metronome.errors import MetronomeError
from metronome.web.problems import problem_response

STATUS = {
    "MetronomeError": 500,
    "RequestError": 400,
    "Malformed": 400,
    "PayloadTooLarge": 413,
    "RequestTimeout": 408,
    "RateLimited": 429,
    "UnsupportedEncoding": 415,
    "InvalidQuery": 400,
    "QueryTooExpensive": 400,
    "Unauthorized": 401,
    "Forbidden": 403,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "Unavailable": 503,
    "SpoolFull": 503,
    "SpoolFileLost": 503,
    "StoreUnavailable": 503,
    "ArchiveUnavailable": 503,
    "Overloaded": 503,
    "MemoryLimitReached": 503,
    "ServerUnavailable": 503,
    "KibanaUnavailable": 503,
    "OperatorError": 503,
    "ConfigurationError": 503,
    "StoreAccessDenied": 503,
    "ArchiveAccessDenied": 503,
    "KibanaAccessDenied": 503,
    "DashboardsRejected": 503,
    "DataFolderLocked": 503,
    "ArchiveDamaged": 500,
}
CONFIDENTIAL = {
    "SpoolFileLost",
    "StoreUnavailable",
    "ArchiveUnavailable",
    "OperatorError",
    "ConfigurationError",
    "StoreAccessDenied",
    "ArchiveAccessDenied",
    "KibanaAccessDenied",
    "DashboardsRejected",
    "DataFolderLocked",
}
"""Errors whose message clients must not see: it may name what is behind the service."""
SELF_EXPLANATORY = {"RequestError", "Malformed", "PayloadTooLarge", "InvalidQuery", "ServerUnavailable"}
RETRIED = {
    "RequestTimeout",
    "Unavailable",
    "SpoolFull",
    "SpoolFileLost",
    "StoreUnavailable",
    "ArchiveUnavailable",
    "Overloaded",
    "MemoryLimitReached",
    "RateLimited",
    "ServerUnavailable",
    "KibanaUnavailable",
    "StoreAccessDenied",
    "ArchiveAccessDenied",
}


def subclasses(kind: type[MetronomeError]) -> Iterator[type[MetronomeError]]:
    """Yield an error and those below it that errors.py defines, in its order."""
    yield kind
    for subclass in kind.__subclasses__():
        if subclass.__module__ == errors.__name__:
            yield from subclasses(subclass)


KINDS = list(subclasses(MetronomeError))


def test_every_error_is_tested_here() -> None:
    assert [kind.__name__ for kind in KINDS] == list(STATUS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_response_says_what_is_wrong_and_what_to_do(kind: type[MetronomeError]) -> None:
    response = problem_response(kind("the cat is on the keyboard"))
    name = kind.__name__
    assert (response.status, response.content_type) == (STATUS[name], "application/problem+json")
    assert isinstance(response.body, bytes)
    assert orjson.loads(response.body) == {
        "type": f"urn:metronome:error:{name}",
        "title": name,
        "status": STATUS[name],
        "detail": kind.public_message
        or ("the cat is on the keyboard" if name in SELF_EXPLANATORY else f"the cat is on the keyboard; {kind.advice}"),
    }
    assert bool(kind.public_message) == (name in CONFIDENTIAL)
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert ("Retry-After" in response.headers) == kind.retry == (name in RETRIED)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_class_says_when_it_is_raised_and_what_to_do(kind: type[MetronomeError]) -> None:
    assert kind.__doc__
    assert bool(kind.advice) == (kind.__name__ not in SELF_EXPLANATORY)
    assert not kind.advice.endswith(".")
    assert kind.advice[:1].islower() or not kind.advice


def test_a_subclass_inherits_the_status() -> None:
    class NearlyFull(errors.SpoolFull):
        """A spool that is nearly full."""

    assert problem_response(NearlyFull("x")).status == 503


def test_a_message_may_quote_lone_surrogates() -> None:
    response = problem_response(errors.Malformed("'\ud800\0\n\"' is no time"))
    assert isinstance(response.body, bytes)
    assert orjson.loads(response.body)["detail"] == "'\\ud800\0\n\"' is no time"
