"""Reports of a real server, asked for what is absurd: it answers, or says in a sentence what is wrong."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import orjson
import pytest

from tests.attacks import JSON_HEADERS, MIB, RawRequest, check_responses, send_requests, still_counting
from tests.servers import Server, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("questions") / "data") as running:
        old = [{"type": "a", "tags": {"a": n, "x": "y"}, "value": n, "createdOn": n * 10**11} for n in range(1, 17)]
        (answer,) = send_requests(
            running, [RawRequest("POST", "/api/track/batch", orjson.dumps({"events": old}), JSON_HEADERS)]
        )
        assert answer.status == HTTPStatus.OK
        running.wait_until_shipped()
        yield running


MOMENTS: Final = (
    *("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "0000-01-01"),
    *("-271821-04-20", "+275760-09-13T00:00:00Z", "-999999d", "9999999d9999999h9999999m", "1e400", "NaN", "9" * 30),
    *("253402300800000", "-62135596800000", "\0", "2026-02-30", "'; drop table events; --", "٣d", "²d", "x" * 3000),
)
NUMBERS: Final = (
    "-1",
    "1" + "0" * 30,
    "1e5",
    "NaN",
    "' or 1=1",
    "\0",
    "٣",
    "²",
    "+1",
    " 1",
    "0x10",
    "1_000",
    "9" * 3000,
)
NAMES: Final = (
    "..",
    "\0",
    "'",
    '"',
    "a'--",
    "$",
    "*",
    "[repeated]",
    "x" * 3000,
    "tags.",
    "'); DROP TABLE x;--",
    "\n",
    "%s",
)
ZONES: Final = ("../../etc/passwd", "UTC\0", "localtime", "posixrules", "right/UTC", "posix/UTC", "Factory", "x" * 3000)
PARAMETERS: Final = {
    **dict.fromkeys(("from", "to", "startDate", "endDate", "last", "date"), MOMENTS),
    **dict.fromkeys(("limit", "offset"), NUMBERS),
    **dict.fromkeys(("sort", "sort.desc", "order", "interval", "bots", "period"), NAMES),
    **dict.fromkeys(("type", "tags", "fields", "value", "consumer", "key", "nobody"), NAMES),
    "tz": ZONES,
}
REPORTS: Final = (
    *("/tock/x.json", "/items.json", "/sessions", "/events", "/hit", "/metrics"),
    *(f"/api/{name}" for name in ("report", "report/count", "report/aggregate", "tags", "types", "report.csv")),
    *("/api/report/groupby?groupby=a", "/api/report/unique.csv?unique=a", "/api/tag-values?tag=a"),
)
REFUSED: Final = (
    *(f"/items.json?limit={value}" for value in ("-1", "1" + "0" * 30)),
    *(
        f"{path}?{name}={value}"
        for path in ("/sessions", "/events")
        for name in ("limit", "offset")
        for value in (-1, 10**30)
    ),
    *(
        f"{path}?sort={value}"
        for path in ("/sessions", "/events")
        for value in ("id;drop", "1", "(select+1)", "id+desc")
    ),
    *(f"/tock/x.json?tz={zone}" for zone in ("localtime", "right/UTC", "Factory", "..%2fUTC")),
    "/tock/x.json?from=-271821-04-20",
    "/api/report/aggregate?period=m&last=0",
    "/api/report/aggregate.csv?period=h&last=0",
    "/api/report/aggregate?period=m&startDate=1926-01-01&endDate=2026-01-01",
    "/api/report/aggregate.csv?period=m&startDate=0001-01-01&endDate=9999-12-31",
    "/api/report/aggregate?period=d&startDate=0001-01-01&endDate=9999-12-31",
    "/api/report?startDate=-271821-04-20",
    "/api/report/count?endDate=%2B275760-09-13",
    "/api/report?last=9999999d",
    "/api/report/aggregate?period=y",
)


@pytest.mark.slow
def test_reports_answer_whatever_they_are_asked_with(server: Server) -> None:
    wanted = [
        RawRequest("GET", f"{path}{'&' if '?' in path else '?'}{name}={quote(value, safe='')}")
        for path in REPORTS
        for name, values in PARAMETERS.items()
        for value in values
    ]
    with still_counting(server):
        check_responses(wanted, send_requests(server, wanted))


def test_absurd_reports_are_refused_with_a_sentence_and_without_the_memory_for_them(server: Server) -> None:
    before = server.peak_memory()
    asked = [RawRequest("GET", path) for path in REFUSED]
    answers = send_requests(server, asked)
    check_responses(asked, answers)
    assert {one.target: answer.status for one, answer in zip(asked, answers, strict=True)} == dict.fromkeys(
        REFUSED, 400
    )
    assert server.peak_memory() < before + 64 * MIB
