"""Visitors are identified for a day, without cookies."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from metronome.enrich.enrichment import hash_visitor

SALT = bytes(range(32))
ONE = (SALT, "2026-01-31", "193.0.6.139", "Firefox", "data.example.org")


def test_visitor_is_the_same_for_a_day() -> None:
    assert hash_visitor(*ONE) == hash_visitor(*ONE) == "0756e16f80a726d9"


def test_any_difference_is_another_visitor() -> None:
    others = [
        (b"other salt", *ONE[1:]),
        (SALT, "2026-02-01", *ONE[2:]),
        (*ONE[:2], "193.0.6.140", *ONE[3:]),
        (*ONE[:3], "Chrome", ONE[4]),
        (*ONE[:4], "other.example.org"),
        (SALT, "2026-01-31", "193.0.6.139", "data.example.org", "Firefox"),
    ]
    names = [hash_visitor(*other) for other in [ONE, *others]]
    assert len(set(names)) == len(names)


_texts = st.text(max_size=20)
_plain = st.text("abc.:-", max_size=20)


@given(st.binary(min_size=16, max_size=80), _plain, _plain, _texts, _plain)
def test_visitor_is_sixteen_hexadecimal_digits(salt: bytes, day: str, address: str, agent: str, site: str) -> None:
    name = hash_visitor(salt, day, address, agent, site)
    assert len(name) == 16
    assert int(name, 16) >= 0


@given(st.lists(st.tuples(_plain, _plain, _texts, _plain), min_size=2, max_size=6, unique=True))
def test_inputs_are_separated_unambiguously(words: list[tuple[str, str, str, str]]) -> None:
    names = sorted((hash_visitor(SALT, *each), each) for each in words)
    assert all(first[0] != second[0] for first, second in pairwise(names))
