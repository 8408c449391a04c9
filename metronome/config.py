"""All settings: `Settings` defines the command line, the environment variables and docs/configuration.md.

The setting ``spool_max_bytes`` is ``METRONOME_SPOOL_MAX_BYTES`` in the environment and ``--spool-max-bytes`` on the
command line, which takes precedence.
"""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ByteSize, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from metronome.errors import ConfigurationError
from metronome.scopes import Scope

ENV_PREFIX: Final = "METRONOME_"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_AGE_PATTERN = re.compile(r"(\d+)\s*([smhdw])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_MAX_AGE_SECONDS = 36_500 * _UNIT_SECONDS["d"]
SECRET_SETTINGS: Final = frozenset({"store", "store_api_key", "forward_shared_key", "forward_users", "microticks_key"})
"""Settings that may contain a password, and so are never printed. Their values may be in files, too."""
FILE_SUFFIX: Final = "_FILE"
"""``METRONOME_STORE_API_KEY_FILE`` is the file with the value of ``METRONOME_STORE_API_KEY``."""
_SECRET_FILE_MAX_BYTES: Final = 65_536
_PASSWORD_IN_URL: Final = re.compile(r"[a-z]+://[^/@\s]*@", re.IGNORECASE)
_SIZE: Final = "expected a size in bytes, such as 512MiB"
_EXPECTATIONS: Final = {
    "int_parsing": "expected an integer",
    "float_parsing": "expected a number",
    "byte_size": _SIZE,
    "byte_size_unit": _SIZE,
    "greater_than": "expected more than {gt:g}",
    "greater_than_equal": "expected at least {ge:g}",
    "less_than_equal": "expected at most {le:g}",
}
"""Messages that replace Pydantic's, by the type of its error."""
_NONE = "none"
SETTING_TOPICS: Final = {
    "Essential": (
        "host",
        "port",
        "data",
        "store",
        "archive",
        "public",
        "own_hosts",
        "item_pattern",
        "tick_max_age",
        "workers",
    ),
    "Retention": ("keep_events", "keep_counts"),
    "Lines of access logs": ("exclude_pattern", "match", "static_files", "redirects"),
    "Behind a proxy": ("base_path", "trusted_proxies"),
    "Enrichment and privacy": (
        "enrich",
        "addresses",
        "visitors",
        "privacy_signals",
        "data_group",
        "countries",
        "referer_spam",
    ),
    "Reports": (
        "question_seconds",
        "read_wait_seconds",
        "min_visitors",
        "counter_platform",
        "counter_publisher",
        "counter_publisher_id",
    ),
    "Elasticsearch": ("store_api_key", "store_ca", "index_prefix"),
    "Archive": ("archive_roll_bytes", "archive_roll_age"),
    "Log shippers and other protocols": (
        "forward_port",
        "forward_shared_key",
        "forward_users",
        "forward_certificate",
        "forward_certificate_key",
        "syslog_port",
        "hit_prefix",
        "hit_port",
        "microticks_key",
    ),
    "Limits": (
        "duckdb_memory",
        "spool_max_bytes",
        "body_max_bytes",
        "in_flight_max_bytes",
        "rate_limit",
        "batch_max_events",
        "event_max_bytes",
        "stop_seconds",
    ),
    "Logs": ("log_level", "log_format"),
}
"""The settings by topic, those that matter most first: the order of ``metronome serve --help`` and of the docs."""
_OTHER_VARIABLES = frozenset(
    {
        *("KEY", f"KEY{FILE_SUFFIX}", "URL", "LOGS", "CLIENTS", "KIBANA", "KIBANA_USER", "KIBANA_CA"),
        *("KIBANA_KEY", f"KIBANA_KEY{FILE_SUFFIX}", "KIBANA_PASSWORD", f"KIBANA_PASSWORD{FILE_SUFFIX}"),
    }
)
"""Variables of commands, of the Compose file, of the Makefile and of the examples."""
_OTHER_VARIABLE_PATTERN = re.compile(r"(?:TEST|WORKER)_.*|(?:.*_)?SERVICE_(?:HOST|PORT)(?:_.*)?|(?:.*_)?PORT_\d+_.*")
"""Variables of tests and of worker processes, and those that Kubernetes sets for a service called ``metronome``."""


def _matching(pattern: str, expected: str) -> BeforeValidator:
    """Return a validator of texts; *expected* says in an error message what is valid."""
    compiled = re.compile(pattern)

    def validate(value: object) -> object:
        if not isinstance(value, str) or compiled.fullmatch(value) is None:
            raise ValueError(f"expected {expected}")
        return value

    return BeforeValidator(validate)


def parse_age(value: object) -> object:
    """Parse an age such as ``7d``, ``12h`` or ``0``; return a value that is not a text unchanged."""
    if not isinstance(value, str):
        return value
    if value.strip() == "0":
        return timedelta(0)
    match = _AGE_PATTERN.fullmatch(value.strip().lower())
    if match is None:
        raise ValueError("expected a number and s, m, h, d or w, such as 7d; or 0 for any age")
    seconds = int(match[1]) * _UNIT_SECONDS[match[2]]
    if seconds > _MAX_AGE_SECONDS:
        raise ValueError("expected at most 36500d, or 0 for any age")
    return timedelta(seconds=seconds)


def _parse_months(text: str) -> int | None:
    if not text:
        return None
    return int(text.removesuffix("mo")) if text.endswith("mo") else 12 * int(text.removesuffix("y"))


def _parse_positive_age(value: object) -> object:
    age = parse_age(value)
    if not age:
        raise ValueError("expected a number and s, m, h, d or w, such as 15m, and more than 0")
    return age


def _parse_list(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _parse_public_scopes(value: object) -> object:
    scopes = () if value == _NONE else _parse_list(value)
    if not isinstance(scopes, tuple) or not set(scopes) <= set(Scope):
        raise ValueError(f"expected scopes, comma-separated, of {', '.join(Scope)}; or none")
    return scopes


def _parse_networks(value: object) -> object:
    networks = () if value == _NONE else _parse_list(value)
    try:
        for network in networks if isinstance(networks, tuple) else ():
            ip_network(network, strict=False)
    except ValueError as error:
        raise ValueError(f"expected networks, comma-separated, such as 10.0.0.0/8, or none: {error}") from None
    return networks


def _parse_users(value: object) -> object:
    users = _parse_list(value)
    if not isinstance(users, tuple) or any(not all(user.partition(":")[::2]) for user in users):
        raise ValueError("expected name:password, comma-separated")
    return users


def _parse_regex(value: object) -> object:
    try:
        re.compile(str(value))
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"expected a regular expression: {error}") from None
    return value


def _parse_item_pattern(value: object) -> object:
    try:
        groups = re.compile(str(value)).groupindex if value else {"id": 1}
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"expected a regular expression: {error}") from None
    if "id" not in groups:
        raise ValueError("expected a regular expression with a group named id: (?P<id>…)")
    return value


