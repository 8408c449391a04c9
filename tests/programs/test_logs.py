"""Logs of real servers, and a second opinion on the counts of a log."""

import random
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.programs.programs import Command, debian, finish, started
from tests.programs.sites import visits
from tests.servers import Server, free_port, run_metronome, running_server, unique_name

HAPROXY = """
global
    log stdout format {format} local0
defaults
    mode http
    timeout client 5s
    timeout server 5s
    timeout connect 5s
    log global
    option {option}
frontend site
    bind 127.0.0.1:{port}
    http-request return status 404 if {{ path_beg /missing }}
    http-request return status 200 content-type text/plain string here
"""
DAYS = ("16", "17")
AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("logs") / "data") as running:
        yield running


@pytest.mark.parametrize("option", ["httplog", "httplog clf"])
def test_the_log_of_haproxy_is_imported(server: Server, tmp_path: Path, option: str) -> None:
    item, port = unique_name("/item-"), free_port()
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(HAPROXY.format(format="rfc3164", option=option, port=port))
    with started(debian("haproxy", "haproxy", "-db", "-f", configuration), tmp_path):
        visits(port, tmp_path)([item] * 7 + [f"{item}.csv"] * 3 + [f"/missing{item}"])
    log = tmp_path / "haproxy.log"
    log.write_text("".join(line for line in (tmp_path / "said").read_text().splitlines(keepends=True) if item in line))
    done = run_metronome("import", str(log), "--url", server.url)
    assert done.exit_code == 0, done.stderr
    found = server.get(f"/tock/{item}.json")
    assert sum(found["views"].values()) == 7
    assert server.get(f"/tock/{item}.csv.json")["downloads"] == {"csv": 3}
    assert server.get(f"/query?id=/missing{item}&by=event")["rows"] == [["error", 1]]


def test_goaccess_counts_the_same_requests_and_visitors(server: Server, tmp_path: Path) -> None:
    folder, chance, lines = unique_name("/d-"), random.Random(7), []
    for number in range(4000):
        client = f"203.0.{chance.randrange(4)}.{chance.randrange(1, 200)}"
        day = DAYS[number * len(DAYS) // 4000]
        path, agent = f"{folder}/{int(chance.paretovariate(0.7)) % 50}", chance.choice(AGENTS)
        status = chance.choice((200, 200, 200, 304, 404))
        time = f"{day}/May/2015:10:{number // 60 % 60:02}:{number % 60:02} +0000"
        lines.append(f'{client} - - [{time}] "GET {path} HTTP/1.1" {status} 5 "-" "{agent}"\n')
    log, out = tmp_path / "access.log", tmp_path / "out.json"
    log.write_text("".join(lines))
    program = debian("goaccess", "goaccess")
    command = [program.arguments[0].replace("/sbin/", "/bin/"), str(log), "--log-format=COMBINED", "--no-global-config"]
    finish(Command([*command, "-o", str(out), "--max-items=100"], program.environment))
    theirs = orjson.loads(out.read_bytes())
    done = run_metronome("import", str(log), "--url", server.url)
    assert done.exit_code == 0, done.stderr
    assert theirs["general"]["valid_requests"] == len(lines)
    where = "from=2015-05-16&to=2015-05-18&limit=1000"
    # goaccess lists requests that were not found elsewhere, and does not count their visitors.
    by_path = dict(server.get(f"/query?{where}&event=view&by=id")["rows"])
    hits = {entry["data"]: entry["hits"]["count"] for entry in theirs["requests"]["data"]}
    assert {path: by_path[path] for path in hits} == hits
    visitors = {f"{entry['data']}": entry["visitors"]["count"] for entry in theirs["visitors"]["data"]}
    rows = server.get(f"/query?{where}&event=view&by=day&metrics=visitors")["rows"]
    assert {day.replace("-", ""): count for day, count in rows if count} == visitors
