"""The names that can be asked for, beside those of the stores, and which are near to one that cannot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.fields import COLUMN_FIELDS, is_top_level_name
from metronome.reports.query.names import NUMBER_FIELDS, TEXT_FIELDS, TOP_LEVEL_NAME, suggest_names
from metronome.stores.elasticsearch.template import index_template


def test_each_field_that_a_store_has_a_place_for_is_known() -> None:
    assert {*COLUMN_FIELDS} <= {*TEXT_FIELDS, *NUMBER_FIELDS}
    fields = index_template("x")["template"]["mappings"]["properties"]
    others = {"@timestamp", "@version", "params", "event.original"}
    assert fields.keys() - others <= {*TEXT_FIELDS, *NUMBER_FIELDS}
    numeric = {name for name, field in fields.items() if "num" in field.get("fields", {})}
    # Versions are counted up, and nobody measures them.
    assert numeric - {"enrich_version"} <= {*NUMBER_FIELDS}
    assert not {*TEXT_FIELDS} & {*NUMBER_FIELDS}


@given(st.from_regex(TOP_LEVEL_NAME, fullmatch=True) | st.text(max_size=120))
def test_names_looked_for_at_the_top_only_are_those_that_stores_have_there(name: str) -> None:
    if name != "params":
        assert is_top_level_name(name) == (TOP_LEVEL_NAME.fullmatch(name) is not None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("refere", " (do you mean referer?)"),
        ("LCPP", " (do you mean LCP?)"),
        ("lcp", " (do you mean LCP?)"),
        ("EVENT", " (do you mean event?)"),
        ("zzz", ""),
        ("", ""),
        ("x" * 5000, ""),
    ],
)
def test_near_names_are_those_that_look_like_it(name: str, said: str) -> None:
    assert suggest_names(name, ["event", "referer", "LCP"]) == said


def test_no_more_than_three_names_are_told_the_nearest_first() -> None:
    assert suggest_names("color", ["colors", "colour", "color1", "color2", "dolor"]).count(" or ") == 2
    assert suggest_names("color", ["colours", "color_"]) == " (do you mean color_ or colours?)"