_Store = Annotated[
    str,
    _matching(
        r"duckdb|https?://\S+", "duckdb, or the URL of an Elasticsearch or OpenSearch: http://user:password@host:9200"
    ),
]
_ArchiveUrl = Annotated[
    str,
    _matching(
        r"|(?:s3|gs|az)://[^/\s]\S*|file:///\S*",
        "s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder",
    ),
]
_PathPrefix = Annotated[
    str, _matching(r"(?:/[A-Za-z0-9._~-]+)+", "a path that begins, but does not end, with a slash, such as /hit")
]
_BasePath = Annotated[
    str,
    _matching(
        r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)*",
        "a path that begins, but does not end, with a slash, such as /metronome; or nothing for the root",
    ),
]
_IndexPrefix = Annotated[
    str,
    # The state's index is state-<prefix>, so it must not look like one of events.
    _matching(
        r"(?!state\Z)[a-z0-9][a-z0-9_-]{0,63}",
        "lower-case letters, digits, _ and -, beginning with a letter or digit, and not state, which is reserved",
    ),
]
_MemoryLimit = Annotated[str, _matching(r"\d+(\.\d+)?\s*[KMGT]i?B", "a size such as 1GB or 512MiB")]
_KeptMonths = Annotated[str, _matching(r"|[1-9]\d{0,2}mo|[1-9]\d?y", "a number of months or years, such as 25mo or 2y")]
_Countries = Annotated[
    str, _matching(r"built-in|off|.*\.mmdb", "built-in, off, or the path of a MaxMind file, which ends in .mmdb")
]
_PublisherId = Annotated[
    str,
    _matching(
        r"|(?:isni|orcid|grid|urn|client-id):\S+",
        "a type of isni, orcid, grid, urn or client-id, a colon, and the identifier",
    ),
]


