"""How the embedded store grows: what reports, ingest, memory and the disk cost with ever more events of a year.

``python -m bench.growth`` fills stores of 100,000, 1,000,000 and 10,000,000 realistic events, which takes half an hour
and 4 GB of disk, and prints a table; ``--sizes`` names others, and ``--folder DIR`` keeps the stores. ``--plot FILE``
draws it, ``--write FILE`` replaces the table between the markers ``<!-- growth -->`` of a file, ``--json FILE`` keeps
the numbers.
"""

import argparse
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from bench.harness import temporary_folder, write_between_markers
from bench.peers import measure_chdb
from bench.realistic import draw_documents, draw_events
from tests.servers import COMMAND, Server, build_environment, running_server

SIZES: Final = (100_000, 1_000_000, 10_000_000)
YEAR: Final = timedelta(days=365)
DOCUMENTS_PER_REQUEST: Final = 5_000
REPETITIONS: Final = 30
INGEST_SHARE: Final = 0.05
EVENTS_PER_REQUEST: Final = 1_000
INGEST_SECONDS: Final = 10.0
MIN_TOCKS: Final = 200


class Report(NamedTuple):
    """A report to measure: its name, and its path without the parameter that makes each request different."""

    name: str
    path: str


class Measured(NamedTuple):
    """What was measured with a number of events.

    Attributes:
        events: how many are stored.
        ingest: documents stored a second, when the last twentieth was added.
        sent_rate: realistic events a second over one connection, from HTTP to the store.
        tock_p99: milliseconds, while events come in at half that rate.
        start_seconds: from starting the process to the first tock.
        memory: peak resident bytes while ingesting.
        bytes_per_event: on disk, of segments, filters and the database.
        sent_bytes: mean size of an event's JSON, as it was sent.
        milliseconds: the reports' names and median durations.

    """

    events: int
    ingest: float
    sent_rate: float
    tock_p99: float
    start_seconds: float
    memory: int
    bytes_per_event: float
    sent_bytes: float
    milliseconds: dict[str, float]


def fill(server: Server, documents: Iterator[bytes], events: int) -> float:
    """Store documents, and return the rate at which the last twentieth was stored, in documents a second."""
    last = list[float]()
    stored, measured, show = 0, 0, _show_progress(events)
    while lines := list(islice(documents, DOCUMENTS_PER_REQUEST)):
        started = time.monotonic()
        post(f"{server.url}/documents", b"\n".join(lines))
        seconds = time.monotonic() - started
        stored += len(lines)
        if stored > events * (1 - INGEST_SHARE):
            last.append(seconds)
            measured += len(lines)
        show(stored)
    return measured / sum(last)


def post(url: str, body: bytes) -> Any:
    """Post NDJSON, and return the response."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/x-ndjson"})  # noqa: S310  # our server
    with urllib.request.urlopen(request, timeout=600) as response:  # noqa: S310  # our own server
        return orjson.loads(response.read())


def measure_reports(server: Server, reports: Sequence[Report]) -> dict[str, float]:
    """Return the median milliseconds of reports, none of which was requested before."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=300)
    medians = {}
    numbers = count(100)
    for report in reports:
        durations = []
        for _ in range(REPETITIONS):
            path = f"{report.path}{'&' if '?' in report.path else '?'}limit={next(numbers)}"
            started = time.perf_counter()
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            durations.append((time.perf_counter() - started) * 1000)
            if response.status != 200:
                raise SystemExit(f"{path} returned status {response.status}: {body.decode()}")
        medians[report.name] = statistics.median(durations)
    connection.close()
    return medians


