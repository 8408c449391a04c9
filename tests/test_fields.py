"""The table of known fields is consistent in itself; its contents are part of the frozen interface."""

from collections import Counter

from metronome.fields import FIELDS, REFERRER_FIELDS, RESERVED_FIELDS, TIMESTAMP_FIELDS, is_top_level_name


def test_no_name_means_two_fields() -> None:
    assert [
        name for name, count in Counter(name for field in FIELDS for name in field.names).items() if count > 1
    ] == []


def test_every_name_but_reserved_ones_can_be_at_the_top_level() -> None:
    assert {name for field in FIELDS for name in field.names if not is_top_level_name(name)} == RESERVED_FIELDS


def test_the_rollup_counts_by_columns_of_limited_length() -> None:
    # The referrer is limited as it is normalized: an event with a longer one is not rejected.
    assert [
        field.name
        for field in FIELDS
        if field.rollup and not (field.column and (field.max_bytes or field.name == "referer"))
    ] == []


def test_the_first_name_of_a_field_takes_precedence() -> None:
    assert TIMESTAMP_FIELDS == ("@timestamp", "timestamp", "ts", "time")
    assert REFERRER_FIELDS == ("referer", "referrer", "urlref")