class Settings(BaseSettings):
    """The validated settings of an installation."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True, env_ignore_empty=True)

    host: str = Field("127.0.0.1", description="Address to listen on. Beyond localhost, put a proxy in front.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 chooses a free one and logs it.")
    data: Path = Field(Path("data"), description="Folder for the spool, dead letters and the embedded store.")
    data_group: str = Field(
        "",
        description="Group that may read the data folder. Empty: only the user that Metronome runs as.",
    )
    store: _Store = Field(
        "duckdb",
        description="Where events are stored: `duckdb`, a file in the data folder, or the URL of an Elasticsearch or "
        "OpenSearch, `http(s)://[user:password@]host:9200`; several nodes of one cluster have commas between them.",
    )
    store_api_key: str = Field("", description="API key for Elasticsearch, instead of user and password.")
    store_ca: Path | None = Field(None, description="File with the certificate that signed Elasticsearch's.")
    index_prefix: _IndexPrefix = Field(
        "metronome", description="Prefix of the Elasticsearch indices: `metronome-2015.01`."
    )
    archive: _ArchiveUrl = Field(
        "",
        description="URL of the long-term archive: `s3://bucket/prefix`, `gs://bucket/prefix`, "
        "`az://container/prefix` or `file:///folder`. Empty: no archive.",
    )
    archive_roll_bytes: ByteSize = Field(
        ByteSize(32 * 2**20),
        gt=0,
        description="Write collected events to the archive when they reach this size, uncompressed.",
    )
    archive_roll_age: Annotated[timedelta, BeforeValidator(_parse_positive_age)] = Field(
        timedelta(minutes=15),
        description="Write collected events to the archive at the latest when the oldest is this old.",
    )
    duckdb_memory: _MemoryLimit = Field("1GB", description="Memory limit of the embedded store.")
    public: Annotated[tuple[Scope, ...], NoDecode, BeforeValidator(_parse_public_scopes)] = Field(
        (Scope.TICK, Scope.TOCK),
        description="Scopes that need no key, of `tick`, `import`, `tock`, `query` and `admin`; `none` for none. On "
        "localhost, everything is public until the first key is created.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_networks)] = Field(
        ("127.0.0.0/8", "::1/128"),
        description="Networks of proxies whose `X-Forwarded-For` is trusted; `none` to trust no proxy.",
    )
    base_path: _BasePath = Field(
        "",
        description="Path below which a proxy serves Metronome, such as `/metronome`: all paths, and the links of its "
        "page, then begin with it. Empty: the root.",
    )
    hit_prefix: _PathPrefix = Field("/hit", description="Path prefix of the true-micro-analytics protocol.")
    hit_port: int | None = Field(
        None, ge=1, le=65535, description="Separate port for true-micro-analytics, which it serves at `/`."
    )
    microticks_key: str = Field("", description="Additional key for reading microticks' lists.")
    forward_port: int | None = Field(
        None, ge=1, le=65535, description="Port for Fluentd's forward protocol, usually 24224. Empty: disabled."
    )
    forward_shared_key: str = Field(
        "", description="Shared key for forward clients. Empty: everyone who reaches the port may send."
    )
    forward_users: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_users)] = Field(
        (), description="Users for forward clients, in addition to the shared key: `name:password,…`."
    )
    forward_certificate: Path | None = Field(
        None, description="File with the certificate chain for forward; if set, the port accepts TLS only."
    )
    forward_certificate_key: Path | None = Field(None, description="File with the private key of that certificate.")
    syslog_port: int | None = Field(
        None, ge=1, le=65535, description="Port for syslog over TCP and UDP, usually 514 or 5514. Empty: disabled."
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Number of processes that accept events; with more than one, another process ships and answers "
        "reports.",
    )
    item_pattern: Annotated[str, BeforeValidator(_parse_item_pattern)] = Field(
        "",
        description="Regular expression that finds the item in the path of an access log, with the groups `id` and, "
        "for downloads, `format`. Empty: the whole path is the item.",
    )
    exclude_pattern: Annotated[str, BeforeValidator(_parse_regex)] = Field(
        "",
        description="Regular expression that is searched in the path of an access log: requests that it matches are "
        "not counted as views or downloads.",
    )
    match: Literal["path", "url"] = Field(
        "path",
        description="What the item pattern and the exclude pattern are searched in: the `path`, or the `url`, which is "
        "host, path and query, such as `data.example.org/d/rivers?a=1`.",
    )
    static_files: Literal["skip", "count"] = Field(
        "skip",
        description="Whether, without an item pattern, parts of pages in access logs `count`: style sheets, scripts, "
        "images, fonts, `favicon.ico`, `robots.txt` and site maps.",
    )
    redirects: Literal["skip", "count"] = Field(
        "skip", description="Whether redirects to a download (302, 303, 307) in access logs `count` as downloads."
    )
    own_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_list)] = Field(
        (), description="Your own host names, comma-separated: they do not count as referrers."
    )
    addresses: Literal["cut", "keep"] = Field(
        "cut", description="Truncate client IP addresses to /24 (IPv6: /48) with `cut`, or `keep` them whole."
    )
    enrich: Literal["on", "off"] = Field(
        "on",
        description="Add browser, system, device, bot, country, channel, campaign and visitor to events.",
    )
    countries: _Countries = Field(
        "built-in",
        description="Country database: `built-in`, the path of a MaxMind file `….mmdb`, or `off`.",
    )
    referer_spam: Path | None = Field(
        None,
        description="File with referrer spam hosts, one per line: their visits count as a bot's.",
    )
    visitors: Literal["on", "off"] = Field(
        "on",
        description="Identify visitors per day, without cookies; `off`: only where events name a visitor.",
    )
    privacy_signals: Literal["honour", "ignore"] = Field(
        "honour",
        description="Store events of requests with `Sec-GPC: 1` or `DNT: 1` without their visitor.",
    )
    min_visitors: int = Field(5, ge=1, description="Minimum number of shared visitors a recommendation needs.")
    question_seconds: float = Field(
        10.0, gt=0, le=3_600, description="Time limit of a query; longer ones are rejected as too expensive."
    )
    read_wait_seconds: float = Field(
        1.0,
        ge=0,
        le=30,
        description="Maximum time that a report waits for accepted events that are not in the store yet; 0 to never "
        "wait.",
    )
    counter_platform: str = Field(
        "", description="Your repository's name in COUNTER reports; registries reject reports without one."
    )
    counter_publisher: str = Field("", description="The publisher of your datasets in COUNTER reports.")
    counter_publisher_id: _PublisherId = Field(
        "",
        description="The publisher's identifier, such as `grid:grid.1234.5`; of the types isni, orcid, grid, urn "
        "and client-id.",
    )
    tick_max_age: Annotated[timedelta, BeforeValidator(parse_age)] = Field(
        timedelta(days=7),
        description="Maximum age of events sent without a key of the scope `import`: `7d`, `12h`; `0` for no limit.",
    )
    keep_events: _KeptMonths = Field(
        "",
        description="How long events are kept: `25mo` or `2y`, by whole UTC months before the current one; older ones "
        "are dropped, and no longer accepted. Empty: for ever.",
    )
    keep_counts: _KeptMonths = Field(
        "",
        description="How long the embedded store keeps the counts of dropped events, such as `10y`; never shorter than "
        "the events. Empty: for ever.",
    )
    spool_max_bytes: ByteSize = Field(
        ByteSize(8 * 2**30),
        gt=0,
        description="Maximum size of all spools on disk; beyond it, events are rejected with 503.",
    )
    body_max_bytes: ByteSize = Field(
        ByteSize(16 * 2**20), gt=0, description="Maximum size of a request body, compressed and decompressed."
    )
    rate_limit: float = Field(
        100.0,
        ge=0,
        le=1_000_000,
        description="Maximum number of requests a second from a client address (IPv6: its /64), with bursts of ten "
        "times as many; 0 for no limit. Not for this machine, nor for keys with the scope `import`.",
    )
    in_flight_max_bytes: ByteSize = Field(
        ByteSize(256 * 2**20),
        gt=0,
        description="Memory for the bodies of requests that are being received or processed, over all connections, of "
        "forward and syslog, too; beyond it, requests are rejected with 503. Workers share it evenly, and each has at "
        "least what one request may take.",
    )
    batch_max_events: int = Field(10_000, ge=1, description="Maximum number of events in a request.")
    event_max_bytes: ByteSize = Field(ByteSize(2**20), gt=0, description="Maximum size of a single event.")
    stop_seconds: float = Field(
        10.0,
        ge=0,
        le=86_400,
        description="Maximum time to finish replies, and to ship the spool, when stopping.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum level of log messages."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="Log format: `auto` is `console` in a terminal, otherwise `json`."
    )

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in _LOOPBACK

    @property
    def keep_events_months(self) -> int | None:
        """How many whole months before the current one events are kept; None for ever."""
        return _parse_months(self.keep_events)

    @property
    def keep_counts_months(self) -> int | None:
        """How many whole months before the current one counts are kept; None for ever."""
        return _parse_months(self.keep_counts)

    @property
    def event_max_age(self) -> timedelta | None:
        """The maximum age of an event from a sender without the scope ``import``; None for any age."""
        return self.tick_max_age or None


def read_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings from the environment and the command line.

    Args:
        overrides: settings of the command line by name; None for those that are not set there.

    Raises:
        ConfigurationError: a setting has an invalid value, the environment has an unknown one, or the
            file of a secret cannot be read.

    """
    _check_variable_names()
    options = {name: value for name, value in (overrides or {}).items() if value is not None}
    options = {**_read_secret_files(), **options}
    try:
        return Settings(**options)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0]) if problem["loc"] else "?"
        reason = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
        if problem["type"] in _EXPECTATIONS:
            reason = _EXPECTATIONS[problem["type"]].format(**problem.get("ctx", {}))
        value = "" if name in SECRET_SETTINGS else f" {problem['input']!r}"
        raise ConfigurationError(f"invalid {ENV_PREFIX}{name.upper()}{value}: {reason}") from None