def measure(folder: Path, events: int) -> Measured:
    """Measure a store with events of a year, and one with as many of a month as that has in it.

    The stores are filled first, unless they are in the folder already.
    """
    end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    filled = fill_once(folder / f"year-{events}", events, end - YEAR, YEAR)
    start = datetime.fromisoformat(filled["start"])
    month = (start + YEAR / 2).replace(day=1)
    share = round(events * 30 / YEAR.days)
    fill_once(folder / f"month-{events}", share, month, timedelta(days=30))
    year, only = f"from={start:%Y-%m-%d}", f"from={month:%Y-%m}&to={month:%Y-%m}"
    of_month = (
        Report("a month by browser", f"/query?by=browser,device&metrics=count&{only}"),
        Report("a month by the sender's own field", f"/query?by=topic&metrics=count&{only}"),
    )
    of_year = (
        Report("tock of the item with 10 % of the events", f"/tock/doc0.json?{year}"),
        Report("tock of an item with 1 %", f"/tock/doc1.json?{year}"),
        Report("/items.json", f"/items.json?{year}"),
        Report("count by the sender's own field", "/query?by=topic&metrics=count"),
        Report("average of the sender's own number", "/query?by=event&metrics=avg:size"),
        *of_month,
    )
    with running_server(folder / f"year-{events}") as server:
        milliseconds = measure_reports(server, of_year)
        sent_rate, tock_p99 = measure_while_ingesting(server)
        memory = server.peak_memory()
        data = server.data
    with running_server(folder / f"month-{events}") as server:
        alone = measure_reports(server, of_month)
    milliseconds |= {f"{name}, alone in the store": duration for name, duration in alone.items()}
    size = sum(file.stat().st_size for file in data.rglob("*") if file.is_file() and "spool" not in file.parts)
    sent = [len(text) for text in draw_events(2_000)]
    return Measured(
        events,
        filled["rate"],
        sent_rate,
        tock_p99,
        measure_start(data),
        max(filled["memory"], memory),
        size / events,
        statistics.mean(sent),
        milliseconds,
    )


def fill_once(data: Path, events: int, start: datetime, duration: timedelta) -> dict[str, Any]:
    """Fill a store unless it was filled before, and return when it starts, the rate and the peak memory."""
    note = data.with_suffix(".json")
    if not note.exists():
        with running_server(data) as server:
            rate = fill(server, draw_documents(events, start, duration), events)
            _wait_for_merges(data)
            filled = {"start": start.isoformat(), "rate": rate, "memory": server.peak_memory()}
        note.write_bytes(orjson.dumps(filled))
    noted: dict[str, Any] = orjson.loads(note.read_bytes())
    return noted


def measure_while_ingesting(server: Server) -> tuple[float, float]:
    """Return how many realistic events a second can be sent, and the p99 milliseconds of tock at half that rate."""
    events = list(draw_events(20 * EVENTS_PER_REQUEST))
    bodies = [b"\n".join(events[at : at + EVENTS_PER_REQUEST]) for at in range(0, len(events), EVENTS_PER_REQUEST)]
    sent, started = 0, time.monotonic()
    for body in cycle(bodies):
        post(f"{server.url}/tick", body)
        sent += EVENTS_PER_REQUEST
        if time.monotonic() - started > INGEST_SECONDS:
            break
    server.wait_until_shipped(600, 0.2)
    rate = sent / (time.monotonic() - started)
    stop = threading.Event()
    sender = threading.Thread(target=_send_at_rate, args=(server, bodies, rate / 2, stop))
    sender.start()
    connection = HTTPConnection("127.0.0.1", server.port, timeout=300)
    durations = list[float]()
    while time.monotonic() - started < 3 * INGEST_SECONDS or len(durations) < MIN_TOCKS:
        begun = time.perf_counter()
        connection.request("GET", f"/tock/doc{len(durations) % 100 + 2}.json")
        connection.getresponse().read()
        durations.append((time.perf_counter() - begun) * 1000)
        time.sleep(0.02)
    stop.set()
    sender.join()
    return rate, sorted(durations)[int(len(durations) * 0.99)]


def _send_at_rate(server: Server, bodies: Sequence[bytes], rate: float, stop: threading.Event) -> None:
    started = time.monotonic()
    for number, body in enumerate(cycle(bodies)):
        if stop.wait(max(0.0, started + number * EVENTS_PER_REQUEST / rate - time.monotonic())):
            return
        post(f"{server.url}/tick", body)


