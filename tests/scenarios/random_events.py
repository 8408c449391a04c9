"""Random events: of people and robots, with and without a visitor, across clock changes and the end of a year."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, Final

import orjson
from hypothesis import strategies as st

RUN: Final = "p_run"
TEXT_FIRST: Final = "p_first"
OVERFLOWING: Final = "p_late"
"""The field that distinguishes the events of one example from all others."""

AGENTS: Final = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5",
    "curl/8.5.0",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
)
ITEMS: Final = ("a", "a/b", "ü b.json", "7", "07")
# In UTF-16 order, the last two would be swapped.
_SORTED_TEXTS: Final = ("", "a", "A", "ab", "é", "\uff5a", "😀")
TEXTS: Final = (*_SORTED_TEXTS, '"', "it's, a", "*", "5", "<1-9>", "x" * 1024, "x" * 1025)
REFERERS: Final = (
    *("https://www.google.ch/", "https://example.org/x/", "https://www.spam.example/", "https://own.example/", "words"),
    "https://chatgpt.com/?q=1",
)
URLS: Final = ("https://data.example.net/a?utm_source=mail&utm_medium=email", "https://data.example.net/a", "/a#top")
MESSAGES: Final = ("no row 1", "no row 22", "boom", "")
VISITORS: Final = tuple(f"v{at}" for at in range(9))
DAYS: Final = (date(2019, 3, 30), date(2019, 3, 31), date(2019, 11, 3), date(2019, 12, 31), date(2020, 1, 1))
"""Include the start of summer time in Zurich, its end in New York, and the end of a year."""

quarters = st.integers(-40, 40).map(lambda number: number / 4)
"""Numbers that binary fractions hold exactly, so that sums do not depend on their order."""
moments = st.builds(
    lambda base, minutes, rest: datetime.fromisoformat(base) + timedelta(minutes=minutes, milliseconds=rest),
    st.sampled_from(["2019-03-30T22:30:00Z", "2019-11-03T04:00:00Z", "2019-12-31T22:30:00Z"]),
    st.integers(0, 180),
    st.sampled_from([0, 1, 30_000, 30_001, 59_999]),
)
_optional: dict[str, st.SearchStrategy[Any]] = {
    "event": st.sampled_from(["view", "view", "download", "error", "timing", "heartbeat"]),
    "format": st.sampled_from(["csv", "CSV", "pdf", ""]),
    "agent": st.sampled_from(AGENTS),
    "place": st.integers(1, 3),
    "referer": st.sampled_from(REFERERS),
    "url": st.sampled_from(URLS),
    "visitor": st.sampled_from(VISITORS),
    "session": st.sampled_from(["s1", "s2", "s3"]),
    "message": st.sampled_from(MESSAGES),
    "status": st.sampled_from([200, 304, 404, "500"]),
    "bot": st.sampled_from(["mine", False]),
    "browser_version": st.just("9"),
    "p_lang": st.sampled_from(TEXTS),
    "p_flag": st.booleans(),
    "p.dot": st.sampled_from([text for text in TEXTS if len(text) <= 1024]),
    "p_n": st.one_of(quarters, st.integers(-9, 9), st.sampled_from(["12", "-2.5", "none", ""])),
    # Of each day, the first value of one is a text, and the other comes when the day's mapping is full.
    TEXT_FIRST: st.one_of(quarters, st.integers(-9, 9), st.sampled_from(["12", "none"])),
    OVERFLOWING: st.one_of(st.integers(-9, 9), st.sampled_from(["2.5", "none"])),
    "LCP": st.integers(0, 40).map(lambda number: number * 100),
    "duration": st.one_of(st.integers(0, 9), st.sampled_from(["7", "long"])),
    "event_id": st.sampled_from(["e1", "e2"]),
}
_events = st.fixed_dictionaries({"ts": moments}, optional={"id": st.sampled_from(ITEMS), **_optional})
_shared_views = st.tuples(st.integers(2, 9), st.sets(st.sampled_from(ITEMS), min_size=1, max_size=3), moments)
"""Number of visitors, the items they all view, and the time."""


@st.composite
def events(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw events, some of them twice."""
    drawn = draw(st.lists(_events, min_size=draw(st.sampled_from([0, 5, 15])), max_size=20))
    for visitor_count, items, at in draw(st.lists(_shared_views, max_size=2)):
        visitors = VISITORS[:visitor_count]
        drawn += [{"ts": at, "id": item, "visitor": visitor} for item in sorted(items) for visitor in visitors]
    return drawn + drawn[: draw(st.integers(0, 3))]


def _write_time(moment: datetime) -> str | int:
    """Return a time in one of the forms that events may have."""
    forms = (
        moment.astimezone(UTC).isoformat(),
        moment.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat(timespec="milliseconds"),
        f"{moment.astimezone(UTC):%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03}Z",
        round(moment.timestamp() * 1000),
        str(round(moment.timestamp() * 1000)),
    )
    return forms[(moment.minute + moment.microsecond // 1000) % len(forms)]


def encode(event: dict[str, Any], run: str, number: int) -> bytes:
    """Encode an event; its items, sessions, visitors and IDs belong to this example only."""
    fields = {RUN: run, **event, "ts": _write_time(event["ts"])}
    for name in ("id", "visitor", "session", "event_id"):
        if name in fields:
            fields[name] = f"{run}/{fields[name]}"
    if "event_id" in fields:
        # Stores differ in how long an ID is that of one event: a day, or a month.
        fields["event_id"] += f"/{event['ts'].astimezone(UTC):%d}"
    if (place := fields.pop("place", None)) is not None:
        # An IP address in Switzerland, and a user agent of this example only.
        fields["clientip"] = f"129.132.{number % 250}.{place}"
        fields["agent"] = f"{fields.get('agent', AGENTS[0])} {run}"
    return orjson.dumps(fields)
