"""The examples of docs/export.md, run by the programs that they are for; and each report as a table in these."""

import contextlib
import csv
import io
import re
import shlex
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import duckdb
import pandas as pd
import pytest

from tests.docs.pages import ROOT, text_of
from tests.servers import COMMAND, Server, build_environment, run_metronome, running_server

REPORTS: Final = (
    "tock/trees",
    "items",
    "flow",
    "flow/trees",
    "time",
    "time/trees",
    "errors",
    "errors/trees",
    "recommendations",
    "recommendations/trees",
    "counter/trees",
    "query",
)
_EXECUTED: Final = r"<!-- executed by tests/docs/test_export\.py -->\n```{language}\n(.*?)^```$"


def example(language: str) -> str:
    (found,) = re.findall(_EXECUTED.format(language=language), text_of("docs/export.md"), re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("export") / "data") as running:
        running.post_events(
            (ROOT / "tests" / "data" / "visits.ndjson").read_bytes(), **{"Content-Type": "application/x-ndjson"}
        )
        yield running


@pytest.fixture(scope="module")
def exported(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    assert run_metronome("export", folder / "everything.parquet", f"--url={server.url}").exit_code == 0
    return folder


@pytest.mark.clock
def test_pandas_runs_its_example(server: Server, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported)
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(example("python").replace("http://localhost:8080", server.url), {})  # noqa: S102  # the page's example
    by_day, _, items = output.getvalue().partition("dtype: int64\n")
    counted = {line.split()[-2]: line.split()[-1] for line in by_day.splitlines()[2:]}
    assert counted["trees"].isdigit()
    assert {"rivers", "trees"} <= set(items.split())


@pytest.mark.clock
def test_duckdb_runs_its_example(server: Server, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported)
    views, agents = (duckdb.execute(sql).fetchall() for sql in example("sql").split(";")[:2])
    counted = server.get("/query?event=view&by=id&bots=1")["rows"]
    assert views == [tuple(row) for row in sorted(counted, key=lambda row: (-row[1], row[0] or ""))]
    assert sum(count for _, count in agents) == server.get("/query?bots=1")["rows"][0][0]


@pytest.mark.slow
@pytest.mark.clock
def test_spreadsheets_get_their_files(server: Server, tmp_path: Path) -> None:
    commands = example("console").replace("$ ", "").replace("localhost:8080", server.url.removeprefix("http://"))
    metronome = f"{shlex.join(COMMAND)} export --url={server.url}"
    done = subprocess.run(
        ["/bin/bash", "-ec", commands.replace("metronome export", metronome)],
        cwd=tmp_path,
        env=build_environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    headers = {"january.csv": "timestamp", "items.csv": "id", "days.csv": "day"}
    assert {path.name for path in tmp_path.iterdir()} == {*headers}
    for name, first in headers.items():
        with (tmp_path / name).open(newline="") as text:
            assert next(csv.reader(text))[0] == first


@pytest.mark.parametrize("report", REPORTS)
def test_each_report_opens_as_a_table(report: str, server: Server, tmp_path: Path) -> None:
    query = "?by=id,event&metrics=count,visitors,p50:duration" if report == "query" else ""
    url, file = f"{server.url}/{report}.csv{query}", tmp_path / "table.csv"
    urllib.request.urlretrieve(url, file)  # noqa: S310  # an address of this test's server
    with file.open(newline="") as text:
        header, *rows = csv.reader(text)
    frame = pd.read_csv(url)
    assert ([*frame.columns], len(frame)) == (header, len(rows))
    assert {len(row) for row in rows} <= {len(header)}
    relation = duckdb.read_csv(file, header=True, all_varchar=True)
    assert (relation.columns, len(relation.fetchall())) == (header, len(rows))
