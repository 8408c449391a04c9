"""Each error has its status and is answered as RFC 9457 says."""

import re
from collections.abc import Iterator

import orjson
import pytest

from metronome import errors
from metronome.errors import MetronomeError
from metronome.web.problems import problem, status_of

STATUS = {
    "MetronomeError": 500,
    "CallerError": 400,
    "Malformed": 400,
    "TooLarge": 413,
    "TooSlow": 408,
    "UnknownEncoding": 415,
    "Unaskable": 400,
    "TooCostly": 400,
    "NoKey": 401,
    "NotAllowed": 403,
    "NoSuchPage": 404,
    "WrongMethod": 405,
    "Away": 503,
    "SpoolFull": 503,
    "StoreAway": 503,
    "ArchiveAway": 503,
    "Busy": 503,
    "ServerAway": 503,
    "KibanaAway": 503,
    "OperatorError": 503,
    "Misconfigured": 503,
    "StoreDenied": 503,
    "ArchiveDenied": 503,
    "KibanaDenied": 503,
    "KibanaRefused": 503,
    "DataFolderTaken": 503,
    "Damaged": 500,
}
SECRETIVE = {"StoreAway", "ArchiveAway", "OperatorError", "Misconfigured", "StoreDenied", "ArchiveDenied"}
SECRETIVE |= {"KibanaDenied", "KibanaRefused", "DataFolderTaken"}
"""What strangers are not told: it may name what is behind the service."""
RETRIED = {"TooSlow", "Away", "SpoolFull", "StoreAway", "ArchiveAway", "Busy", "ServerAway", "KibanaAway"}
RETRIED |= {"StoreDenied", "ArchiveDenied"}


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
    answer = problem(kind("the cat is on the keyboard"))
    name = kind.__name__
    assert (answer.status, answer.content_type) == (STATUS[name], "application/problem+json")
    assert isinstance(answer.body, bytes)
    assert orjson.loads(answer.body) == {
        "type": f"urn:metronome:error:{name}",
        "title": name,
        "status": STATUS[name],
        "detail": kind.in_public or f"the cat is on the keyboard; {kind.advice}",
    }
    assert bool(kind.in_public) == (name in SECRETIVE)
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

    assert status_of(QuiteFull("x")) == 503
    assert status_of(type("Odd", (errors.CallerError,), {})("x")) == 400


def test_what_a_message_quotes_may_be_anything() -> None:
    answer = problem(errors.Malformed("'\ud800\0\n\"' is no time"))
    assert isinstance(answer.body, bytes)
    assert orjson.loads(answer.body)["detail"].startswith("'\\ud800\0\n\"' is no time; ")
