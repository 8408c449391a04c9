"""``metronome query`` and ``metronome tock`` against a real server, in a pipe and at a terminal."""

import contextlib
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from fcntl import ioctl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from metronome.cli import app
from metronome.cli.query import fill_series
from metronome.cli.tables import format_cell
from metronome.server_client import PENDING_HEADER
from tests.servers import COMMAND, Server, build_environment, free_port, running_server

LONG: Final = "https://www.example.org/a/very/long/path/that/no/terminal/has/room/for/" + "x" * 40
EVENTS: Final[list[dict[str, Any]]] = [
    *(
        {"id": f"doc{at % 3}", "ts": f"2015-01-{day:02}T09:00:00Z", "LCP": 100.0 * at, "visitor": f"v{at % 4}"}
        for day in (1, 2, 5, 22)
        for at in range(day)
    ),
    *({"id": "doc1", "ts": "2015-01-22", "format": form, "referer": "arcgis.com"} for form in ("csv", "csv", "kml")),
    {"id": "doc1", "ts": "2015-01-22", "referer": LONG},
    {"id": "doc1", "ts": "2015-01-22", "referer": "https://übung.example/中文/页"},
    {"id": "\x1b[31mred\nline", "ts": "2015-01-22"},
    {"id": "doc1", "ts": "2015-01-22", "bot": "Googlebot"},
]
ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("cli") / "data") as running:
        running.post_events(orjson.dumps(EVENTS))
        running.wait_until_shipped()
        yield running


def run(*arguments: str, server: Server | None = None, key: str = "") -> Result:
    url = ["--url", server.url] if server else []
    return CliRunner().invoke(app, [*arguments, *url], env={"METRONOME_KEY": key})


def at_terminal(columns: int, *arguments: str, **variables: str) -> str:
    """Run a command at a terminal of that width, and return its output."""
    main, side = pty.openpty()
    ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    plain = {
        name: value for name, value in build_environment().items() if name not in {"COLUMNS", "NO_COLOR", "FORCE_COLOR"}
    }
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=side, stdout=side, stderr=side, env=plain | {"TERM": "xterm-256color"} | variables
    ):
        os.close(side)
        shown = b""
        # Linux tells the end of a terminal by an error.
        while data := read_some(main):
            shown += data
    os.close(main)
    return shown.decode().replace("\r\n", "\n")