def check_secret_options(options: Mapping[str, Any]) -> None:
    """Check that the command line holds no secret: other users of the machine can read it.

    Args:
        options: settings of the command line by name; None for those that are not set there.

    Raises:
        ConfigurationError: it does.

    """
    for name, value in options.items():
        if value is not None and name in SECRET_SETTINGS and (name != "store" or _PASSWORD_IN_URL.match(str(value))):
            variable = f"{ENV_PREFIX}{name.upper()}"
            raise ConfigurationError(
                f"--{name.replace('_', '-')} is a secret, and other users of the machine can read the command line: "
                f"set {variable} in the environment, or {variable}{FILE_SUFFIX} to the path of a file that holds it"
            )


def _read_secret_files() -> dict[str, str]:
    """Return the secrets whose files the environment names."""
    secrets = {}
    environment = {name.upper(): value for name, value in os.environ.items() if value}
    for name in sorted(SECRET_SETTINGS):
        variable = f"{ENV_PREFIX}{name.upper()}"
        path = environment.get(f"{variable}{FILE_SUFFIX}")
        if path is None:
            continue
        if variable in environment:
            raise ConfigurationError(f"{variable} and {variable}{FILE_SUFFIX} are both set: unset one of them")
        try:
            with Path(path).open("rb") as file:
                secrets[name] = file.read(_SECRET_FILE_MAX_BYTES).decode().strip()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"cannot read {variable}{FILE_SUFFIX}={path}: {error}") from None
    return secrets


