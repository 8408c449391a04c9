"""Each panel's search, run on a real Elasticsearch, gives the same numbers as Metronome's reports."""

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import orjson
import pytest

from kibana.lens import RECORDS_FIELD
from metronome.cli.dashboards import load_saved_objects
from metronome.fields import TIMING_FIELDS
from tests.installations import create_salts
from tests.kibana.aggregations import Row, rows_of, search_body
from tests.kibana.kql import Query, fields_in
from tests.kibana.lens import Json, controls_on, filters_on, layer_of, of_kind, referred
from tests.servers import Server, delete_indices, refresh_indices, running_server, unique_name

ROOT: Final = Path(__file__).parents[2]
VISITS: Final = ROOT / "tests" / "data" / "visits.ndjson"
FIREFOX: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
PHONE: Final = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1"
)
GOOGLE: Final = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
GPT: Final = "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)"
PEOPLE: Final = ((FIREFOX, "129.132.19.216"), (PHONE, "8.8.8.8"))
MATOMO: Final = [name for name in TIMING_FIELDS if name.startswith("pf_")]
VITALS: Final = ["TTFB", "FCP", "LCP", "CLS", "INP"]

pytestmark = [pytest.mark.elasticsearch, pytest.mark.slow]


def generate_events() -> Iterator[dict[str, Any]]:
    """Yield events of all kinds that the panels use, over four days."""
    for day, hour, (person, (agent, address)) in product(range(17, 21), range(3), enumerate(PEOPLE)):
        who = {"agent": agent, "clientip": address, "ts": f"2015-05-{day}T{8 + hour:02}:{17 * person:02}:00Z"}
        item = f"doc{(day + hour + person) % 5}"
        page = {"id": item, "url": f"https://data.example.org/{item}", **who}
        yield {**page, "event": "view", "referer": ("https://www.google.com/", "https://arcgis.com/apps/")[hour % 2]}
        yield {**page, "event": "view", "url": f"{page['url']}?utm_campaign=spring&utm_source=letter{hour}"}
        yield {**page, "event": "download", "format": ("csv", "kml", "pdf")[hour]}
        vitals = {name: (day + 3 * hour + person) * (0.01 if name == "CLS" else 37.5) for name in VITALS}
        yield {**page, "event": "timing", **vitals}
        yield {**page, "event": "timing", **{name: 11.0 * (at + day + hour) for at, name in enumerate(MATOMO)}}
        yield {**page, "event": "request", "method": "POST", "status": 204, "duration": 20.5 * day + hour}
        yield {**page, "event": "error", "message": f"cannot load tile {day}{hour}"}
        if hour == 0:
            yield {**page, "event": "error", "method": "GET", "status": (404, 500)[person], "duration": 3}
        yield {**page, "event": "view", "agent": (GOOGLE, GPT)[person]}
    yield {"id": "doc1", "event": "error", "method": "GET", "status": 404, "agent": GPT, "ts": "2015-05-18T23:59:59Z"}


