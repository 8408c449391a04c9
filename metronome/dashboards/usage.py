"""The dashboard of how items are used: how much, which, by whom, and how people come."""

from typing import Final

from metronome.dashboards.columns import by_day, count, distinct, top
from metronome.dashboards.dashboard import EVENT, ITEM, Control, Dashboard, beside, even
from metronome.dashboards.panels import Series, chart, donut, number, table

_VIEW: Final = 'event : "view"'
_DOWNLOAD: Final = 'event : "download"'
_USE: Final = 'event : ("view" or "download")'

_VIEWS: Final = count("Views")
_DOWNLOADS: Final = count("Downloads")
_USES: Final = count("Views and downloads")
_ITEM_VIEWS: Final = count("Views", _VIEW)
_ITEM_DOWNLOADS: Final = count("Downloads", _DOWNLOAD)
_VISITORS: Final = distinct("Visitors", "visitor")

USAGE: Final = Dashboard(
    "usage",
    "usage of items",
    "How often items are viewed and downloaded, by how many people, from where. Bots are left out: to count them too, "
    "switch off the filter 'bots left out'.",
    (ITEM, EVENT, Control("channel", "Channel"), Control("country", "Country")),
    (
        even(
            6,
            number("views", "Views", "As tock counts them.", _VIEW, _VIEWS),
            number("downloads", "Downloads", "As tock counts them.", _DOWNLOAD, _DOWNLOADS),
            number(
                "visitors",
                "Visitors",
                "Who comes on two days counts twice: a visitor is one for a day.",
                _USE,
                _VISITORS,
                below="one for each day",
            ),
            number("sessions", "Sessions", "Visits of the people who came.", _USE, distinct("Sessions", "session")),
            number("items", "Items used", "How many different items.", _USE, distinct("Items", "id")),
        ),
        beside(
            13,
            28,
            chart("views-by-day", "Views by day", "As tock's views.", _VIEW, Series.BARS, by_day(), _VIEWS),
            chart(
                "visitors-by-day",
                "Visitors by day",
                "How many different people viewed or downloaded something.",
                _USE,
                Series.LINES,
                by_day(),
                _VISITORS,
            ),
        ),
        beside(
            13,
            28,
            chart(
                "downloads-by-day",
                "Downloads by day and format",
                "Formats beyond the ten most wanted are one.",
                _DOWNLOAD,
                Series.BARS,
                by_day(),
                _DOWNLOADS,
                by=top("format", "Format", 10, _DOWNLOADS, others=True),
            ),
            donut(
                "downloads-by-format",
                "Downloads by format",
                "As tock's downloads.",
                _DOWNLOAD,
                top("format", "Format", 10, _DOWNLOADS, others=True),
                _DOWNLOADS,
            ),
        ),
        beside(
            16,
            28,
            table(
                "top-items",
                "Items that are viewed most",
                "A click on an item shows the dashboard for it alone.",
                _USE,
                top("id", "Item", 100, _ITEM_VIEWS),
                _ITEM_VIEWS,
                _ITEM_DOWNLOADS,
                _VISITORS,
            ),
            table(
                "downloaded-items",
                "Items that are downloaded most",
                "A click on an item shows the dashboard for it alone.",
                _DOWNLOAD,
                top("id", "Item", 100, _DOWNLOADS),
                _DOWNLOADS,
            ),
        ),
        beside(
            16,
            24,
            table(
                "referers",
                "Referers",
                "The pages from which people came, as tock's referers.",
                _USE,
                top("referer", "Referer", 100, _USES),
                _USES,
                _VISITORS,
            ),
            chart(
                "channels-by-day",
                "How people came, by day",
                "By search, a link, social media, a campaign, or directly.",
                _USE,
                Series.BARS,
                by_day(),
                _USES,
                by=top("channel", "Channel", 10, _USES),
            ),
        ),
        even(
            14,
            chart(
                "countries",
                "Countries",
                "Where the networks of visitors are registered.",
                _USE,
                Series.ACROSS,
                top("country", "Country", 15, _USES),
                _USES,
            ),
            donut(
                "devices", "Devices", "What people use.", _USE, top("device", "Device", 8, _USES, others=True), _USES
            ),
            table(
                "browsers",
                "Browsers",
                "With the systems they run on.",
                _USE,
                top("browser", "Browser", 20, _USES),
                top("os", "System", 5, _USES),
                _USES,
                _VISITORS,
            ),
        ),
        even(
            12,
            table(
                "campaigns",
                "Campaigns",
                "What addresses with utm_campaign brought.",
                _USE,
                top("utm_campaign", "Campaign", 50, _USES),
                top("utm_source", "Source", 5, _USES),
                _USES,
                _VISITORS,
            ),
            table(
                "referer-groups",
                "Sites that people came from",
                "Referers by site: Google whatever its country.",
                _USE,
                top("referer_group", "Site", 50, _USES),
                _USES,
                _VISITORS,
            ),
        ),
    ),
)
