"""Route patterns of each framework are normalized."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.middleware.paths import normalize_angles, normalize_braces, normalize_django, replace_values_with_names


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/users/{id}", "/users/:id"),
        ("/users/{id:int}/posts/{post}", "/users/:id/posts/:post"),
        ("/files/{path:path}", "/files/:path"),
        (r"/years/{year:\d{4}}", "/years/:year"),
        ("/", "/"),
        ("", "/"),
        ("/users/:id", "/users/:id"),
    ],
)
def test_braces_are_normalized(pattern: str, expected: str) -> None:
    assert normalize_braces(pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/users/<id>", "/users/:id"),
        ("/users/<int:id>", "/users/:id"),
        ('/<any("a,b"):kind>/x', "/:kind/x"),
        ("/<string(length=2):code>", "/:code"),
        ("users/<uuid:id>/", "/users/:id/"),
    ],
)
def test_angle_brackets_are_normalized(pattern: str, expected: str) -> None:
    assert normalize_angles(pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("articles/<int:year>/", "/articles/:year/"),
        ("^articles/(?P<year>[0-9]{4})/$", "/articles/:year/"),
        (r"v1/^files/(?P<name>(a|b)+)\.csv$", "/v1/files/:name.csv"),
        (r"^([a-z]+)/(?:page-(?P<page>\d+)/)?\Z", "/*/*"),
        ("", "/"),
    ],
)
def test_django_patterns_are_normalized(pattern: str, expected: str) -> None:
    assert normalize_django(pattern) == expected


@given(st.text(alphabet="()<>{}[]:?P^$\\/ab*+|", max_size=40))
def test_any_text_is_normalized(pattern: str) -> None:
    for normalize in (normalize_braces, normalize_angles, normalize_django):
        assert normalize(pattern).startswith("/")


def test_values_are_replaced_from_the_end() -> None:
    assert replace_values_with_names("/users/users/7", {"name": "users", "id": 7}) == "/users/:name/:id"


def test_a_value_that_is_not_a_segment_yields_no_pattern() -> None:
    assert replace_values_with_names("/users/007", {"id": 7}) is None
