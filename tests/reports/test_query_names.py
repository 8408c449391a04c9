"""Similar names are suggested for an unknown one."""

import pytest

from metronome.reports.query.names import suggest_names


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("refere", " (did you mean referer?)"),
        ("LCPP", " (did you mean LCP?)"),
        ("lcp", " (did you mean LCP?)"),
        ("EVENT", " (did you mean event?)"),
        ("zzz", ""),
        ("", ""),
        ("x" * 5000, ""),
    ],
)
def test_suggests_names_that_look_similar(name: str, suggestion: str) -> None:
    assert suggest_names(name, ["event", "referer", "LCP"]) == suggestion


def test_suggests_at_most_three_names_the_most_similar_first() -> None:
    assert suggest_names("color", ["colors", "colour", "color1", "color2", "dolor"]).count(" or ") == 2
    assert suggest_names("color", ["colours", "color_"]) == " (did you mean color_ or colours?)"
