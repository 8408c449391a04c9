"""The dashboard of how fast things are: web vitals and page timings of browsers, and durations."""

from typing import Final

from metronome.dashboards.columns import Column, by_day, count, percentile, top, values
from metronome.dashboards.dashboard import EVENT, ITEM, Control, Dashboard, beside, even
from metronome.dashboards.panels import Panel, Series, chart, number, table

_GOOD: Final = {
    "LCP": ("Largest contentful paint", "good up to 2.5 s"),
    "INP": ("Interaction to next paint", "good up to 200 ms"),
    "CLS": ("Cumulative layout shift", "good up to 0.1"),
    "FCP": ("First contentful paint", "good up to 1.8 s"),
    "TTFB": ("Time to first byte", "good up to 0.8 s"),
}
"""Web vitals, with what they are, and up to where they are called good: the thresholds of web.dev/articles/vitals."""

_MATOMO: Final = {
    "pf_net": "Network",
    "pf_srv": "Server",
    "pf_tfr": "Transfer",
    "pf_dm1": "DOM processing",
    "pf_dm2": "DOM completion",
    "pf_onl": "On load",
}


def _percentiles(field: str) -> tuple[Column, ...]:
    return tuple(percentile(f"p{percent}", f"{field}.num", percent) for percent in (50, 75, 95))


def _there(*fields: str) -> str:
    """Let through the events that have a number in one of the fields."""
    return " or ".join(f"{field}.num : *" for field in fields)


def _p75(field: str) -> Column:
    return percentile(f"{field}, p75", f"{field}.num", 75)


def _vital(name: str) -> Panel:
    title, good = _GOOD[name]
    tells = "Three quarters of page loads are at or below it."
    return number(name.lower(), title, tells, _there(name), _p75(name), below=f"75th percentile, {good}")


def _by_day(name: str, title: str, tells: str = "Half, three quarters and 95 % are below these.") -> Panel:
    columns = _percentiles(name)
    return chart(f"{name.lower()}-by-day", f"{title} by day", tells, _there(name), Series.LINES, by_day(), *columns)


_SLOWEST: Final = _p75("LCP")
_LONGEST: Final = percentile("p95", "duration.num", 95)

PERFORMANCE: Final = Dashboard(
    "performance",
    "performance",
    "How fast pages and answers are, as percentiles: web vitals and timings that browsers report, and durations. Bots "
    "are left out: to count them too, switch off the filter 'bots left out'.",
    (ITEM, EVENT, Control("device", "Device"), Control("country", "Country")),
    (
        even(6, *map(_vital, _GOOD)),
        even(12, *(_by_day(name, _GOOD[name][0]) for name in ("LCP", "INP"))),
        even(12, *(_by_day(name, _GOOD[name][0]) for name in ("CLS", "FCP", "TTFB"))),
        beside(
            16,
            30,
            table(
                "slow-items",
                "Items whose pages are slow",
                "75th percentiles, the slowest first. Of few loads they say little.",
                _there(*_GOOD),
                top("id", "Item", 100, _SLOWEST),
                _SLOWEST,
                *(_p75(name) for name in _GOOD if name != "LCP"),
                values("Loads", "LCP.num"),
            ),
            chart(
                "lcp-by-device",
                "Largest contentful paint by device",
                "75th percentiles.",
                _there("LCP"),
                Series.ACROSS,
                top("device", "Device", 8, _SLOWEST),
                _SLOWEST,
            ),
        ),
        even(
            12,
            _by_day("duration", "Durations", "Of all events that say how long they took; choose an event above."),
            table(
                "durations-by-event",
                "Durations by event",
                "An event's duration is its sender's: of a request, of a session, of a stay.",
                _there("duration"),
                top("event", "Event", 20, count("Events")),
                count("Events"),
                *_percentiles("duration"),
            ),
        ),
        even(
            14,
            table(
                "slow-answers",
                "Items whose answers are slow",
                "By the 95th percentile of their durations.",
                _there("duration"),
                top("id", "Item", 100, _LONGEST),
                _LONGEST,
                percentile("p50", "duration.num", 50),
                values("Answers", "duration.num"),
            ),
            chart(
                "matomo-by-day",
                "Matomo's page timings by day",
                "75th percentiles of what Matomo's tracker reports.",
                _there(*_MATOMO),
                Series.LINES,
                by_day(),
                *(percentile(label, f"{name}.num", 75) for name, label in _MATOMO.items()),
            ),
        ),
        even(
            12,
            table(
                "vitals-by-country",
                "Web vitals by country",
                "75th percentiles of the countries with most loads.",
                _there(*_GOOD),
                top("country", "Country", 30, count("Events")),
                count("Events"),
                *map(_p75, _GOOD),
            ),
            table(
                "vitals-by-browser",
                "Web vitals by browser",
                "75th percentiles.",
                _there(*_GOOD),
                top("browser", "Browser", 20, count("Events")),
                count("Events"),
                *map(_p75, _GOOD),
            ),
        ),
    ),
)
