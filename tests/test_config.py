"""Settings: safe defaults, and errors that name the setting."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from metronome.config import ENV_PREFIX, Settings, read_settings
from metronome.errors import ConfigurationError
from metronome.scopes import Scope


@contextmanager
def environment(**given: str) -> Iterator[None]:
    """Run a block in an environment with these settings and no others."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(ENV_PREFIX):
            del os.environ[name]
    os.environ.update({f"{ENV_PREFIX}{name.upper()}": text for name, text in given.items()})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def settings(**given: str) -> Settings:
    with environment(**given):
        return read_settings()


def test_defaults_serve_localhost_and_anonymize_addresses() -> None:
    found = settings()
    assert (found.host, found.port, found.data, found.store) == ("127.0.0.1", 8080, Path("data"), "duckdb")
    assert (found.addresses, found.own_hosts, found.workers) == ("cut", (), 1)
    assert (found.on_loopback, found.event_max_age) == (True, timedelta(days=7))
    assert (found.public, found.trusted_proxies) == ((Scope.TICK, Scope.TOCK), ("127.0.0.0/8", "::1/128"))
    assert (found.forward_port, found.syslog_port, found.hit_port, found.hit_prefix) == (None, None, None, "/hit")
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
    ("archive", "s3://bucket/a/b", "s3://bucket/a/b"),
    ("archive", "file:///var/lib/archive", "file:///var/lib/archive"),
    ("archive_roll_bytes", "1MiB", 2**20),
    ("archive_roll_age", "1h", timedelta(hours=1)),
    ("duckdb_memory", "512MiB", "512MiB"),
    ("public", "tick", (Scope.TICK,)),
    ("public", " query, tick,", (Scope.QUERY, Scope.TICK)),
    ("public", "none", ()),
    ("trusted_proxies", "192.0.2.1, 10.1.2.3/8,2001:db8::/32", ("192.0.2.1", "10.1.2.3/8", "2001:db8::/32")),
    ("trusted_proxies", "none", ()),
    ("base_path", "/metronome", "/metronome"),
    ("base_path", "/web/.stats", "/web/.stats"),
    ("base_path", "", ""),
    ("hit_prefix", "/stats/hit", "/stats/hit"),
    ("hit_port", "8000", 8000),
    ("microticks_key", "abc", "abc"),
    ("forward_port", "24224", 24224),
    ("forward_shared_key", "abc", "abc"),
    ("forward_users", "ann:a:b, bob:c", ("ann:a:b", "bob:c")),
    ("forward_certificate", "/etc/chain.pem", Path("/etc/chain.pem")),
    ("forward_certificate_key", "/etc/key.pem", Path("/etc/key.pem")),
    ("syslog_port", "5514", 5514),
    ("workers", "4", 4),
    ("item_pattern", "^/(?P<id>[^/]+)", "^/(?P<id>[^/]+)"),
    ("exclude_pattern", "^/health", "^/health"),
    ("match", "url", "url"),
    ("static_files", "count", "count"),
    ("redirects", "count", "count"),
    ("own_hosts", " a.example, ,b.example ", ("a.example", "b.example")),
    ("addresses", "keep", "keep"),
    ("enrich", "off", "off"),
    ("countries", "off", "off"),
    ("countries", "/var/lib/countries.mmdb", "/var/lib/countries.mmdb"),
    ("referer_spam", "spammers.txt", Path("spammers.txt")),
    ("visitors", "off", "off"),
    ("privacy_signals", "ignore", "ignore"),
    ("min_visitors", "1", 1),
    ("question_seconds", "2.5", 2.5),
    ("read_wait_seconds", "0", 0.0),
    ("counter_platform", "Rivers and Trees", "Rivers and Trees"),
    ("counter_publisher", "The Agency", "The Agency"),
    ("counter_publisher_id", "grid:grid.1234.5", "grid:grid.1234.5"),
    ("keep_events", "25mo", "25mo"),
    ("keep_events", "2y", "2y"),
    ("keep_counts", "10y", "10y"),
    ("tick_max_age", "12 H", timedelta(hours=12)),
    ("tick_max_age", "2w", timedelta(weeks=2)),
    ("tick_max_age", "0", timedelta(0)),
    ("tick_max_age", "36500d", timedelta(days=36_500)),
    ("spool_max_bytes", "1GiB", 2**30),
    ("body_max_bytes", "1MB", 10**6),
    ("in_flight_max_bytes", "64MiB", 2**26),
    ("data_group", "backup", "backup"),
    ("rate_limit", "2.5", 2.5),
    ("batch_max_events", "5", 5),
    ("event_max_bytes", "1000", 1000),
    ("stop_seconds", "0.5", 0.5),
    ("log_level", "debug", "debug"),
    ("log_format", "json", "json"),
]


