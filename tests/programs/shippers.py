"""Run log shippers with the configurations of ingest/, each in its own folder."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.programs.programs import INSTALLED, Command, debian, edited, filebeat, started
from tests.programs.sites import Visit, apache, log_of, nginx
from tests.servers import COMMAND, Server

_ADDRESS: Final = "127.0.0.1:8080"
_SYSLOG_ADDRESS: Final = "5514"


class Place(NamedTuple):
    """The environment of a shipper.

    Attributes:
        folder: holds its configuration, what it keeps, and what it says (``said``).
        server: takes what it sends.
        key: what it shows, if anything.
        proxy: the port of a proxy in front of the server, if there is one.

    """

    folder: Path
    server: Server
    key: str = ""
    proxy: int | None = None

    @property
    def door(self) -> str:
        """The host and port to send to."""
        return f"127.0.0.1:{self.proxy or self.server.port}"

    @property
    def syslog_port(self) -> int:
        """The port for syslog."""
        return int(str(self.server.settings["syslog_port"]))

    @property
    def logs(self) -> Path:
        """The folder of the logs to ship."""
        return self.folder / "logs"


Shipper = Callable[[Place], AbstractContextManager[Visit]]
"""Runs a shipper; visits during the context are logged and shipped."""


@contextmanager
def rsyslog_elasticsearch(place: Place) -> Iterator[Visit]:
    """Run rsyslog, which sends to /es."""
    replaced = {_ADDRESS: place.door, "/var/log/metronome": place.folder / "metronome"}
    if place.key:
        replaced |= {'# uid="any"': 'uid="any"', '# pwd="the key"': f'pwd="{place.key}"'}
    with _rsyslog("rsyslog/access-log.conf", place, replaced) as visit:
        yield visit


@contextmanager
def rsyslog_syslog(place: Place) -> Iterator[Visit]:
    """Run rsyslog, which sends syslog."""
    with _rsyslog("rsyslog/syslog.conf", place, {_SYSLOG_ADDRESS: place.syslog_port}) as visit:
        yield visit


@contextmanager
def syslog_ng_http(place: Place) -> Iterator[Visit]:
    """Run syslog-ng, which sends to /es."""
    replaced: dict[str, object] = {_ADDRESS: place.door}
    if place.key:
        replaced |= {'# user("any")': 'user("any")', '# password("the key")': f'password("{place.key}")'}
    with _syslog_ng("syslog-ng/access-log.conf", place, replaced) as visit:
        yield visit


@contextmanager
def syslog_ng_syslog(place: Place) -> Iterator[Visit]:
    """Run syslog-ng, which sends syslog."""
    with _syslog_ng("syslog-ng/syslog.conf", place, {_SYSLOG_ADDRESS: place.syslog_port}) as visit:
        yield visit


@contextmanager
def filebeat_elasticsearch(place: Place) -> Iterator[Visit]:
    """Run Filebeat, which sends to /es."""
    visit = log_of(place.logs / "access.log")
    replaced = {_ADDRESS: place.door, "/var/log/nginx": place.logs, "/var/log/apache2": place.folder / "none"}
    if place.key:
        replaced |= {'# api_key: "any:${METRONOME_KEY}"': f'api_key: "any:{place.key}"'}
    configuration = edited("filebeat/filebeat.yml", place.folder, replaced)
    with started(filebeat(configuration, place.folder), place.folder):
        yield visit


@contextmanager
def nginx_followed(place: Place) -> Iterator[Visit]:
    """Run NGINX and ``metronome import --follow``."""
    place.logs.mkdir(exist_ok=True)
    replaced = {"/var/log/nginx": place.logs}
    with nginx("nginx/access-log.conf", place.folder, replaced) as visit, _following(place):
        yield visit


@contextmanager
def apache_followed(place: Place) -> Iterator[Visit]:
    """Run Apache and ``metronome import --follow``."""
    place.logs.mkdir(exist_ok=True)
    replaced = {"/var/log/apache2": place.logs}
    with apache("apache/access-log.conf", place.folder, replaced) as visit, _following(place):
        yield visit


@contextmanager
def nginx_syslog(place: Place) -> Iterator[Visit]:
    """Run NGINX, which sends syslog."""
    with nginx("nginx/syslog.conf", place.folder, {_SYSLOG_ADDRESS: place.syslog_port}) as visit:
        yield visit


@contextmanager
def apache_syslog(place: Place) -> Iterator[Visit]:
    """Run Apache, with ``logger`` that sends syslog."""
    with apache("apache/syslog.conf", place.folder, {_SYSLOG_ADDRESS: place.syslog_port}) as visit:
        yield visit


@contextmanager
def _rsyslog(name: str, place: Place, replaced: dict[str, object]) -> Iterator[Visit]:
    visit = log_of(place.logs / "access.log")
    work = place.folder / "work"
    work.mkdir(exist_ok=True)
    here = {"/var/log/nginx": place.logs, "/var/log/apache2": place.folder / "none"}
    included = edited(name, place.folder, {**here, **replaced})
    main = place.folder / "rsyslog.conf"
    main.write_text(f'global(workDirectory="{work}" maxMessageSize="64k")\ninclude(file="{included}")\n')
    modules = next((INSTALLED / "debian" / "rsyslog").glob("usr/lib/*/rsyslog"))
    arguments = ("-n", "-f", main, "-i", place.folder / "rsyslog.pid", "-M", modules)
    with started(debian("rsyslog", "rsyslogd", *arguments), place.folder):
        yield visit


@contextmanager
def _syslog_ng(name: str, place: Place, replaced: dict[str, object]) -> Iterator[Visit]:
    visit = log_of(place.logs / "access.log")
    here = {"/var/log/nginx": place.logs, "/var/lib/syslog-ng": place.folder}
    included = edited(name, place.folder, {**here, **replaced})
    main = place.folder / "syslog-ng.conf"
    main.write_text(f'@version: 3.38\n@include "{included}"\n')
    modules = next((INSTALLED / "debian" / "syslog-ng").glob("usr/lib/syslog-ng/[0-9]*"))
    files = {"-R": "persist", "-p": "pid", "-c": "control"}
    own = [argument for flag, file in files.items() for argument in (flag, place.folder / file)]
    arguments = ("-F", "-e", "--no-caps", f"--module-path={modules}", "-f", main, *own)
    with started(debian("syslog-ng", "syslog-ng", *arguments), place.folder):
        yield visit


@contextmanager
def _following(place: Place) -> Iterator[None]:
    folder = place.folder / "following"
    folder.mkdir(exist_ok=True)
    options = ["--url", place.server.url, "--positions", str(folder / "positions.json")]
    command = [*COMMAND, "import", "--follow", *options, str(place.logs / "metronome.log")]
    with started(Command(command, {"METRONOME_KEY": place.key} if place.key else {}), folder):
        yield
