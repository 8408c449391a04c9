"""docs/beacon.md describes every attribute, event and metric of the beacon, and no others."""

import re

from tests.docs.pages import first_cells, section, text_of

PAGE = "docs/beacon.md"


def source() -> str:
    return text_of("metronome/web/beacon.js")


def test_every_part_that_can_be_disabled_is_described() -> None:
    parts = set(re.findall(r"\benabled\('(\w+)'\)", source()))
    assert first_cells(section(PAGE, "What it counts")) == parts


def test_every_attribute_is_described() -> None:
    match = re.search(r"const \{ (.*?) \} = script\.dataset", source())
    assert match is not None
    names = {f"data-{re.split(r'[: ]', name.strip())[0]}" for name in match[1].split(",")}
    assert first_cells(section(PAGE, "Attributes")) == names


def test_every_event_is_described() -> None:
    events = set(re.findall(r"event: '(\w+)'", source()))
    rows = [row.split("|")[2] for row in section(PAGE, "What it counts").splitlines() if row.startswith("| ")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} - {"event"} == events


def test_every_metric_links_to_its_definition() -> None:
    metrics = {"TTFB", "FCP", "LCP", "CLS", "INP"}
    rows = section(PAGE, "Web vitals")
    assert first_cells(rows) == metrics
    assert rows.count("(https://web.dev/articles/") == len(metrics)
