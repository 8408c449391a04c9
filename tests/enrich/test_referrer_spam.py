"""Referrer spam is recognized by a list of hosts."""

import pytest

from metronome.enrich.referrers import is_referrer_spam, parse_spam_hosts

LIST = [
    "# A public list",
    "",
    "spam.example",
    "  WWW.Loud.example  # since 2019",
    "http://buttons.example/x",
    "a.b.c.example",
]
HOSTS = parse_spam_hosts(LIST)


def test_parses_spam_lists() -> None:
    assert set(HOSTS) == {"spam.example", "loud.example", "buttons.example", "a.b.c.example"}


@pytest.mark.parametrize(
    "referer",
    [
        "spam.example",
        "spam.example/a/b",
        "x.y.spam.example",
        "https://www.LOUD.example:80/",
        "a.b.c.example",
        "//spam.example",
    ],
)
def test_listed_hosts_and_their_subdomains_are_spam(referer: str) -> None:
    assert is_referrer_spam(referer, HOSTS)


@pytest.mark.parametrize(
    "referer", ["", "-", "example", "notspam.example", "spam.example.org", "b.c.example", "good.example/spam.example"]
)
def test_other_hosts_are_not_spam(referer: str) -> None:
    assert not is_referrer_spam(referer, HOSTS)


def test_without_a_list_nothing_is_spam() -> None:
    assert not is_referrer_spam("spam.example", parse_spam_hosts([]))
