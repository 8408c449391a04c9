"""A request as the middleware records it, and a reporter that keeps the records instead of sending them."""

from typing import Any, Final

from metronome.middleware.config import ClientConfig
from metronome.middleware.current_request import RequestRecord
from metronome.middleware.reporter import Reporter

AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
RECORD: Final = RequestRecord(
    started_at=1_769_083_200.25,
    duration_ms=12.3456,
    method="GET",
    route="/datasets/:name",
    status=200,
    failed=False,
    scheme="https",
    host="data.example.org",
    path="/datasets/caf%C3%A9s",
    query="as=csv&x=1",
    peer_address="203.0.113.77",
    forwarded_for="",
    forwarded_proto="",
    referrer="https://www.example.net/links/",
    user_agent=AGENT,
    accept_language="de, en;q=0.5",
    opted_out=False,
    extra_fields=None,
)


def record(**changes: Any) -> RequestRecord:
    """Return `RECORD` with some values replaced."""
    return RECORD._replace(**changes)


class RecordingReporter(Reporter):
    """A reporter that keeps its records and sends nothing."""

    def __init__(self, **config: Any) -> None:
        super().__init__(ClientConfig(url="http://127.0.0.1:1", **config))
        self.records: list[Any] = []

    def report(self, record: Any) -> None:
        self.records.append(record)
