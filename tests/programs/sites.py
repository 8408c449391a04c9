"""Run web servers with the configurations of ingest/, and visit them."""

import http.client
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.programs.programs import Command, debian, edited, started, wait_until
from tests.servers import free_port

AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
MISSING: Final = "/missing"
"""The prefix of paths with status 404; all others have 200."""

Visit = Callable[[Iterable[str]], None]
"""Requests each of the paths."""

_NGINX: Final = """
daemon off;
user {user};
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include {included};
    {more}
}}
"""
_SITE: Final = """
server {{
    listen 127.0.0.1:{port};
    location / {{ return 200 here; }}
    location /missing {{ return 404; }}
}}
"""
_APACHE: Final = """
ServerRoot "{root}"
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_core_module modules/mod_authz_core.so
LoadModule alias_module modules/mod_alias.so
ServerName localhost
Listen 127.0.0.1:{port}
# Apache does not serve requests as root.
User #65534
Group #65534
PidFile "{folder}/httpd.pid"
DefaultRuntimeDir "{folder}"
Mutex "file:{folder}"
ErrorLog "{folder}/error.log"
RedirectMatch 404 ^/missing
RedirectMatch 200 ^
Include "{included}"
"""


def nginx_around(included: Path, folder: Path, more: str = "") -> Path:
    """Write an NGINX configuration with the included parts in its http block."""
    user = "root" if os.geteuid() == 0 else "nobody"
    main = folder / "nginx.conf"
    main.write_text(_NGINX.format(user=user, included=included, more=more))
    return main


@contextmanager
def nginx(name: str, folder: Path, replaced: Mapping[str, object]) -> Iterator[Visit]:
    """Run NGINX with a configuration of ingest/, with texts replaced (see `edited`)."""
    port = free_port()
    main = nginx_around(edited(name, folder, replaced), folder, _SITE.format(port=port))
    with started(debian("nginx", "nginx", "-p", folder, "-c", main, "-e", "stderr"), folder):
        yield visits(port, folder)


@contextmanager
def apache(name: str, folder: Path, replaced: Mapping[str, object]) -> Iterator[Visit]:
    """Run Apache with a configuration of ingest/, with texts replaced (see `edited`)."""
    port = free_port()
    command = debian("apache", "apache2")
    root = Path(command.arguments[0]).parents[1] / "lib" / "apache2"
    main = folder / "httpd.conf"
    included = edited(name, folder, replaced)
    main.write_text(_APACHE.format(root=root, port=port, folder=folder, included=included))
    arguments = [*command.arguments, "-D", "FOREGROUND", "-f", str(main)]
    with started(Command(arguments, command.environment), folder):
        yield visits(port, folder)


def log_of(file: Path) -> Visit:
    """Return a function that writes a log as web servers do."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    written = 0

    def visit(paths: Iterable[str]) -> None:
        nonlocal written
        time = datetime.now(UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
        with file.open("a") as log:
            for path in paths:
                written += 1
                status = 404 if path.startswith(MISSING) else 200
                client = f"203.0.113.{written % 256}"
                log.write(f'{client} - - [{time}] "GET {path} HTTP/1.1" {status} {written} "-" "{AGENT}"\n')

    return visit


def visits(port: int, folder: Path) -> Visit:
    def visit(paths: Iterable[str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for path in paths:
            connection.request("GET", path, headers={"User-Agent": AGENT})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == (404 if path.startswith(MISSING) else 200)
        connection.close()

    wait_until(lambda: _answers(port), (folder / "said").read_text)
    return visit


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("HEAD", MISSING, headers={"User-Agent": "Googlebot/2.1"})
        return bool(connection.getresponse().status)
    except OSError:
        return False
    finally:
        connection.close()
