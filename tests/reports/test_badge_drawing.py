"""Badges as pictures: well-formed whatever their label is, as wide as their texts, and readable."""

from collections.abc import Iterator
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import InvalidQuery
from metronome.reports.badges import (
    COLORS,
    CORNER_RADIUS_BY_STYLE,
    LABEL_MAX_CHARACTERS,
    BadgeStyle,
    abbreviate_number,
    contrast_color,
    draw_badge,
    parse_badge_style,
    text_width,
)

SVG = "{http://www.w3.org/2000/svg}"
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def read(picture: str) -> ET.Element:
    return ET.fromstring(picture)  # noqa: S314  # our own


def texts(picture: ET.Element) -> list[str | None]:
    return [text.text for text in picture.iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1k"),
        (1049, "1k"),
        (1100, "1.1k"),
        (1999, "1.9k"),
        (9999, "9.9k"),
        (10_000, "10k"),
        (12_345, "12k"),
        (999_999, "999k"),
        (1_000_000, "1M"),
        (3_400_000, "3.4M"),
        (12_000_000_000, "12G"),
        (5_600_000_000_000, "5.6T"),
    ],
)
def test_abbreviates_numbers(number: int, text: str) -> None:
    assert abbreviate_number(number) == text


@given(st.integers(0, 10**15 - 1))
def test_an_abbreviated_number_has_at_most_three_digits_and_is_rounded_down(number: int) -> None:
    short = abbreviate_number(number)
    digits = short.rstrip("kMGT")
    # In tenths, so that no rounding of floats comes in.
    whole, _, tenth = digits.partition(".")
    shown = (int(whole) * 10 + int(tenth or 0)) * UNITS[short.removeprefix(digits)] // 10
    assert len(digits.replace(".", "")) <= 3
    assert shown <= number < shown * 1.1 + 1


@given(
    st.text(), st.sampled_from(sorted(CORNER_RADIUS_BY_STYLE)), st.sampled_from(sorted(COLORS)), st.integers(0, 10**9)
)
def test_any_label_gives_a_well_formed_image_with_that_label(label: str, style: str, color: str, number: int) -> None:
    try:
        look = parse_badge_style({"label": label, "style": style, "color": color})
    except InvalidQuery:
        assert len(label) > LABEL_MAX_CHARACTERS
        return
    picture = read(draw_badge(look.label, abbreviate_number(number), "a title", look.color, look.corner_radius))
    assert texts(picture) == [look.label, abbreviate_number(number)]
    assert [element.tag.removeprefix(SVG) for element in picture.iter()] == ["svg", "title", *PARTS]


PARTS = ["path", "path", "g", "text", "text"]


def test_escapes_markup_in_labels() -> None:
    label = "</text><script>alert('\"&amp;')</script>{{ value }}]]>"
    picture = read(draw_badge(label, "<1>", '"&<>', "#000000", 3))
    assert texts(picture) == [label, "<1>"]
    assert picture.get("aria-label") == picture.findtext(f"{SVG}title") == '"&<>'
    assert not list(picture.iter(f"{SVG}script"))


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ("", "views"),
        (" \n", "views"),
        ("  all \t readers\n", "all readers"),
        ("a\0b\x1b\ufffe\ud800", "a\ufffdb\ufffd\ufffd\ufffd"),
        ("x" * LABEL_MAX_CHARACTERS, "x" * LABEL_MAX_CHARACTERS),
        ("😀" * LABEL_MAX_CHARACTERS, "😀" * LABEL_MAX_CHARACTERS),
    ],
)
def test_replaces_characters_that_xml_cannot_contain(given: str, label: str) -> None:
    assert parse_badge_style({"label": given}).label == label


def test_missing_parameters_have_defaults() -> None:
    assert parse_badge_style({}) == BadgeStyle("views", "views", COLORS["blue"], 3)
    assert parse_badge_style({"metric": "downloads"}).label == "downloads"
    assert parse_badge_style(dict.fromkeys(("metric", "label", "color", "style"), "")) == parse_badge_style({})


@pytest.mark.parametrize(
    ("text", "color"),
    [
        ("green", COLORS["green"]),
        ("0a6", "#00aa66"),
        ("#0A6", "#00aa66"),
        ("0969DA", "#0969da"),
        ("#123456", "#123456"),
    ],
)
def test_a_color_is_a_name_or_hexadecimal(text: str, color: str) -> None:
    assert parse_badge_style({"color": text}).color == color


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("metric", "visitors", "invalid metric=visitors: expected one of views, downloads"),
        ("style", "plastic", "invalid style=plastic: expected one of flat, flat-square"),
        ("color", "pinkish", "invalid color=pinkish: expected 0969da or one of blue, green"),
        ("color", "url(//x)", "invalid color=url(//x)"),
        ("color", "12345", "invalid color=12345"),
        ("color", "#0000000", "invalid color=#0000000"),
        ("color", "١٢٣", "invalid color=١٢٣"),
        ("label", "x" * (LABEL_MAX_CHARACTERS + 1), "label has 65 characters: use at most 64"),
    ],
)
def test_rejects_invalid_styles(name: str, value: str, says: str) -> None:
    with pytest.raises(InvalidQuery) as refused:
        parse_badge_style({name: value})
    assert says in str(refused.value)


@pytest.mark.parametrize("corner", [0, 3])
def test_boxes_are_as_wide_as_their_texts(corner: int) -> None:
    picture = read(draw_badge("Wide", "ill", "", "#000000", corner))
    left, right = text_width("Wide"), text_width("ill")
    assert int(picture.get("width", "")) == left + right + 24
    assert [(text.get("x"), text.get("textLength")) for text in picture.iter(f"{SVG}text")] == [
        (f"{6 + left / 2:g}", str(left)),
        (f"{left + 12 + 6 + right / 2:g}", str(right)),
    ]


def test_texts_of_any_script_have_a_width() -> None:
    assert text_width("") == 0
    assert text_width("iiii") < text_width("nnnn") < text_width("mmmm")
    assert text_width("e\u0301") == text_width("é") == text_width("e")
    assert text_width("訪問") == 2 * text_width("W")


@pytest.mark.parametrize("color", [*COLORS.values(), "#000000", "#ffffff", "#ff69b4", "#777777"])
def test_the_number_has_enough_contrast_on_every_color(color: str) -> None:
    luminances = sorted(map(luminance, (color, {"#fff": "#ffffff", "#000": "#000000"}[contrast_color(color)])))
    # What WCAG 2.2 asks of texts (1.4.3, level AA).
    assert (luminances[1] + 0.05) / (luminances[0] + 0.05) >= 4.5


def luminance(color: str) -> float:
    def linear() -> Iterator[float]:
        for channel in bytes.fromhex(color[1:]):
            part = channel / 255
            yield part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4

    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear(), strict=True))
