"""A request, as tests see it."""

from typing import Any, Final

from metronome.middleware.current_request import RequestRecord

AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
USUAL: Final = RequestRecord(
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


def hit(**changed: Any) -> RequestRecord:
    """Return the usual request, with some of it changed."""
    return USUAL._replace(**changed)
