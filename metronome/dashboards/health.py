"""The dashboard of what fails, what robots do, and what comes in."""

from typing import Final

from metronome.dashboards.columns import by_day, count, distinct, latest, share, split, top
from metronome.dashboards.dashboard import EVENT, ITEM, Control, Dashboard, beside, even
from metronome.dashboards.panels import Series, chart, donut, number, table

_EVERYTHING: Final = ""
_BOT: Final = "bot : *"
_PEOPLE: Final = "not bot : *"
_ERROR: Final = f'event : "error" and {_PEOPLE}'
_REQUEST: Final = f'event : ("view" or "download" or "error" or "request") and {_PEOPLE}'

_ERRORS: Final = count("Errors")
_EVENTS: Final = count("Events")
_SESSIONS: Final = distinct("Sessions", "session")

HEALTH: Final = Dashboard(
    "health",
    "errors and health",
    "What fails for people, how much of the traffic is bots', and what comes in. Errors are those of people; what "
    "bots met is told apart.",
    (ITEM, EVENT, Control("status", "Status"), Control("bot_kind", "Kind of bot")),
    (
        even(
            6,
            number("errors", "Errors", "Of people.", _ERROR, _ERRORS),
            number("sessions-hit", "Sessions hit", "Sessions that saw an error.", _ERROR, _SESSIONS),
            number(
                "error-share",
                "Share of errors",
                "Of views, downloads, requests and errors of people.",
                _REQUEST,
                share("Errors' share", 'event : "error"'),
            ),
            number("bot-share", "Bots' share", "Of all events.", _EVERYTHING, share("Bots' share", _BOT)),
            number("events", "Events", "Of all kinds, people's and bots'.", _EVERYTHING, _EVENTS),
        ),
        beside(
            13,
            28,
            chart(
                "errors-by-day",
                "Errors by day and status",
                "Of people. Scripts' errors have no status, and are 'Other'.",
                _ERROR,
                Series.BARS,
                by_day(),
                _ERRORS,
                by=split(
                    "Status",
                    ("4xx", "status.num >= 400 and status.num < 500"),
                    ("5xx", "status.num >= 500"),
                    ("Other", "not status.num >= 400"),
                ),
            ),
            chart(
                "error-share-by-day",
                "Share of errors by day",
                "Of views, downloads, requests and errors of people.",
                _REQUEST,
                Series.LINES,
                by_day(),
                share("Errors' share", 'event : "error"'),
            ),
        ),
        beside(
            16,
            30,
            table(
                "messages",
                "Errors by message",
                "Messages that differ in numbers and ids only are one.",
                _ERROR,
                top("error_group", "Message", 100, _ERRORS),
                _ERRORS,
                _SESSIONS,
                latest("Last"),
            ),
            donut(
                "errors-by-status",
                "Errors by status",
                "HTTP's, of web servers.",
                _ERROR,
                top("status", "Status", 10, _ERRORS, others=True),
                _ERRORS,
            ),
        ),
        even(
            14,
            table(
                "errors-by-item",
                "Errors by item",
                "What they were about.",
                _ERROR,
                top("id", "Item", 100, _ERRORS),
                _ERRORS,
                _SESSIONS,
            ),
            table(
                "errors-by-browser",
                "Errors by browser",
                "With its version.",
                _ERROR,
                top("browser", "Browser", 20, _ERRORS),
                top("browser_version", "Version", 10, _ERRORS),
                _ERRORS,
                _SESSIONS,
            ),
        ),
        beside(
            13,
            28,
            chart(
                "events-by-day",
                "Events taken, by day and event",
                "By the time they happened. People's and bots'.",
                _EVERYTHING,
                Series.BARS,
                by_day(),
                _EVENTS,
                by=top("event", "Event", 10, _EVENTS, others=True),
            ),
            table(
                "event-names",
                "Events taken, by event",
                "And when the newest happened: a sender that fell silent shows here.",
                _EVERYTHING,
                top("event", "Event", 100, _EVENTS),
                _EVENTS,
                latest("Last"),
            ),
        ),
        even(
            13,
            chart(
                "bots-by-day",
                "Bots' share by day",
                "Of all events.",
                _EVERYTHING,
                Series.SHARES,
                by_day(),
                _EVENTS,
                by=split("Whose", ("People", _PEOPLE), ("Bots", _BOT)),
            ),
            donut(
                "bot-kinds",
                "Kinds of bots",
                "What bots are for: search, AI, archives, monitors and others.",
                _BOT,
                top("bot_kind", "Kind", 10, _EVENTS),
                _EVENTS,
            ),
            table(
                "bots",
                "Bots",
                "And how many errors each met.",
                _BOT,
                top("bot", "Bot", 100, _EVENTS),
                _EVENTS,
                count("Errors", 'event : "error"'),
            ),
        ),
        even(
            10,
            table(
                "methods",
                "Requests by method and status",
                "Of web servers' logs and middleware, people's and bots'.",
                "method : *",
                top("method", "Method", 10, _EVENTS),
                top("status", "Status", 20, _EVENTS),
                _EVENTS,
            ),
            table(
                "enrichment",
                "Events by the rules that enriched them",
                "Those of older rules are brought up to date by metronome reenrich.",
                _EVERYTHING,
                top("enrich_version", "Version of the rules", 20, _EVENTS),
                _EVENTS,
                latest("Last"),
            ),
        ),
    ),
    bots=True,
)
