"""Settings: safe without any, and each wrong one refused by its name."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from metronome.config import PREFIX, Settings, read_settings
from metronome.errors import Misconfigured


@contextmanager
def environment(**given: str) -> Iterator[None]:
    """Run a block in an environment with these settings and no others."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(PREFIX):
            del os.environ[name]
    os.environ.update({f"{PREFIX}{name.upper()}": text for name, text in given.items()})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def settings(**given: str) -> Settings:
    with environment(**given):
        return read_settings()


def test_without_any_setting_only_this_machine_is_served_and_addresses_are_cut() -> None:
    found = settings()
    assert (found.host, found.port, found.data, found.store) == ("127.0.0.1", 8080, Path("data"), "duckdb")
    assert (found.addresses, found.own_hosts, found.workers) == ("cut", (), 1)
    assert (found.on_loopback, found.door_max_age) == (True, timedelta(days=7))
    assert found.tick_max_age == timedelta(days=7)
    assert (found.body_max_bytes, found.spool_max_bytes) == (16 * 2**20, 8 * 2**30)


VALUES = [
    ("host", "::1", "::1"),
    ("port", "0", 0),
    ("data", "/var/lib/metronome", Path("/var/lib/metronome")),
    ("store", "https://user:secret@es.example:9200", "https://user:secret@es.example:9200"),
    ("store_api_key", "abc", "abc"),
    ("store_ca", "/etc/ca.pem", Path("/etc/ca.pem")),
    ("index_prefix", "stats_2", "stats_2"),
    ("duckdb_memory", "512MiB", "512MiB"),
    ("workers", "4", 4),
    ("item_pattern", "^/(?P<id>[^/]+)", "^/(?P<id>[^/]+)"),
    ("own_hosts", " a.example, ,b.example ", ("a.example", "b.example")),
    ("addresses", "keep", "keep"),
    ("tick_max_age", "12 H", timedelta(hours=12)),
    ("tick_max_age", "2w", timedelta(weeks=2)),
    ("tick_max_age", "0", timedelta(0)),
    ("tick_max_age", "36500d", timedelta(days=36_500)),
    ("spool_max_bytes", "1GiB", 2**30),
    ("body_max_bytes", "1MB", 10**6),
    ("batch_max_events", "5", 5),
    ("event_max_bytes", "1000", 1000),
    ("stop_seconds", "0.5", 0.5),
    ("log_level", "debug", "debug"),
    ("log_format", "json", "json"),
]


@pytest.mark.parametrize(("name", "text", "value"), VALUES)
def test_a_setting_comes_from_the_environment_or_the_command_line(name: str, text: str, value: object) -> None:
    assert getattr(settings(**{name: text}), name) == value
    with environment():
        assert getattr(read_settings({name: text}), name) == value


def test_every_setting_is_tried_here_with_a_good_and_a_wrong_value() -> None:
    assert {name for name, *_ in VALUES} == Settings.model_fields.keys()
    free = {"host", "data", "store_api_key", "store_ca", "own_hosts"}
    assert {name for name, *_ in WRONG} | free == Settings.model_fields.keys()


WRONG = [
    ("port", "-1"),
    ("port", "65536"),
    ("port", "http"),
    ("store", "elasticsearch"),
    ("store", "ftp://es.example"),
    ("store", "http://"),
    ("index_prefix", "Stats"),
    ("index_prefix", "-stats"),
    ("index_prefix", "a*"),
    ("index_prefix", "a" * 65),
    ("duckdb_memory", "much"),
    ("duckdb_memory", "1GB; DROP TABLE events"),
    ("workers", "0"),
    ("workers", "65"),
    ("item_pattern", "("),
    ("item_pattern", "^/(.*)"),
    ("item_pattern", "(?P<id>a){99999999999}"),
    ("addresses", "hash"),
    ("tick_max_age", "a week"),
    ("tick_max_age", "-1d"),
    ("tick_max_age", "7"),
    ("tick_max_age", "36501d"),
    ("tick_max_age", "9" * 30 + "w"),
    ("spool_max_bytes", "0"),
    ("spool_max_bytes", "-1"),
    ("spool_max_bytes", "lots"),
    ("body_max_bytes", "0"),
    ("batch_max_events", "0"),
    ("batch_max_events", "1.5"),
    ("event_max_bytes", "0"),
    ("stop_seconds", "-1"),
    ("stop_seconds", "nan"),
    ("stop_seconds", "inf"),
    ("log_level", "loud"),
    ("log_format", "xml"),
]


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_a_wrong_value_is_refused_by_the_setting_s_name(name: str, text: str) -> None:
    shown = "not right: " if name == "store" else repr(text)[:1]
    with pytest.raises(Misconfigured, match=f"{PREFIX}{name.upper()} is {shown}"):
        settings(**{name: text})
    with environment(), pytest.raises(Misconfigured, match=f"{PREFIX}{name.upper()} is {shown}"):
        read_settings({name: text})


def test_a_store_s_address_is_not_shown_since_it_may_hold_a_password() -> None:
    with pytest.raises(Misconfigured) as caught:
        settings(store="htp://me:secret@es.example:9200")
    assert "secret" not in str(caught.value)


def test_the_command_line_wins_and_what_is_not_given_there_does_not_count() -> None:
    with environment(port="1", host="::1"):
        found = read_settings({"port": 2, "host": None})
    assert (found.port, found.host) == (2, "::1")


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert settings(port="", store="", own_hosts="", tick_max_age="") == settings()


def test_a_setting_that_there_is_not_is_refused_on_the_command_line() -> None:
    with environment(), pytest.raises(Misconfigured, match="METRONOME_PROT is '1'"):
        read_settings({"prot": "1"})


@pytest.mark.parametrize(
    ("host", "age", "max_age"),
    [
        ("0.0.0.0", "7d", timedelta(days=7)),  # noqa: S104  # nothing listens here
        ("192.0.2.1", "0", None),
        ("127.0.0.1", "7d", None),
        ("::1", "7d", None),
        ("localhost", "7d", None),
    ],
)
def test_old_events_are_refused_only_where_strangers_can_send_them(
    host: str, age: str, max_age: timedelta | None
) -> None:
    assert settings(host=host, tick_max_age=age).door_max_age == max_age


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings().port = 1