def _check_variable_names() -> None:
    """Reject misspelt and renamed variables, whose settings would silently keep their defaults."""
    settings = [name.upper() for name in Settings.model_fields]
    settings += [f"{name.upper()}{FILE_SUFFIX}" for name in sorted(SECRET_SETTINGS)]
    for variable, value in os.environ.items():
        name = variable.upper()
        short_name = name.removeprefix(ENV_PREFIX)
        if name == short_name or short_name in settings or short_name in _OTHER_VARIABLES:
            continue
        if _OTHER_VARIABLE_PATTERN.fullmatch(short_name) or value.startswith(("tcp://", "udp://")):
            continue
        similar = get_close_matches(short_name, settings, 1)
        suggestion = (
            f"did you mean {ENV_PREFIX}{similar[0]}?" if similar else "docs/configuration.md lists all settings"
        )
        raise ConfigurationError(f"unknown setting {variable} in the environment: {suggestion}")


def list_settings_by_topic() -> dict[str, tuple[str, ...]]:
    """Return the names of all settings by topic; the last topic has those that no other lists."""
    listed = {name for names in SETTING_TOPICS.values() for name in names}
    others = tuple(name for name in Settings.model_fields if name not in listed)
    return {**SETTING_TOPICS, **({"Other": others} if others else {})}


def format_default(default: object) -> str:
    """Return a setting's default as it is written in the environment; empty for None."""
    if default is None:
        return ""
    if isinstance(default, ByteSize):
        return default.human_readable(separator="").replace(".0", "")
    if isinstance(default, timedelta):
        seconds = int(default.total_seconds())
        return next(f"{seconds // _UNIT_SECONDS[unit]}{unit}" for unit in "dhms" if seconds % _UNIT_SECONDS[unit] == 0)
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