@dataclass(frozen=True)
class Installation:
    """A server, and the dashboards for its events."""

    server: Server
    elasticsearch: str
    prefix: str
    objects: list[Json]

    def search(self, body: Json, path: str = "_search") -> Json:
        request = urllib.request.Request(  # noqa: S310  # our own node
            f"{self.elasticsearch}/{self.prefix}-*/{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  # our own node
            found: Json = orjson.loads(answer.read())
        return found

    def panel(self, name: str) -> Json:
        return next(one for one in self.objects if one["id"] == f"{self.prefix}-{name}")

    def rows(self, name: str, *chosen: Query) -> list[Row]:
        """Return the rows of a panel on its dashboard, with values selected in the controls."""
        panel = self.panel(name)
        layer = layer_of(panel)
        return rows_of(layer, self.search(search_body(layer, [*self._left_out(panel["id"]), *chosen])))

    def _left_out(self, panel: str) -> list[Query]:
        (dashboard,) = [one for one in of_kind(self.objects, "dashboard") if ("lens", panel) in referred(one).values()]
        filters = filters_on(dashboard)
        assert all(each["meta"]["negate"] for each in filters)
        return [{"bool": {"must_not": [each["query"]]}} for each in filters]

    def ask(self, query: str) -> list[list[Any]]:
        answer = self.server.get(f"/query?limit=0&{query}")
        assert answer["total"] == len(answer["rows"])
        found: list[list[Any]] = answer["rows"]
        return found


@pytest.fixture(scope="module")
def installed(elasticsearch_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    prefix = unique_name("test")
    data = tmp_path_factory.mktemp("dashboards") / "data"
    try:
        create_salts(elasticsearch_url, prefix)
        with running_server(data, store=elasticsearch_url, index_prefix=prefix) as server:
            server.post_events(orjson.dumps([*generate_events()]))
            server.post_events(VISITS.read_bytes())
            server.wait_until_shipped()
            refresh_indices(elasticsearch_url, prefix)
            yield Installation(server, elasticsearch_url, prefix, load_saved_objects(prefix))
    finally:
        delete_indices(elasticsearch_url, prefix)


NAMES: Final = [one["id"].removeprefix("metronome-") for one in of_kind(load_saved_objects("metronome"), "lens")]
"""Names of all panels, with their dashboards."""


def listed(rows: list[Row]) -> list[list[Any]]:
    return [[*row.values()] for row in rows]


def there(rows: list[Row]) -> list[list[Any]]:
    """Return the rows with events: Metronome omits days without."""
    return [[*row.values()] for row in rows if [*row.values()][-1]]


def test_each_field_has_one_type(installed: Installation) -> None:
    fields = set()
    for panel in of_kind(installed.objects, "lens"):
        layer = layer_of(panel)
        fields |= {column["sourceField"] for column in layer.columns.values() if "sourceField" in column}
        fields |= fields_in(layer.query)
    for dashboard in of_kind(installed.objects, "dashboard"):
        fields |= {control["explicitInput"]["fieldName"] for control in controls_on(dashboard).values()}
    fields -= {RECORDS_FIELD}
    known = installed.search({}, f"_field_caps?fields={','.join(map(quote, sorted(fields)))}")["fields"]
    assert known.keys() == fields
    for name, kinds in known.items():
        assert len(kinds) == 1, f"{name} is of several types: {[*kinds]}"
        (kind,) = kinds.values()
        assert kind["searchable"], name
        assert kind["aggregatable"], name


def test_each_panel_shows_something(installed: Installation) -> None:
    for name in NAMES:
        rows = installed.rows(name)
        assert rows, name
        columns = layer_of(installed.panel(name)).columns.values()
        labels = [column["label"] for column in columns if not column["isBucketed"]]
        assert [label for label in labels if label in rows[0] and not any(row[label] for row in rows)] == [], name


SAME: Final = {
    "usage-views": "event=view",
    "usage-downloads": "event=download",
    "usage-visitors": "metrics=visitors&event=view&event=download",
    "usage-sessions": "metrics=sessions&event=view&event=download",
    "usage-items": "metrics=unique:id&event=view&event=download",
    "usage-views-by-day": "by=day&event=view",
    "usage-visitors-by-day": "by=day&metrics=visitors&event=view&event=download",
    "usage-downloads-by-format": "by=format&event=download&order=-count",
    "usage-countries": "by=country&event=view&event=download&order=-count",
    "usage-devices": "by=device&event=view&event=download&order=-count",
    "usage-referers": "by=referer&metrics=count,visitors&event=view&event=download&order=-count",
    "usage-referer-groups": "by=referer_group&metrics=count,visitors&event=view&event=download&order=-count",
    "usage-downloaded-items": "by=id&event=download&order=-count",
    "performance-durations-by-event": (
        "by=event&metrics=count,p50:duration,p75:duration,p95:duration&duration=*&order=-count"
    ),
    "health-events": "bots=1",
    "health-errors": "event=error",
    "health-sessions-hit": "event=error&metrics=sessions",
    "health-bot-kinds": "by=bot_kind&order=-count&bot=*",
    "health-errors-by-status": "by=status&event=error&order=-count",
    "health-enrichment": "by=enrich_version&metrics=count,last&order=-count&bots=1",
    "health-event-names": "by=event&metrics=count,last&order=-count&bots=1",
}
"""Panels that show the result of one query."""


def test_panels_show_the_results_of_queries(installed: Installation) -> None:
    for name, query in SAME.items():
        shown = there(installed.rows(name))
        size = max((c["params"].get("size", 0) for c in layer_of(installed.panel(name)).columns.values()), default=0)
        answered = installed.ask(query)
        assert shown == (answered[:size] if size else answered), name


TWO_GROUPS: Final = [
    ("usage-downloads-by-day", "by=format,day&event=download"),
    ("usage-channels-by-day", "by=channel,day&event=view&event=download"),
    ("usage-browsers", "by=browser,os&metrics=count,visitors&event=view&event=download"),
    ("usage-campaigns", "by=utm_campaign,utm_source&metrics=count,visitors&event=view&event=download"),
    ("health-errors-by-browser", "by=browser,browser_version&metrics=count,sessions&event=error"),
    ("health-events-by-day", "by=event,day&bots=1"),
    ("health-methods", "by=method,status&method=*&bots=1"),
]


def test_panels_with_two_groups_show_the_results_of_queries(installed: Installation) -> None:
    for name, query in TWO_GROUPS:
        shown = {tuple(row[:2]): row[2:] for row in there(installed.rows(name))}
        answered = {tuple(row[:2]): row[2:] for row in installed.ask(query)}
        assert shown
        assert {groups: answered[groups] for groups in shown} == shown
        groups = [column for column in layer_of(installed.panel(name)).columns.values() if column["isBucketed"]]
        most = groups[1]["params"].get("size")
        for outer in {outer for outer, _ in shown}:
            of_it, all_of_it = (
                sorted((row[0] for key, row in found.items() if key[0] == outer), reverse=True)
                for found in (shown, answered)
            )
            assert of_it == all_of_it[:most]


def every_item(installed: Installation) -> list[str]:
    return [one["id"] for one in installed.server.get("/items.json?limit=0&bots=1")["items"]]


def test_a_selected_item_is_shown_as_by_tock(installed: Installation) -> None:
    items = every_item(installed)
    assert len(items) > 5
    for item in items:
        tock = installed.server.get(f"/tock/{quote(item, safe='')}.json?limit=0")
        chosen = {"term": {"id": item}}
        assert dict(there(installed.rows("usage-views-by-day", chosen))) == tock["views"]
        assert dict(listed(installed.rows("usage-downloads-by-format", chosen))) == tock["downloads"]
        referers = {row["Referer"]: row["Views and downloads"] for row in installed.rows("usage-referers", chosen)}
        assert referers == dict([*tock["referers"].items()][:100])


def test_items_are_those_of_the_items_report(installed: Installation) -> None:
    listed_items = installed.server.get("/items.json?limit=100")["items"]
    answered = [[one["id"], one["views"], one["downloads"]] for one in listed_items]
    shown = [row[:3] for row in listed(installed.rows("usage-top-items"))]
    viewed = [row for row in shown if row[1]]
    assert viewed == [row for row in answered if row[1]]
    assert sorted(shown) == sorted(answered)


def test_percentiles_by_day_are_those_of_the_time_report(installed: Installation) -> None:
    timings = installed.server.get("/time.json?limit=0")["timings"]
    matomo = layer_of(installed.panel("performance-matomo-by-day")).columns.values()
    for name in TIMING_FIELDS:
        told = timings[name]
        if name in MATOMO:
            label = next(column["label"] for column in matomo if column.get("sourceField") == f"{name}.num")
            rows = installed.rows("performance-matomo-by-day")
            shown = {row["Day"]: row[label] for row in rows if row[label] is not None}
            assert shown == {day: each["p75"] for day, each in told.items()}, name
            continue
        rows = installed.rows(f"performance-{name.lower()}-by-day")
        shown_days = {row["Day"]: [row["p50"], row["p75"], row["p95"]] for row in rows if row["p50"] is not None}
        assert shown_days == {day: [each["p50"], each["p75"], each["p95"]] for day, each in told.items()}, name
        assert len(shown_days) >= 4


PERCENTILES: Final = [
    ("slow-items", "Item", "by=id&metrics=p75:LCP,p75:INP,p75:CLS,p75:FCP,p75:TTFB,count:LCP"),
    ("vitals-by-browser", "Browser", "by=browser&metrics=count,p75:LCP,p75:INP,p75:CLS,p75:FCP,p75:TTFB&TTFB=*"),
    ("vitals-by-country", "Country", "by=country&metrics=count,p75:LCP,p75:INP,p75:CLS,p75:FCP,p75:TTFB&TTFB=*"),
    ("lcp-by-device", "Device", "by=device&metrics=p75:LCP&LCP=*"),
    ("slow-answers", "Item", "by=id&metrics=p95:duration,p50:duration,count:duration&duration=*"),
]


def test_percentiles_by_group_are_the_results_of_queries(installed: Installation) -> None:
    for name, label, query in PERCENTILES:
        rows = installed.rows(f"performance-{name}")
        answered = {row[0]: row[1:] for row in installed.ask(f"{query}&event=timing&event=request&event=error")}
        assert rows
        for row in rows:
            found = {key: value for key, value in row.items() if key != label}
            wanted = dict(zip(_labels_as_asked(installed, name), answered[row[label]], strict=True))
            assert found == wanted


def _labels_as_asked(installed: Installation, name: str) -> list[str]:
    columns = layer_of(installed.panel(f"performance-{name}")).columns.values()
    return [column["label"] for column in columns if not column["isBucketed"]]


def test_web_vitals_are_the_results_of_queries(installed: Installation) -> None:
    for name in VITALS:
        ((shown,),) = listed(installed.rows(f"performance-{name.lower()}"))
        assert [[shown]] == installed.ask(f"metrics=p75:{name}&{name}=*")


def test_errors_are_those_of_the_errors_report(installed: Installation) -> None:
    report = installed.server.get("/errors.json?limit=100")
    days: dict[str, int] = {}
    for row in installed.rows("health-errors-by-day"):
        days[row["Day"]] = days.get(row["Day"], 0) + row["Errors"]
    assert {day: count for day, count in days.items() if count} == report["days"]
    assert listed(installed.rows("health-messages")) == [
        [each["message"], each["count"], each["sessions"], each["last"]] for each in report["messages"]
    ]
    assert listed(installed.rows("health-errors-by-item")) == [
        [each["id"], each["count"], count]
        for each in report["items"]
        for count in [installed.ask(f"metrics=sessions&event=error&id={quote(each['id'], safe='')}")[0][0]]
    ]


def test_errors_are_split_by_their_status(installed: Installation) -> None:
    counts: dict[str, int] = {}
    for row in installed.rows("health-errors-by-day"):
        counts[row["Status"]] = counts.get(row["Status"], 0) + row["Errors"]
    of = {"4xx": "status>=400&status<500", "5xx": "status>=500"}
    asked = {label: installed.ask(f"event=error&{query}")[0][0] for label, query in of.items()}
    assert counts == asked | {"Other": installed.ask("event=error")[0][0] - sum(asked.values())}
    assert all(counts.values())


def test_bots_are_distinguished(installed: Installation) -> None:
    rows = installed.rows("health-bots-by-day")
    of = {"People": "by=day&bot!=*", "Bots": "by=day&bot=*"}
    for whose, query in of.items():
        shown = [[row["Day"], row["Events"]] for row in rows if row["Whose"] == whose and row["Events"]]
        assert shown == installed.ask(query)
    errors = dict(installed.ask("by=bot&event=error&bot=*"))
    bots = [[name, count, errors.get(name, 0)] for name, count in installed.ask("by=bot&bot=*&order=-count")]
    assert listed(installed.rows("health-bots")) == bots[:100]
    assert sum(errors.values()) > 0


def test_shares_are_ratios_of_the_results_of_queries(installed: Installation) -> None:
    requests = "event=view&event=download&event=error&event=request"
    ((errors,),), ((every,),) = installed.ask("event=error"), installed.ask(requests)
    assert listed(installed.rows("health-error-share")) == [[errors / every]]
    ((bots,),), ((events,),) = installed.ask("bot=*"), installed.ask("bots=1")
    assert listed(installed.rows("health-bot-share")) == [[bots / events]]
    of_day = dict(installed.ask("by=day&event=error"))
    by_day = {day: of_day.get(day, 0) / count for day, count in installed.ask(f"by=day&{requests}")}
    shown = {row["Day"]: row["Errors' share"] for row in installed.rows("health-error-share-by-day")}
    assert {day: share for day, share in shown.items() if share is not None} == by_day
