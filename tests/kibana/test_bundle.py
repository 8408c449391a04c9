"""The saved objects are consistent, and use fields that every index has."""

from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import orjson

from kibana.__main__ import DASHBOARDS, FILES, build_saved_objects, encode_saved_objects
from kibana.lens import RECORDS_FIELD
from metronome.fields import TIMING_FIELDS
from metronome.stores.elasticsearch.template import defaults_template, index_pattern
from tests.kibana.kql import fields_in
from tests.kibana.lens import (
    LAYER_REFERENCE,
    Json,
    by_id,
    controls_on,
    filters_on,
    layer_of,
    named_columns,
    of_kind,
    panels_on,
    referred,
    shown_layers,
    texts,
)

ROOT = Path(__file__).parents[2]
OBJECTS = build_saved_objects()
VERSIONS = {"index-pattern": "8.0.0", "lens": "8.9.0", "dashboard": "10.2.0"}

ALL_DASHBOARDS: Final = of_kind(OBJECTS, "dashboard")
PANELS: Final = of_kind(OBJECTS, "lens")


def typed_fields() -> dict[str, str]:
    """Return the fields that every index has, by the index template, with their types."""
    found = {}
    for name, field in defaults_template()["template"]["mappings"]["properties"].items():
        found[name] = field["type"]
        found |= {f"{name}.{inner}": each["type"] for inner, each in field.get("fields", {}).items()}
    return found


class TestSavedObjects:
    def test_the_generated_files_are_up_to_date(self) -> None:
        for name in FILES:
            assert (ROOT / name).read_bytes() == encode_saved_objects(), "run `make docs`"

    def test_there_are_a_data_view_three_dashboards_and_their_panels(self) -> None:
        assert Counter(one["type"] for one in OBJECTS) == {
            "index-pattern": 1,
            "dashboard": 3,
            "lens": sum(1 for dashboard in DASHBOARDS for _ in dashboard.iterate_panels()),
        }
        assert [one["id"] for one in of_kind(OBJECTS, "dashboard")] == [
            dashboard.saved_object_id for dashboard in DASHBOARDS
        ]

    def test_each_has_the_version_of_its_format(self) -> None:
        for one in OBJECTS:
            assert (one["coreMigrationVersion"], one["typeMigrationVersion"]) == ("8.8.0", VERSIONS[one["type"]])
            assert one["managed"] is False

    def test_json_in_strings_is_valid_and_sorted(self) -> None:
        found: Counter[str] = Counter()
        for one in OBJECTS:
            for name, text in texts(one["attributes"]):
                assert orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode() == text
                found[name] += 1
        assert found["panelsJSON"] == 6
        assert found["fieldFormatMap"] == found["searchSourceJSON"] / 3 == 1

    def test_all_references_are_to_objects_in_the_bundle(self) -> None:
        there = {(one["type"], one["id"]) for one in OBJECTS}
        for one in OBJECTS:
            assert {*referred(one).values()} <= there
            assert len(referred(one)) == len(one["references"])

    def test_each_panel_is_on_a_dashboard(self) -> None:
        shown = {needed for dashboard in of_kind(OBJECTS, "dashboard") for needed in referred(dashboard).values()}
        assert {("lens", panel["id"]) for panel in of_kind(OBJECTS, "lens")} <= shown


class TestDataView:
    def test_covers_the_indices_of_the_index_template(self) -> None:
        (view,) = of_kind(OBJECTS, "index-pattern")
        assert view["attributes"]["title"] == index_pattern("metronome")
        assert view["attributes"]["timeFieldName"] == "@timestamp"

    def test_formats_each_timing_in_its_unit(self) -> None:
        (view,) = of_kind(OBJECTS, "index-pattern")
        formats = orjson.loads(view["attributes"]["fieldFormatMap"])
        timed = {name for name, each in formats.items() if each["params"].get("inputFormat") == "milliseconds"}
        assert timed == {f"{name}.num" for name in TIMING_FIELDS} - {"CLS.num"}
        assert formats["CLS.num"]["id"] == "number"


