"""The health dashboard: errors, bots, and accepted events."""

from typing import Final

from kibana.lens import (
    EVENT_CONTROL,
    ITEM_CONTROL,
    Control,
    Dashboard,
    SeriesType,
    count_events,
    date_histogram,
    donut_panel,
    equal_row,
    filter_buckets,
    last_timestamp,
    metric_panel,
    ratio,
    table_panel,
    top_values,
    two_panel_row,
    unique_count,
    xy_panel,
)

_ALL_EVENTS: Final = ""
_BOT_QUERY: Final = "bot : *"
_HUMAN_QUERY: Final = "not bot : *"
_ERROR_QUERY: Final = f'event : "error" and {_HUMAN_QUERY}'
_REQUEST_QUERY: Final = f'event : ("view" or "download" or "error" or "request") and {_HUMAN_QUERY}'

_ERRORS: Final = count_events("Errors")
_EVENTS: Final = count_events("Events")
_SESSIONS: Final = unique_count("Sessions", "session")

HEALTH: Final = Dashboard(
    "health",
    "errors and health",
    "What fails, how much of the traffic is bots', and which events arrive. Panels of errors leave bots out; "
    "the others include them.",
    (ITEM_CONTROL, EVENT_CONTROL, Control("status", "Status"), Control("bot_kind", "Kind of bot")),
    (
        equal_row(
            6,
            metric_panel("errors", "Errors", "Of people.", _ERROR_QUERY, _ERRORS),
            metric_panel(
                "sessions-hit",
                "Sessions with errors",
                "Number of sessions with at least one error.",
                _ERROR_QUERY,
                _SESSIONS,
            ),
            metric_panel(
                "error-share",
                "Share of errors",
                "Of views, downloads, requests and errors of people.",
                _REQUEST_QUERY,
                ratio("Errors' share", 'event : "error"'),
            ),
            metric_panel("bot-share", "Bots' share", "Of all events.", _ALL_EVENTS, ratio("Bots' share", _BOT_QUERY)),
            metric_panel("events", "Events", "Of all kinds, people's and bots'.", _ALL_EVENTS, _EVENTS),
        ),
        two_panel_row(
            13,
            28,
            xy_panel(
                "errors-by-day",
                "Errors by day and status",
                "Of people. Scripts' errors have no status, and are 'Other'.",
                _ERROR_QUERY,
                SeriesType.BARS,
                date_histogram(),
                _ERRORS,
                breakdown=filter_buckets(
                    "Status",
                    ("4xx", "status.num >= 400 and status.num < 500"),
                    ("5xx", "status.num >= 500"),
                    ("Other", "not status.num >= 400"),
                ),
            ),
            xy_panel(
                "error-share-by-day",
                "Share of errors by day",
                "Of views, downloads, requests and errors of people.",
                _REQUEST_QUERY,
                SeriesType.LINES,
                date_histogram(),
                ratio("Errors' share", 'event : "error"'),
            ),
        ),
        two_panel_row(
            16,
            30,
            table_panel(
                "messages",
                "Errors by message",
                "Messages that differ in numbers and ids only are one.",
                _ERROR_QUERY,
                top_values("error_group", "Message", 100, _ERRORS),
                _ERRORS,
                _SESSIONS,
                last_timestamp("Last"),
            ),
            donut_panel(
                "errors-by-status",
                "Errors by status",
                "HTTP's, of web servers.",
                _ERROR_QUERY,
                top_values("status", "Status", 10, _ERRORS, include_other=True),
                _ERRORS,
            ),
        ),
        equal_row(
            14,
            table_panel(
                "errors-by-item",
                "Errors by item",
                "What they were about.",
                _ERROR_QUERY,
                top_values("id", "Item", 100, _ERRORS),
                _ERRORS,
                _SESSIONS,
            ),
            table_panel(
                "errors-by-browser",
                "Errors by browser",
                "With its version.",
                _ERROR_QUERY,
                top_values("browser", "Browser", 20, _ERRORS),
                top_values("browser_version", "Version", 10, _ERRORS),
                _ERRORS,
                _SESSIONS,
            ),
        ),
        two_panel_row(
            13,
            28,
            xy_panel(
                "events-by-day",
                "Events by day and event",
                "By the time they happened. People's and bots'.",
                _ALL_EVENTS,
                SeriesType.BARS,
                date_histogram(),
                _EVENTS,
                breakdown=top_values("event", "Event", 10, _EVENTS, include_other=True),
            ),
            table_panel(
                "event-names",
                "Events by event",
                "And when the newest happened: a sender that fell silent shows here.",
                _ALL_EVENTS,
                top_values("event", "Event", 100, _EVENTS),
                _EVENTS,
                last_timestamp("Last"),
            ),
        ),
        equal_row(
            13,
            xy_panel(
                "bots-by-day",
                "Bots' share by day",
                "Of all events.",
                _ALL_EVENTS,
                SeriesType.PERCENTAGE_BARS,
                date_histogram(),
                _EVENTS,
                breakdown=filter_buckets("Whose", ("People", _HUMAN_QUERY), ("Bots", _BOT_QUERY)),
            ),
            donut_panel(
                "bot-kinds",
                "Kinds of bots",
                "What bots are for: search, AI, archives, monitors and others.",
                _BOT_QUERY,
                top_values("bot_kind", "Kind", 10, _EVENTS),
                _EVENTS,
            ),
            table_panel(
                "bots",
                "Bots",
                "And how many errors each met.",
                _BOT_QUERY,
                top_values("bot", "Bot", 100, _EVENTS),
                _EVENTS,
                count_events("Errors", 'event : "error"'),
            ),
        ),
        equal_row(
            10,
            table_panel(
                "methods",
                "Requests by method and status",
                "Of web servers' logs and middleware, people's and bots'.",
                "method : *",
                top_values("method", "Method", 10, _EVENTS),
                top_values("status", "Status", 20, _EVENTS),
                _EVENTS,
            ),
            table_panel(
                "enrichment",
                "Events by the rules that enriched them",
                "Those of older rules are brought up to date by metronome reenrich.",
                _ALL_EVENTS,
                top_values("enrich_version", "Version of the rules", 20, _EVENTS),
                _EVENTS,
                last_timestamp("Last"),
            ),
        ),
    ),
    include_bots=True,
)