def measure_start(data: Path) -> float:
    """Return the seconds from starting a process to its first tock."""
    server = Server(data)
    environment = build_environment(data=data, port=server.port)
    started = time.monotonic()
    process = subprocess.Popen([*COMMAND, "serve"], env=environment, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                with urllib.request.urlopen(f"{server.url}/tock/doc0.json", timeout=60) as response:  # noqa: S310
                    response.read()
                return time.monotonic() - started
            except OSError:
                if process.poll() is not None or time.monotonic() - started > 60:
                    raise
                time.sleep(0.01)
    finally:
        process.terminate()
        process.wait()


def _wait_for_merges(data: Path, quiet_seconds: float = 5.0) -> None:
    """Wait until the store's files have not changed for some seconds."""
    changed = time.monotonic()
    seen: object = None
    while time.monotonic() - changed < quiet_seconds:
        files = sorted((str(file), file.stat().st_size) for file in data.rglob("*.parquet") if file.exists())
        if files != seen:
            seen, changed = files, time.monotonic()
        time.sleep(0.5)


def _show_progress(events: int) -> Callable[[int], None]:
    shown = 0

    def show(stored: int) -> None:
        nonlocal shown
        if stored * 20 // events > shown:
            shown = stored * 20 // events
            print(f"  {stored:,} of {events:,} events stored", file=sys.stderr, flush=True)

    return show


def table(measured: Sequence[Measured]) -> str:
    """Return the results as a Markdown table, a column for each size, and the ratio of the last to the first."""
    lines = [
        "| events of a year | " + " | ".join(f"{one.events:,}" for one in measured) + " | ratio of the last two |",
        "|---|" + "---|" * (len(measured) + 1),
    ]

    def add(name: str, values: Sequence[float], unit: str, digits: int) -> None:
        ratio = values[-1] / values[-2] if len(values) > 1 else 1
        cells = [f"{value:,.{digits}f}{unit}" for value in values]
        lines.append(f"| {name} | " + " | ".join([*cells, f"{ratio:.2f}"]) + " |")

    for name in measured[0].milliseconds:
        add(name, [one.milliseconds[name] for one in measured], " ms", 1)
    add("documents stored a second", [one.ingest for one in measured], "", 0)
    add(
        "realistic events a second over one connection, from HTTP to the store",
        [one.sent_rate for one in measured],
        "",
        0,
    )
    add("p99 of tock while events come in at half that rate", [one.tock_p99 for one in measured], " ms", 0)
    add("bytes on disk an event", [one.bytes_per_event for one in measured], "", 0)
    add("of its JSON as sent", [one.bytes_per_event / one.sent_bytes for one in measured], "", 2)
    add("peak memory", [one.memory / 2**20 for one in measured], " MB", 0)
    add("start to first tock", [one.start_seconds for one in measured], " s", 1)
    return "\n".join(lines)


def plot(measured: Sequence[Measured], file: Path) -> None:
    """Draw the duration of each report against the number of events, both logarithmic, as SVG."""
    import matplotlib as mpl  # noqa: PLC0415  # installed for the plot only

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "metronome"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(8, 5))
    sizes = [one.events for one in measured]
    for name in measured[0].milliseconds:
        axes.plot(sizes, [one.milliseconds[name] for one in measured], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="events stored, over a year", ylabel="milliseconds, median")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize="small", loc="upper left")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    """Run the benchmark for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N", help="numbers of events")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where stores are kept, and found again")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="an SVG file to draw to")
    parser.add_argument("--json", type=Path, metavar="FILE", help="a file to write the numbers to")
    parser.add_argument("--write", type=Path, metavar="FILE", help="a file with the markers")
    arguments = parser.parse_args()
    measured = []
    for events in arguments.sizes:
        print(f"measuring {events:,} events …", file=sys.stderr, flush=True)
        if arguments.folder:
            arguments.folder.mkdir(parents=True, exist_ok=True)
            measured.append(measure(arguments.folder, events))
        else:
            with temporary_folder() as folder:
                measured.append(measure(folder, events))
    chdb = measure_chdb(min(arguments.sizes[-1], 1_000_000))
    text = f"{table(measured)}\n\n{chdb.describe()}"
    print(text)
    if arguments.json:
        arguments.json.write_bytes(orjson.dumps([one._asdict() for one in measured], option=orjson.OPT_INDENT_2))
    if arguments.plot:
        plot(measured, arguments.plot)
    if arguments.write:
        write_between_markers(arguments.write, "growth", text)


if __name__ == "__main__":
    main()