class TestPanels:
    def test_shows_exactly_the_computed_columns(self) -> None:
        for panel in PANELS:
            layer = layer_of(panel)
            assert shown_layers(panel) == [layer.name]
            parts = {name for column in layer.columns.values() for name in column.get("references", ())}
            assert named_columns(panel) == layer.columns.keys() - parts
            assert referred(panel).keys() == {f"{LAYER_REFERENCE}{layer.name}"}

    def test_groups_come_first_and_values_are_sorted_by_metrics_that_lens_can_sort_by(self) -> None:
        for panel in PANELS:
            columns = layer_of(panel).columns
            order = [column["isBucketed"] for column in columns.values()]
            assert order == sorted(order, reverse=True)
            for column in columns.values():
                assert {*column.get("references", ())} <= columns.keys()
                if column["operationType"] == "terms":
                    by = columns[column["params"]["orderBy"]["columnId"]]
                    # What Lens can sort by.
                    assert not by["isBucketed"]
                    assert "references" not in by

    def test_fields_are_in_every_index(self) -> None:
        for panel in PANELS:
            layer = layer_of(panel)
            queries = [
                layer.query,
                *(column["filter"]["query"] for column in layer.columns.values() if "filter" in column),
            ]
            for column in layer.columns.values():
                queries += [each["input"]["query"] for each in column["params"].get("filters", ())]
            fields = {column["sourceField"] for column in layer.columns.values() if "sourceField" in column}
            fields |= {field for query in queries for field in fields_in(query)}
            assert fields - {RECORDS_FIELD} <= typed_fields().keys()

    def test_metrics_use_numeric_fields_and_groups_use_keyword_fields(self) -> None:
        wanted = {"percentile": "double", "terms": "keyword", "unique_count": "keyword", "date_histogram": "date"}
        for panel in PANELS:
            for column in layer_of(panel).columns.values():
                if column["operationType"] in wanted:
                    assert typed_fields()[column["sourceField"]] == wanted[column["operationType"]]

    def test_has_a_title_a_description_and_labels(self) -> None:
        for panel in PANELS:
            assert panel["attributes"]["title"]
            assert panel["attributes"]["description"].endswith(".")
            assert all(column["label"] for column in layer_of(panel).columns.values())

    def test_every_timing_of_the_time_report_is_on_the_performance_dashboard(self) -> None:
        shown = {
            column["sourceField"]
            for panel in of_kind(OBJECTS, "lens")
            if panel["id"].startswith("metronome-performance-")
            for column in layer_of(panel).columns.values()
            if column["operationType"] == "percentile"
        }
        assert shown == {f"{name}.num" for name in TIMING_FIELDS}


def overlap(one: Json, other: Json) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


class TestDashboards:
    def test_panels_fill_the_grid_without_overlap(self) -> None:
        for dashboard in ALL_DASHBOARDS:
            places = [panel["gridData"] for panel in panels_on(dashboard)]
            assert all(place["x"] >= 0 and place["x"] + place["w"] <= 48 and place["w"] >= 8 for place in places)
            assert not any(overlap(one, other) for one, other in combinations(places, 2))
            assert sum(place["w"] * place["h"] for place in places) == 48 * max(
                place["y"] + place["h"] for place in places
            )

    def test_each_panel_refers_to_a_saved_panel(self) -> None:
        for dashboard in ALL_DASHBOARDS:
            panels, needed = panels_on(dashboard), referred(dashboard)
            assert len({panel["panelIndex"] for panel in panels}) == len(panels)
            for panel in panels:
                name = panel["panelIndex"]
                assert panel["gridData"]["i"] == name
                assert panel["panelRefName"] == f"panel_{name}"
                kind, saved = needed[f"{name}:panel_{name}"]
                assert (kind, saved) == (panel["type"], f"{dashboard['id']}-{name}")
                assert saved in by_id(OBJECTS)

    def test_has_controls_for_items_and_events(self) -> None:
        for dashboard in ALL_DASHBOARDS:
            controls, needed = controls_on(dashboard), referred(dashboard)
            assert {"id", "event"} <= {control["explicitInput"]["fieldName"] for control in controls.values()}
            for name, control in controls.items():
                assert control["explicitInput"]["id"] == name
                assert typed_fields()[control["explicitInput"]["fieldName"]] == "keyword"
                assert needed[f"controlGroup_{name}:optionsListDataView"][0] == "index-pattern"
            assert sorted(control["order"] for control in controls.values()) == [*range(len(controls))]

    def test_bots_are_excluded_by_a_visible_filter_or_by_each_panel(self) -> None:
        for dashboard in ALL_DASHBOARDS:
            filters = filters_on(dashboard)
            if not filters:
                layers = [
                    layer_of(by_id(OBJECTS)[name]) for kind, name in referred(dashboard).values() if kind == "lens"
                ]
                errors = [layer.query for layer in layers if '"error"' in layer.query]
                assert len(errors) > 5
                assert [query for query in errors if not query.endswith(" and not bot : *")] == []
                continue
            (left_out,) = filters
            assert left_out["query"] == {"exists": {"field": "bot"}}
            assert left_out["meta"]["negate"] is True
            assert left_out["meta"]["disabled"] is False
            assert referred(dashboard)[left_out["meta"]["indexRefName"]] == ("index-pattern", "metronome-events")
            assert f"'{left_out['meta']['alias']}'" in dashboard["attributes"]["description"]

    def test_has_no_unused_references(self) -> None:
        for dashboard in ALL_DASHBOARDS:
            used = {f"{panel['panelIndex']}:panel_{panel['panelIndex']}" for panel in panels_on(dashboard)}
            used |= {f"controlGroup_{name}:optionsListDataView" for name in controls_on(dashboard)}
            used |= {each["meta"]["indexRefName"] for each in filters_on(dashboard)}
            assert referred(dashboard).keys() == used


def test_the_docs_name_every_panel() -> None:
    page = (ROOT / "docs" / "kibana.md").read_text()
    missing: list[Any] = [
        (dashboard.name, panel.title)
        for dashboard in DASHBOARDS
        for panel in dashboard.iterate_panels()
        if panel.title not in page
    ]
    assert missing == []