@pytest.mark.parametrize(("name", "text", "value"), VALUES)
def test_reads_settings_from_environment_and_command_line(name: str, text: str, value: object) -> None:
    assert getattr(settings(**{name: text}), name) == value
    with environment():
        assert getattr(read_settings({name: text}), name) == value


def test_every_setting_is_tested_with_valid_and_invalid_values() -> None:
    assert {name for name, *_ in VALUES} == Settings.model_fields.keys()
    free = {"host", "data", "store_api_key", "store_ca", "own_hosts", "microticks_key", "data_group"}
    free |= {"counter_platform", "counter_publisher"}
    free |= {"referer_spam", "forward_shared_key", "forward_certificate", "forward_certificate_key"}
    assert {name for name, *_ in WRONG} | free == Settings.model_fields.keys()


WRONG = [
    ("rate_limit", "-1"),
    ("in_flight_max_bytes", "0"),
    ("exclude_pattern", "("),
    ("match", "host"),
    ("static_files", "on"),
    ("redirects", "on"),
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
    ("archive", "bucket"),
    ("archive", "s3://"),
    ("archive", "file://archive"),
    ("archive", "https://bucket.example"),
    ("archive_roll_bytes", "0"),
    ("archive_roll_age", "0"),
    ("archive_roll_age", "0s"),
    ("archive_roll_age", "soon"),
    ("duckdb_memory", "much"),
    ("duckdb_memory", "1GB; DROP TABLE events"),
    ("index_prefix", "state"),
    ("public", "all"),
    ("public", "tick,none"),
    ("public", "TICK"),
    ("trusted_proxies", "proxy.example"),
    ("trusted_proxies", "10.0.0.0/33"),
    ("trusted_proxies", "10.0.0.1,*"),
    ("base_path", "metronome"),
    ("base_path", "/"),
    ("base_path", "/metronome/"),
    ("base_path", "/a/../b"),
    ("base_path", "/{id}"),
    ("base_path", "https://stats.example/metronome"),
    ("hit_prefix", "hit"),
    ("hit_prefix", "/"),
    ("hit_prefix", "/hit/"),
    ("hit_prefix", "/{id}"),
    ("hit_port", "0"),
    ("hit_port", "65536"),
    ("forward_port", "-1"),
    ("forward_users", "ann"),
    ("forward_users", "ann:a,:b"),
    ("syslog_port", "syslog"),
    ("workers", "0"),
    ("workers", "65"),
    ("item_pattern", "("),
    ("item_pattern", "^/(.*)"),
    ("item_pattern", "(?P<id>a){99999999999}"),
    ("addresses", "hash"),
    ("enrich", "yes"),
    ("countries", "builtin"),
    ("countries", "/var/lib/countries.csv"),
    ("visitors", "yes"),
    ("privacy_signals", "off"),
    ("counter_publisher_id", "doi:10.1234/x"),
    ("counter_publisher_id", "grid:"),
    ("min_visitors", "0"),
    ("question_seconds", "0"),
    ("question_seconds", "nan"),
    ("question_seconds", "3601"),
    ("read_wait_seconds", "-1"),
    ("read_wait_seconds", "31"),
    ("keep_events", "25"),
    ("keep_events", "0mo"),
    ("keep_events", "30d"),
    ("keep_counts", "100y"),
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
def test_rejects_an_invalid_value_and_names_the_setting(name: str, text: str) -> None:
    value = ": " if name in {"store", "forward_users"} else f" {text!r}"[:2]
    with pytest.raises(ConfigurationError, match=f"invalid {ENV_PREFIX}{name.upper()}{value}"):
        settings(**{name: text})
    with environment(), pytest.raises(ConfigurationError, match=f"invalid {ENV_PREFIX}{name.upper()}{value}"):
        read_settings({name: text})


@pytest.mark.parametrize(("name", "text"), [("store", "htp://me:secret@es.example:9200"), ("forward_users", ":secret")])
def test_error_messages_do_not_contain_secrets(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings(**{name: text})
    assert "secret" not in str(caught.value)


def test_command_line_takes_precedence() -> None:
    with environment(port="1", host="::1"):
        found = read_settings({"port": 2, "host": None})
    assert (found.port, found.host) == (2, "::1")


def test_empty_variable_is_ignored() -> None:
    assert settings(port="", store="", own_hosts="", tick_max_age="") == settings()


def test_rejects_unknown_settings() -> None:
    with environment(), pytest.raises(ConfigurationError, match="invalid METRONOME_PROT '1'"):
        read_settings({"prot": "1"})


@pytest.mark.parametrize(
    ("host", "on_loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104  # nothing listens here
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.example", False),
    ],
)
def test_recognizes_loopback_addresses(host: str, on_loopback: bool) -> None:  # noqa: FBT001  # a row of the table
    assert settings(host=host).on_loopback is on_loopback


@pytest.mark.parametrize(("age", "max_age"), [("7d", timedelta(days=7)), ("0", None)])
def test_age_zero_means_no_limit(age: str, max_age: timedelta | None) -> None:
    assert settings(tick_max_age=age).event_max_age == max_age


def test_settings_are_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings().port = 1


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (
            "METRONOME_SPOOL_MAXBYTES",
            "SPOOL_MAXBYTES in the environment: did you mean METRONOME_SPOOL_MAX_BYTES?",
        ),
        ("metronome_prot", "metronome_prot in the environment: did you mean METRONOME_PORT?"),
        ("METRONOME_ZZZ", "METRONOME_ZZZ in the environment: docs/configuration.md lists all settings"),
    ],
)
def test_rejects_an_unknown_variable_and_suggests_the_most_similar(
    monkeypatch: pytest.MonkeyPatch, variable: str, message: str
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        read_settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("METRONOME_KEY", "0123"),
        ("METRONOME_KIBANA_PASSWORD", "x"),
        ("METRONOME_TEST_ELASTICSEARCH", "http://localhost:9200"),
        ("METRONOME_WORKER_SOCKET", "main.sock"),
        ("METRONOME_SERVICE_HOST", "10.0.0.1"),
        ("METRONOME_DB_SERVICE_PORT_HTTP", "80"),
        ("METRONOME_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("METRONOME_DB_PORT", "tcp://10.0.0.1:80"),
        ("MY_METRONOME_PORT", "1"),
    ],
)
def test_accepts_variables_of_commands_tests_and_kubernetes(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert read_settings().port == 8080


def test_reads_secrets_from_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("c2VjcmV0\n")
    with environment(store_api_key_file=str(secret)):
        assert read_settings().store_api_key == "c2VjcmV0"
    with environment(forward_users_file=str(secret)), pytest.raises(ConfigurationError) as caught:
        read_settings()
    assert "METRONOME_FORWARD_USERS" in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)


def test_rejects_a_secret_that_is_set_twice_or_whose_file_is_missing(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    with environment(store_api_key="a", store_api_key_file=missing), pytest.raises(ConfigurationError, match="both"):
        read_settings()
    with environment(store_file=missing), pytest.raises(ConfigurationError, match="cannot read METRONOME_STORE_FILE"):
        read_settings()
