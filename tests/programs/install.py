"""Install the clients that Metronome is tested with, into a separate folder.

``python tests/programs/install.py FOLDER`` needs Node's npm, Debian's apt-get and dpkg-deb, Maven for Java's
clients, and Go for its clients and Filebeat.
Nothing is installed system-wide: Debian packages are only unpacked. Existing installations are kept.
"""

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

PYTHON: Final[Mapping[str, Sequence[str]]] = {
    "elasticsearch8": ("elasticsearch==8.19.3",),
    "elasticsearch9": ("elasticsearch==9.5.1",),
    "opensearch": ("opensearch-py==3.2.0",),
    "fluent": ("fluent-logger==0.11.1",),
    "otlp": ("opentelemetry-sdk==1.45.2", "opentelemetry-exporter-otlp-proto-http==1.45.2"),
}
"""Installed into separate folders: several packages have the same name."""

NODE: Final = (
    "@elastic/elasticsearch@9.4.3",
    "@fluent-org/logger@1.0.10",
    "@plausible-analytics/tracker@0.4.6",
    "@umami/node@0.4.0",
    "matomo-tracker@2.2.4",
    "pino@10.4.0",
    "pino-elasticsearch@9.0.0",
    "plausible-tracker@0.3.9",
    "winston@3.19.0",
    "winston-elasticsearch@0.19.0",
)

DEBIAN: Final[Mapping[str, Sequence[str]]] = {
    "rsyslog": ("rsyslog", "rsyslog-elasticsearch"),
    "syslog-ng": ("syslog-ng-core", "syslog-ng-mod-http"),
    "nginx": ("nginx-light", "nginx"),
    "apache": ("apache2",),
    "haproxy": ("haproxy",),
    "goaccess": ("goaccess",),
}
"""Installed into separate folders: rsyslog and syslog-ng conflict."""

MAVEN: Final[Mapping[str, Sequence[str]]] = {
    "elasticsearch-java": ("co.elastic.clients:elasticsearch-java:8.19.0",),
    "high-level-client": ("org.elasticsearch.client:elasticsearch-rest-high-level-client:7.17.28",),
}
"""Java libraries with their dependencies."""

GO: Final[Mapping[str, Sequence[str]]] = {
    "bulk": ("github.com/elastic/go-elasticsearch/v8@v8.19.7",),
    "forward": ("github.com/fluent/fluent-logger-golang@v1.10.2",),
}
"""Go libraries; each is built with the driver of its name."""

FILEBEAT: Final = "github.com/elastic/beats/v7@v7.17.29"

_DONE: Final = ".installed"


def main() -> None:
    """Install the missing clients."""
    folder = Path(sys.argv[1]).resolve()
    for name, packages in PYTHON.items():
        _once(folder / "python" / name, packages, _install_python)
    _once(folder / "node", NODE, _install_node)
    for name, packages in DEBIAN.items():
        _once(folder / "debian" / name, packages, _unpack_debian)
    if shutil.which("mvn") is None:
        print("skipping Java's clients: installing them needs Maven", file=sys.stderr)
    else:
        for name, packages in MAVEN.items():
            _once(folder / "java" / name, packages, _install_java)
    if shutil.which("go") is None:
        print("skipping Filebeat and Go's clients: building them needs Go", file=sys.stderr)
    else:
        for name, packages in GO.items():
            _once(folder / "go" / name, packages, _build_go)
        _once(folder / "filebeat", [FILEBEAT], _build_filebeat)


def _once(folder: Path, packages: Sequence[str], install: Callable[[Path, Sequence[str]], None]) -> None:
    """Install packages unless these versions are installed."""
    digest = hashlib.sha256(" ".join(packages).encode()).hexdigest()
    mark = folder / _DONE
    if mark.exists() and mark.read_text() == digest:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f"installing {' '.join(packages)}", flush=True)
    install(folder, packages)
    mark.write_text(digest)


def _install_python(folder: Path, packages: Sequence[str]) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    _run([*pip, "install", "--target", str(folder), *packages])


def _install_node(folder: Path, packages: Sequence[str]) -> None:
    _run(["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--loglevel=error", *packages])


def _unpack_debian(folder: Path, packages: Sequence[str]) -> None:
    """Unpack packages and their missing dependencies."""
    simulated = _run(["apt-get", "-qq", "-s", "--no-install-recommends", "install", *packages])
    needed = {line.split()[1] for line in simulated.splitlines() if line.startswith("Inst ")} | set(packages)
    archives = folder / "archives"
    archives.mkdir()
    # Prevents a warning of apt-get as root that its own user cannot write here.
    _run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *sorted(needed)], archives)
    for archive in sorted(archives.iterdir()):
        _run(["dpkg-deb", "--extract", str(archive), str(folder)])
    shutil.rmtree(archives)


def _install_java(folder: Path, packages: Sequence[str]) -> None:
    coordinates = [package.split(":") for package in packages]
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
        for group, name, version in coordinates
    )
    (folder / "pom.xml").write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>tests</groupId>'
        f"<artifactId>clients</artifactId><version>1</version><dependencies>{dependencies}</dependencies></project>"
    )
    _run(["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={folder / 'lib'}"], folder)


def _build_go(folder: Path, packages: Sequence[str]) -> None:
    """Build the driver that has the folder's name."""
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
    shutil.copy(Path(__file__).parent / "drivers" / f"{folder.name}.go", folder / "main.go")
    _run(["go", "mod", "init", "tests"], folder, environment)
    _run(["go", "get", *packages], folder, environment)
    _run(["go", "build", "-o", "driver", "main.go"], folder, environment)


def _build_filebeat(folder: Path, packages: Sequence[str]) -> None:
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
    module = packages[0]
    described = _run(["go", "mod", "download", "-json", module], folder, environment)
    found = next(line.split('"')[3] for line in described.splitlines() if '"Dir"' in line)
    source = folder / "source"
    shutil.copytree(found, source)
    for path in (source, *source.rglob("*")):
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
    _run(["go", "build", "-o", str(folder / "filebeat"), "./filebeat"], source, environment)
    shutil.rmtree(source)


def _run(command: Sequence[str], folder: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
