"""Log records are reported as events."""

import logging
from typing import Any

import pytest

from metronome.middleware.current_request import CURRENT_REQUEST, CurrentRequest, RequestRecord, describe_request
from metronome.middleware.log_handler import ReportingHandler, record_fields
from metronome.middleware.transport import LOGGER_NAME
from tests.middleware.records import RECORD, RecordingReporter


class _Request(CurrentRequest):
    def snapshot(self, duration_ms: float | None = None) -> RequestRecord:
        return RECORD._replace(duration_ms=duration_ms or RECORD.duration_ms)


@pytest.fixture
def logged() -> tuple[logging.Logger, RecordingReporter]:
    """Return a logger and the reporter that receives its records."""
    reporter = RecordingReporter()
    # Has no parent: the handlers of pytest raise for invalid records.
    logger = logging.Logger("tests.middleware", logging.DEBUG)  # noqa: LOG001  # see above
    logger.addHandler(ReportingHandler(reporter))
    return logger, reporter


def test_a_record_is_a_log_event_with_its_extra_fields(logged: tuple[logging.Logger, RecordingReporter]) -> None:
    logger, reporter = logged
    logger.info("it rains in %s", "Bern", extra={"millimetres": 7, "odd": object(), "event": "mine", "time": 1.5})
    (tracked,) = reporter.records
    assert tracked.fields == {
        "event": "log",
        "message": "it rains in Bern",
        "level": "INFO",
        "logger": "tests.middleware",
        "millimetres": 7,
        "record_event": "mine",
        "record_time": 1.5,
    }
    assert tracked.request is None


def test_an_exception_is_an_error_event_with_its_traceback(logged: tuple[logging.Logger, RecordingReporter]) -> None:
    logger, reporter = logged
    try:
        raise KeyError("lost")
    except KeyError:
        logger.exception("it broke")
    fields: dict[str, Any] = reporter.records[0].fields
    assert (fields["event"], fields["message"], fields["error_type"]) == ("error", "it broke", "KeyError")
    assert "KeyError: 'lost'" in fields["error_stack"]


def test_records_below_the_level_are_not_reported(logged: tuple[logging.Logger, RecordingReporter]) -> None:
    logger, reporter = logged
    logger.debug("a detail")
    assert reporter.records == []


def test_an_invalid_record_is_counted_and_raises_nothing(
    logged: tuple[logging.Logger, RecordingReporter], capsys: pytest.CaptureFixture[str]
) -> None:
    logger, reporter = logged
    logger.info("%d", "not a number")
    assert reporter.records == []
    assert reporter.stats().errors == 1
    assert capsys.readouterr().err == ""


def test_records_of_the_middleware_are_not_reported() -> None:
    reporter = RecordingReporter()
    handler = ReportingHandler(reporter, logging.DEBUG)
    for name in (LOGGER_NAME, f"{LOGGER_NAME}.x"):
        handler.emit(logging.makeLogRecord({"name": name, "msg": "away", "levelno": logging.WARNING}))
    assert reporter.records == []


def test_a_record_logged_during_a_request_has_its_visitor(logged: tuple[logging.Logger, RecordingReporter]) -> None:
    logger, reporter = logged
    token = CURRENT_REQUEST.set(_Request(RecordingReporter(), report_on_start=False))
    try:
        logger.warning("slow")
    finally:
        CURRENT_REQUEST.reset(token)
    assert reporter.records[0].request == RECORD


def test_standard_attributes_of_records_are_not_fields() -> None:
    assert record_fields(logging.makeLogRecord({"msg": "x", "levelno": logging.INFO})).keys() == {
        "event",
        "message",
        "level",
        "logger",
    }


def test_describe_request_outside_a_request_does_nothing() -> None:
    describe_request(id="x")
    request = _Request(RecordingReporter(), report_on_start=False)
    token = CURRENT_REQUEST.set(request)
    describe_request(id="x")
    describe_request(id="y", format="csv")
    CURRENT_REQUEST.reset(token)
    assert request.extra_fields == {"id": "y", "format": "csv"}