def read_some(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


class TestQuery:
    def test_prints_groups_in_descending_order(self, server: Server) -> None:
        result = run("query", "--by", "id", "--metrics", "count,visitors,avg:LCP", "id^=doc", server=server)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.splitlines() == [
            "id    count  visitors  avg:LCP",
            "doc1     15         4      760",
            "doc0     12         4      725",
            "doc2      8         4    987.5",
        ]

    def test_sends_filters_options_and_time_ranges(self, server: Server) -> None:
        arguments = ["event=view", "LCP>=100", "LCP<400", "--from", "2015-01-02", "--to", "2015-01-05", "--by", "day"]
        assert run("query", *arguments, "--fill", server=server).stdout.splitlines() == [
            "day         count",
            "2015-01-02      1",
            "2015-01-03      0",
            "2015-01-04      0",
            "2015-01-05      3",
        ]
        result = run("query", "bot=*", "--by", "bot", server=server)
        assert result.stdout.splitlines() == ["bot        count", "Googlebot      1"]
        result = run("query", "--bots", "--by", "month", "--offset", "0", "--order", "-month", "id=doc1", server=server)
        assert result.stdout.splitlines() == ["month    count", "2015-01     16"]

    def test_prints_changes_as_percentages(self, server: Server) -> None:
        arguments = [
            "--by",
            "id",
            "--from",
            "2015-01-05",
            "--to",
            "2015-01-05",
            "--compare",
            "previous",
            "--limit",
            "2",
        ]
        result = run("query", *arguments, "--metrics", "count,avg:LCP", server=server)
        assert result.stdout.splitlines()[0].split() == [
            *("id", "count", "count:previous", "count:change", "avg:LCP", "avg:LCP:previous", "avg:LCP:change"),
        ]
        arguments = ["--by", "week", "--from", "2015-01-05", "--to", "2015-01-11", "--compare", "previous"]
        result = run("query", *arguments, server=server)
        assert result.stdout.splitlines()[1].split() == ["2015-01-05", "5", "3", "+66.7%"]

    def test_prints_json_and_csv_unchanged(self, server: Server) -> None:
        arguments = ["query", "--by", "format", "--limit", "0"]
        result = run(*arguments, "--json", server=server)
        assert orjson.loads(result.stdout) == server.get("/query?by=format&order=-count&limit=0")
        result = run(*arguments, "--csv", server=server)
        assert result.stdout_bytes == b"format,count\r\ncsv,2\r\nkml,1\r\n"

    def test_notes_omitted_rows_on_standard_error(self, server: Server) -> None:
        result = run("query", "--by", "id", "--limit", "2", server=server)
        assert len(result.stdout.splitlines()) == 3
        assert result.stderr == "2 of 4 rows; use --limit 0 to show all\n"

    def test_notes_an_empty_result(self, server: Server) -> None:
        result = run("query", "id=nobody", "--by", "day", server=server)
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == "no events match in this time range\n"

    def test_prints_whole_texts_without_control_characters_in_a_pipe(self, server: Server) -> None:
        result = run("query", "--by", "referer", server=server)
        assert any(line.startswith(LONG.removeprefix("https://www.")) for line in result.stdout.splitlines())
        result = run("query", "--by", "id", "id!=doc1", server=server)
        assert "\ufffd[31mred\ufffdline" in result.stdout
        assert not re.search(r"[\x1b█▏│─┃━]", result.stdout)
        assert not any(line.endswith(" ") for line in result.stdout.splitlines())

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["view"], "metronome query: invalid filter 'view': expected an expression such as event=view"),
            (["limit=3"], "metronome query: invalid filter 'limit=3': limit is an option, so use --limit"),
            (["--json", "--csv"], "metronome query: --json cannot be combined with --csv"),
            (
                ["--url", "metronome.example"],
                "invalid --url or METRONOME_URL 'metronome.example': expected http://host:port",
            ),
        ],
    )
    def test_reports_invalid_arguments_in_one_line(self, server: Server, arguments: list[str], said: str) -> None:
        result = CliRunner().invoke(app, ["query", "--url", server.url, *arguments])
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr
        assert result.stderr.count("\n") == 1

    def test_reports_a_file_of_a_key_that_cannot_be_read(self) -> None:
        result = CliRunner().invoke(app, ["query", "--key-file", "/nonexistent"])
        assert (result.exit_code, result.stdout) == (2, "")
        assert "cannot read /nonexistent: No such file or directory" in re.sub(r"[│\s]+", " ", result.stderr)

    @pytest.mark.parametrize(
        ("arguments", "name"),
        [(["--by", "idd"], "'idd'"), (["--metrics", "avg:referer"], "referer"), (["--from", "noon"], "noon")],
    )
    def test_reports_why_the_server_rejects_a_query(self, server: Server, arguments: list[str], name: str) -> None:
        result = CliRunner().invoke(app, ["query", "--url", server.url, *arguments])
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
        assert result.stderr.startswith("metronome query: ")
        assert name in result.stderr

    @pytest.mark.slow
    def test_truncates_long_texts_to_the_width_of_a_terminal(self, server: Server) -> None:
        arguments = ["query", "--by", "referer,id", "--metrics", "count,avg:LCP,visitors", "--url", server.url]
        for columns in (60, 80, 200):
            shown = at_terminal(columns, *arguments)
            lines = ESCAPES.sub("", shown).splitlines()
            assert ESCAPES.search(shown)
            assert all(cell_len(line) <= columns for line in lines)
            assert any("█" * 8 in line for line in lines) == (columns == 200)
            assert any("…" in line for line in lines) == (columns < 200)

    @pytest.mark.slow
    def test_draws_bars_at_a_terminal(self, server: Server) -> None:
        for columns in (60, 80):
            lines = ESCAPES.sub(
                "", at_terminal(columns, "query", "--by", "id", "id^=doc", "--url", server.url)
            ).splitlines()
            assert [line.split() for line in lines] == [
                ["id", "count"],
                ["doc1", "15", "█" * 40],
                ["doc0", "12", "█" * 32],
                ["doc2", "8", "█" * 21 + "▍"],
            ]

    def test_plots_a_series_including_days_without_events_below_its_table(self, server: Server) -> None:
        shown = ESCAPES.sub("", at_terminal(60, "query", "--by", "day", "--url", server.url))
        table, drawn = shown.split("\n\n")
        assert table.splitlines()[1].split() == ["2015-01-01", "1"]
        title, *lines, below = drawn.splitlines()
        assert title.split() == ["count"]
        assert lines[0].split() == ["28", "██"]
        assert below.split() == ["2015-01-01", "2015-01-22"]
        # Two columns each for 22 days, of which four have events.
        assert lines[-1][3:].rstrip() == "▂▂▅▅" + " " * 4 + "██" + " " * 32 + "██"

    def test_prints_row_by_row_if_the_table_is_wider_than_the_terminal(self, server: Server) -> None:
        arguments = ["--by", "id", "--metrics", "count,first,last,sum:LCP,avg:LCP", "--limit", "1", "--url", server.url]
        lines = ESCAPES.sub("", at_terminal(60, "query", *arguments)).splitlines()
        assert [line.split() for line in lines[:4]] == [
            ["id", "doc1"], ["count", "15"], ["first", "2015-01-02T09:00:00.000Z"], ["last", "2015-01-22T09:00:00.000Z"]
        ]  # fmt: skip

    def test_prints_to_a_terminal_without_colors_and_unicode(self, server: Server) -> None:
        arguments = ["query", "--by", "referer", "--url", server.url]
        shown = at_terminal(100, *arguments, NO_COLOR="1", PYTHONIOENCODING="ascii")
        assert shown.isascii()
        assert "\x1b[3" not in shown
        assert re.search(r"arcgis\.com +3 +####", shown)


