"""The media type that a client would rather have."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.web.negotiation import negotiate_media_type

JSON, CSV, LINES = OFFERED = ("application/json", "text/csv", "application/x-ndjson")
BROWSER: Final = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ((), JSON),
        (("",), JSON),
        (("*/*",), JSON),
        ((BROWSER,), JSON),
        (("text/csv",), CSV),
        (("TEXT/CSV ; Charset=utf-8",), CSV),
        (("text/*",), CSV),
        (("text/csv, */*",), CSV),
        (("*/*, text/csv",), CSV),
        (("application/*, text/csv",), CSV),
        (("text/csv;q=0.5, application/json",), JSON),
        (("text/csv;q=0.5, application/json;q=0.4",), CSV),
        (("text/csv;q=0.5", "application/x-ndjson;q=0.6"), LINES),
        (("text/csv;q=0, */*",), JSON),
        (("application/json;q=0, */*;q=0.1",), CSV),
        (("application/json;q=0.000, text/*;q=0.001",), CSV),
        (("application/x-ndjson, application/json",), LINES),
        (("application/json, application/x-ndjson",), JSON),
        (("text/csv;header=present;q=0.3,application/json;q=0.2",), CSV),
        (("image/png",), JSON),
        (("text/csv;q=0",), JSON),
        (("*/*;q=0",), JSON),
        ((",,;q=1,/,text/,a/b/c,text/csv",), CSV),
        (("text/csv;q=nonsense, application/json;q=0.9",), CSV),
    ],
)
def test_the_best_liked_form_is_taken(accept: tuple[str, ...], media: str) -> None:
    assert negotiate_media_type(accept, OFFERED) == media


@given(st.lists(st.text(max_size=100)))
def test_whatever_is_sent_one_of_them_is_taken(accept: list[str]) -> None:
    assert negotiate_media_type(accept, OFFERED) in OFFERED
