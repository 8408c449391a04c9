"""The usage dashboard: views, downloads and visitors of items, and where visitors come from."""

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
    metric_panel,
    table_panel,
    top_values,
    two_panel_row,
    unique_count,
    xy_panel,
)

_VIEW_QUERY: Final = 'event : "view"'
_DOWNLOAD_QUERY: Final = 'event : "download"'
_USE_QUERY: Final = 'event : ("view" or "download")'

_VIEWS: Final = count_events("Views")
_DOWNLOADS: Final = count_events("Downloads")
_USES: Final = count_events("Views and downloads")
_ITEM_VIEWS: Final = count_events("Views", _VIEW_QUERY)
_ITEM_DOWNLOADS: Final = count_events("Downloads", _DOWNLOAD_QUERY)
_VISITORS: Final = unique_count("Visitors", "visitor")

USAGE: Final = Dashboard(
    "usage",
    "usage of items",
    "How often items are viewed and downloaded, by how many people, from where. Bots are left out: to count them too, "
    "switch off the filter 'bots left out'.",
    (ITEM_CONTROL, EVENT_CONTROL, Control("channel", "Channel"), Control("country", "Country")),
    (
        equal_row(
            6,
            metric_panel("views", "Views", "As tock counts them.", _VIEW_QUERY, _VIEWS),
            metric_panel("downloads", "Downloads", "As tock counts them.", _DOWNLOAD_QUERY, _DOWNLOADS),
            metric_panel(
                "visitors",
                "Visitors",
                "Who comes on two days counts twice: a visitor is one for a day.",
                _USE_QUERY,
                _VISITORS,
                subtitle="one for each day",
            ),
            metric_panel(
                "sessions",
                "Sessions",
                "Sessions with a view or download.",
                _USE_QUERY,
                unique_count("Sessions", "session"),
            ),
            metric_panel("items", "Items used", "How many different items.", _USE_QUERY, unique_count("Items", "id")),
        ),
        two_panel_row(
            13,
            28,
            xy_panel(
                "views-by-day",
                "Views by day",
                "As tock's views.",
                _VIEW_QUERY,
                SeriesType.BARS,
                date_histogram(),
                _VIEWS,
            ),
            xy_panel(
                "visitors-by-day",
                "Visitors by day",
                "How many different people viewed or downloaded something.",
                _USE_QUERY,
                SeriesType.LINES,
                date_histogram(),
                _VISITORS,
            ),
        ),
        two_panel_row(
            13,
            28,
            xy_panel(
                "downloads-by-day",
                "Downloads by day and format",
                "Formats beyond the ten most wanted are one.",
                _DOWNLOAD_QUERY,
                SeriesType.BARS,
                date_histogram(),
                _DOWNLOADS,
                breakdown=top_values("format", "Format", 10, _DOWNLOADS, include_other=True),
            ),
            donut_panel(
                "downloads-by-format",
                "Downloads by format",
                "As tock's downloads.",
                _DOWNLOAD_QUERY,
                top_values("format", "Format", 10, _DOWNLOADS, include_other=True),
                _DOWNLOADS,
            ),
        ),
        two_panel_row(
            16,
            28,
            table_panel(
                "top-items",
                "Most viewed items",
                "A click on an item shows the dashboard for it alone.",
                _USE_QUERY,
                top_values("id", "Item", 100, _ITEM_VIEWS),
                _ITEM_VIEWS,
                _ITEM_DOWNLOADS,
                _VISITORS,
            ),
            table_panel(
                "downloaded-items",
                "Most downloaded items",
                "A click on an item shows the dashboard for it alone.",
                _DOWNLOAD_QUERY,
                top_values("id", "Item", 100, _DOWNLOADS),
                _DOWNLOADS,
            ),
        ),
        two_panel_row(
            16,
            24,
            table_panel(
                "referers",
                "Referers",
                "Referring pages, as in tock's referers.",
                _USE_QUERY,
                top_values("referer", "Referer", 100, _USES),
                _USES,
                _VISITORS,
            ),
            xy_panel(
                "channels-by-day",
                "Channels by day",
                "By search, a link, social media, a campaign, or directly.",
                _USE_QUERY,
                SeriesType.BARS,
                date_histogram(),
                _USES,
                breakdown=top_values("channel", "Channel", 10, _USES),
            ),
        ),
        equal_row(
            14,
            xy_panel(
                "countries",
                "Countries",
                "Where the networks of visitors are registered.",
                _USE_QUERY,
                SeriesType.HORIZONTAL_BARS,
                top_values("country", "Country", 15, _USES),
                _USES,
            ),
            donut_panel(
                "devices",
                "Devices",
                "What visitors use.",
                _USE_QUERY,
                top_values("device", "Device", 8, _USES, include_other=True),
                _USES,
            ),
            table_panel(
                "browsers",
                "Browsers",
                "With the systems they run on.",
                _USE_QUERY,
                top_values("browser", "Browser", 20, _USES),
                top_values("os", "System", 5, _USES),
                _USES,
                _VISITORS,
            ),
        ),
        equal_row(
            12,
            table_panel(
                "campaigns",
                "Campaigns",
                "Visits by URLs with utm_campaign.",
                _USE_QUERY,
                top_values("utm_campaign", "Campaign", 50, _USES),
                top_values("utm_source", "Source", 5, _USES),
                _USES,
                _VISITORS,
            ),
            table_panel(
                "referer-groups",
                "Referring sites",
                "Referers by site: Google for all its country domains.",
                _USE_QUERY,
                top_values("referer_group", "Site", 50, _USES),
                _USES,
                _VISITORS,
            ),
        ),
    ),
)