class TestTock:
    def test_prints_tables_of_views_downloads_and_referers(self, server: Server) -> None:
        result = run("tock", "doc1", server=server)
        assert (result.exit_code, result.stderr) == (0, "")
        views, downloads, referers, _ = result.stdout.split("\n\n")
        assert views.splitlines() == [
            "day         views",
            "2015-01-22      9",
            "2015-01-05      2",
            "2015-01-02      1",
        ]
        assert downloads.splitlines() == ["format  downloads", "csv             2", "kml             1"]
        assert [line.split()[-1] for line in referers.splitlines()] == ["count", "3", "1", "1"]

    def test_sends_time_ranges_time_zones_and_bots(self, server: Server) -> None:
        arguments = ["--from", "2015-01-05", "--tz", "Asia/Tokyo", "--interval", "hour", "--bots", "--limit", "1"]
        result = run("tock", "doc1", *arguments, server=server)
        assert result.stdout.splitlines()[:2] == [
            "hour                       views",
            "2015-01-22T18:00:00+09:00      7",
        ]
        assert "there are more hours; use --limit 0 to show all" in result.stderr
        assert run("tock", "doc1", "--bots", "--json", server=server).stdout_bytes.rstrip() == orjson.dumps(
            server.get("/tock/doc1.json?bots=1&limit=10")
        )

    def test_accepts_any_item_id(self, server: Server) -> None:
        result = run("tock", "\x1b[31mred\nline", server=server)
        assert result.stdout.startswith("day         views\n2015-01-22      1\n")
        result = run("tock", "n/ä?#", server=server)
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == "'n/ä?#' has no views or downloads in this time range\n"

    def test_draws_bars_and_a_plot_at_a_terminal(self, server: Server) -> None:
        for columns in (60, 80):
            lines = ESCAPES.sub("", at_terminal(columns, "tock", "doc1", "--url", server.url)).splitlines()
            assert all(cell_len(line) <= columns for line in lines)
            assert "2015-01-22      9  " + "█" * 40 in [line.rstrip() for line in lines]
            assert any(line.split() == ["12", "views", "by", "day"] for line in lines)
            assert any(line.split() == ["2015-01-02", "2015-01-22"] for line in lines)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--interval", "fortnight"], "fortnight"),
            (["--to", "noon"], "noon"),
            (["--tz", "Mars"], "Mars"),
        ],
    )
    def test_reports_why_the_server_rejects_a_request(self, server: Server, arguments: list[str], said: str) -> None:
        result = run("tock", "doc1", *arguments, server=server)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
        assert result.stderr.startswith("metronome tock: ")
        assert said in result.stderr


@pytest.mark.parametrize("command", [["query"], ["tock", "x"]])
def test_distinguishes_an_unreachable_server_from_a_wrong_url(command: list[str], tmp_path: Path) -> None:
    result = run(*command, "--url", f"http://127.0.0.1:{free_port()}")
    assert result.exit_code == 1
    assert "does not respond" in result.stderr
    assert "`metronome serve`" in result.stderr
    with running_server(tmp_path / "data", public="none", trusted_proxies="127.0.0.1") as running:
        result = run(*command, "--url", f"{running.url}/elsewhere")
        assert result.exit_code == 2
        assert "is not a Metronome server of this version: GET" in result.stderr


