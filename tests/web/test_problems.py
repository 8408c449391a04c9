"""Each error has its status and is answered as RFC 9457 says."""

import re
from collections.abc import Iterator

import orjson
import pytest

from metronome import errors
from metronome.errors import MetronomeError
from metronome.web.problems import http_status, problem_response

STATUS = {
    "MetronomeError": 500,
    "RequestError": 400,
    "Malformed": 400,
    "PayloadTooLarge": 413,
    "RequestTimeout": 408,
    "UnsupportedEncoding": 415,
    "InvalidQuery": 400,
    "QueryTooExpensive": 400,
    "Unauthorized": 401,
    "Forbidden": 403,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "Unavailable": 503,
    "SpoolFull": 503,
    "StoreUnavailable": 503,
    "ArchiveUnavailable": 503,
    "Overloaded": 503,
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
SECRETIVE = {
    "StoreUnavailable",
    "ArchiveUnavailable",
    "OperatorError",
    "ConfigurationError",
    "StoreAccessDenied",
    "ArchiveAccessDenied",
}
SECRETIVE |= {"KibanaAccessDenied", "DashboardsRejected", "DataFolderLocked"}
"""What strangers are not told: it may name what is behind the service."""
RETRIED = {
    "RequestTimeout",
    "Unavailable",
    "SpoolFull",
    "StoreUnavailable",
    "ArchiveUnavailable",
    "Overloaded",
    "ServerUnavailable",
    "KibanaUnavailable",
}
RETRIED |= {"StoreAccessDenied", "ArchiveAccessDenied"}


def tree(kind: type[MetronomeError], depth: int = 0) -> Iterator[tuple[int, type[MetronomeError]]]:
    """Yield an error and those below it that errors.py defines, with how deep each stands."""
    yield depth, kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from tree(below, depth + 1)


KINDS = [kind for _, kind in tree(MetronomeError)]


def test_the_tree_that_is_drawn_is_the_one_that_there_is() -> None:
    drawn = re.findall(r"^    ([│├└─ ]*)([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE)
    assert [(len(branch) // 4, name) for branch, name in drawn] == [
        (depth, kind.__name__) for depth, kind in tree(MetronomeError)
    ]


def test_every_error_is_tried_here() -> None:
    assert [kind.__name__ for kind in KINDS] == list(STATUS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_answered_with_its_status_what_is_wrong_and_what_to_do(kind: type[MetronomeError]) -> None:
    answer = problem_response(kind("the cat is on the keyboard"))
    name = kind.__name__
    assert (answer.status, answer.content_type) == (STATUS[name], "application/problem+json")
    assert isinstance(answer.body, bytes)
    assert orjson.loads(answer.body) == {
        "type": f"urn:metronome:error:{name}",
        "title": name,
        "status": STATUS[name],
        "detail": kind.public_message or f"the cat is on the keyboard; {kind.advice}",
    }
    assert bool(kind.public_message) == (name in SECRETIVE)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert ("Retry-After" in answer.headers) == kind.retry == (name in RETRIED)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_says_in_one_sentence_what_it_is_and_what_to_do(kind: type[MetronomeError]) -> None:
    assert kind.__doc__
    assert kind.advice
    assert not kind.advice.endswith(".")
    assert kind.advice[0].islower()


def test_an_error_that_is_a_kind_of_another_has_its_status() -> None:
    class QuiteFull(errors.SpoolFull):
        """A spool that is fuller than full."""

    assert http_status(QuiteFull("x")) == 503
    assert http_status(type("Odd", (errors.RequestError,), {})("x")) == 400


def test_what_a_message_quotes_may_be_anything() -> None:
    answer = problem_response(errors.Malformed("'\ud800\0\n\"' is no time"))
    assert isinstance(answer.body, bytes)
    assert orjson.loads(answer.body)["detail"].startswith("'\\ud800\0\n\"' is no time; ")
