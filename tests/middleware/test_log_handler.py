"""Log records as events."""

import logging
from typing import Any

import pytest

from metronome.middleware.current_request import CURRENT_REQUEST, CurrentRequest, describe_request
from metronome.middleware.log_handler import ReportingHandler, record_fields
from metronome.middleware.stats import LOGGER_NAME
from tests.middleware.records import hit
from tests.middleware.test_asgi import Kept


@pytest.fixture
def logged() -> tuple[logging.Logger, Kept]:
    """A logger whose records are kept."""
    reporter = Kept()
    # It has no parents: what pytest listens with raises what it cannot read.
    logger = logging.Logger("tests.of.clients", logging.DEBUG)  # noqa: LOG001  # as said
    logger.addHandler(ReportingHandler(reporter))
    return logger, reporter


def test_a_record_is_a_log_and_what_is_given_with_it_is_kept(logged: tuple[logging.Logger, Kept]) -> None:
    logger, reporter = logged
    logger.info("it rains in %s", "Bern", extra={"millimetres": 7, "odd": object(), "event": "mine", "time": 1.5})
    (tracked,) = reporter.kept
    assert tracked.fields == {
        "event": "log",
        "message": "it rains in Bern",
        "level": "INFO",
        "logger": "tests.of.clients",
        "millimetres": 7,
        "record_event": "mine",
        "record_time": 1.5,
    }
    assert tracked.during is None


def test_an_error_is_one_with_its_trace(logged: tuple[logging.Logger, Kept]) -> None:
    logger, reporter = logged
    try:
        raise KeyError("lost")
    except KeyError:
        logger.exception("it broke")
    fields: dict[str, Any] = reporter.kept[0].fields
    assert (fields["event"], fields["message"], fields["error_type"]) == ("error", "it broke", "KeyError")
    assert "KeyError: 'lost'" in fields["error_stack"]


def test_below_its_level_nothing_is_reported(logged: tuple[logging.Logger, Kept]) -> None:
    logger, reporter = logged
    logger.debug("a detail")
    assert reporter.kept == []


def test_a_record_that_cannot_be_read_is_counted_and_raises_nothing(
    logged: tuple[logging.Logger, Kept], capsys: pytest.CaptureFixture[str]
) -> None:
    logger, reporter = logged
    logger.info("%d", "no number")
    assert reporter.kept == []
    assert reporter.stats().errors == 1
    assert capsys.readouterr().err == ""


def test_what_the_clients_log_themselves_makes_no_report() -> None:
    reporter = Kept()
    handler = ReportingHandler(reporter, logging.DEBUG)
    for name in (LOGGER_NAME, f"{LOGGER_NAME}.x"):
        handler.emit(logging.makeLogRecord({"name": name, "msg": "away", "levelno": logging.WARNING}))
    assert reporter.kept == []


def test_a_record_of_a_request_is_of_its_visitor(logged: tuple[logging.Logger, Kept]) -> None:
    logger, reporter = logged
    token = CURRENT_REQUEST.set(CurrentRequest(hit))
    try:
        logger.warning("slow")
    finally:
        CURRENT_REQUEST.reset(token)
    assert reporter.kept[0].during == hit()


def test_every_field_of_a_usual_record_is_known() -> None:
    assert record_fields(logging.makeLogRecord({"msg": "x", "levelno": logging.INFO})).keys() == {
        "event",
        "message",
        "level",
        "logger",
    }


def test_what_is_said_of_a_request_outside_of_one_is_said_to_nobody() -> None:
    describe_request(id="x")
    handled = CurrentRequest(hit)
    token = CURRENT_REQUEST.set(handled)
    describe_request(id="x")
    describe_request(id="y", format="csv")
    CURRENT_REQUEST.reset(token)
    assert handled.extra_fields == {"id": "y", "format": "csv"}
