"""What the script for web pages can be told, and what it sends, is described; and nothing else is."""

import re

from tests.docs.pages import first_cells, section, text_of

PAGE = "docs/beacon.md"


def source() -> str:
    return text_of("metronome/web/beacon.js")


def test_each_part_that_can_be_left_out_is_described() -> None:
    parts = set(re.findall(r"\bdoes\('(\w+)'\)", source()))
    assert first_cells(section(PAGE, "What it counts")) == parts


def test_each_attribute_is_described() -> None:
    found = re.search(r"const \{ (.*?) \} = script\.dataset", source())
    assert found is not None
    names = {f"data-{re.split(r'[: ]', name.strip())[0]}" for name in found[1].split(",")}
    assert first_cells(section(PAGE, "Attributes")) == names


def test_each_event_is_described() -> None:
    events = set(re.findall(r"event: '(\w+)'", source()))
    rows = [row.split("|")[2] for row in section(PAGE, "What it counts").splitlines() if row.startswith("| ")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} - {"event"} == events


def test_each_measure_has_its_definition() -> None:
    measures = {"TTFB", "FCP", "LCP", "CLS", "INP"}
    rows = section(PAGE, "Speed: web vitals")
    assert first_cells(rows) == measures
    assert rows.count("(https://web.dev/articles/") == len(measures)