@pytest.mark.parametrize("command", [["query", "\udcff=1"], ["query", "--by", "\udcff"], ["tock", "\udcff"]])
def test_rejects_arguments_that_are_not_utf_8(command: list[str]) -> None:
    ended = run(*command)
    assert (ended.exit_code, "expected UTF-8" in ended.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (["query"], {"columns": 1, "rows": 2, "total": 3}),
        (["query"], {"columns": ["a"], "rows": [[1, 2], []], "total": 1}),
        (["query"], {"columns": ["count"], "rows": [[{}]], "total": 1}),
        (["query"], {"columns": [1], "rows": [[1]], "total": 1}),
        (["query", "--by", "day"], {"columns": ["day", "count"], "rows": [["x", 1]], "total": 1}),
        (["tock", "x"], {"views": 1, "downloads": 2, "referers": 3}),
        (["tock", "x"], {"views": {"a": "b"}, "downloads": {}, "referers": {}}),
    ],
)
def test_reports_an_unexpected_response(command: list[str], answer: dict[str, Any]) -> None:
    with serving(answer) as url:
        ended = run(*command, "--url", url)
    assert (ended.exit_code, "cannot parse the response" in ended.stderr) == (2, True), ended.output


@pytest.mark.parametrize("as_json", [False, True])
def test_notes_on_standard_error_that_accepted_events_are_missing(*, as_json: bool) -> None:
    answer = {"views": {"2015-01-22": 1}, "downloads": {}, "referers": {}}
    with serving(answer, **{PENDING_HEADER: "1234"}) as url:
        ended = run("tock", "x", "--url", url, *(["--json"] if as_json else []))
    assert (ended.exit_code, "2015-01-22" in ended.stdout, "1,234 accepted events" in ended.stderr) == (0, True, True)


@contextlib.contextmanager
def serving(answer: dict[str, Any], **headers: str) -> Iterator[str]:
    """Serve a response to all requests, and provide the URL."""

    class OtherServer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # as the library calls it
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(orjson.dumps(answer))

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), OtherServer) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_sends_the_key(tmp_path: Path) -> None:
    data = tmp_path / "data"
    token = run("keys", "create", "asker", "--create", "--scope", "query", "--data", str(data)).stdout.splitlines()[-1]
    (file := tmp_path / "key").write_text(f"{token}\n")
    with running_server(data, public="none") as running:
        for command in (["query"], ["tock", "x"]):
            refused = run(*command, server=running)
            assert refused.exit_code == 1
            assert "set a key with METRONOME_KEY or --key-file" in refused.stderr
            assert run(*command, server=running, key=token).exit_code == 0
            assert run(*command, "--key-file", str(file), server=running).exit_code == 0


@pytest.mark.parametrize(
    ("value", "column", "text"),
    [
        (None, "", "-"),
        (9200, "", "9,200"),
        (9200.0, "", "9,200"),
        (1234.56, "", "1,234.6"),
        (12.345, "", "12.35"),
        (0.012345, "", "0.0123"),
        (-0.5, "", "-0.5"),
        (1e300, "", f"{int(1e300):,}"),
        (0.123, "count:change", "+12.3%"),
        (-1.0, "count:change", "-100.0%"),
        (12.0, "count:change", "+1,200.0%"),
        ("a\tb", "", "a\ufffdb"),
    ],
)
def test_formats_values(value: Any, column: str, text: str) -> None:
    assert format_cell(value, column) == text


def test_fills_and_sorts_a_series() -> None:
    hours = {"2026-10-25T02:00:00+01:00": 1.0, "2026-10-25T01:00:00+02:00": 2.0}
    assert [*fill_series(hours, "hour", "Europe/Zurich").items()] == [
        ("2026-10-25T01:00:00+02:00", 2.0),
        ("2026-10-25T02:00:00+02:00", 0),
        ("2026-10-25T02:00:00+01:00", 1.0),
    ]
    far = {"2026-01-01T00:00:00Z": 1.0, "1970-01-01T00:00:00Z": 2.0}
    assert [*fill_series(far, "minute", "UTC").values()] == [2.0, 1.0]
    assert fill_series({}, "day", "UTC") == {}
