"""Serve the touch table with Python's standard library: ``METRONOME_KEY=… python examples/touch-table/serve.py``."""

import argparse
import json
import os
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
METRONOME: Final = "http://localhost:8080"
KEY_VARIABLE: Final = "METRONOME_KEY"
FILES: Final = frozenset({"/", "/index.html", "/style.css", "/table.js", "/microticks.js"})


class Table(SimpleHTTPRequestHandler):
    """Responds with the files of this folder and with the table's settings."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: object, setup: dict[str, object]) -> None:
        self._setup = setup
        super().__init__(*args, directory=str(FOLDER))  # type: ignore[arg-type]  # the server's arguments

    def do_GET(self) -> None:
        """Respond with a file or with the table's settings."""
        path = self.path.partition("?")[0]
        if path == "/setup.json":
            self._respond(json.dumps(self._setup).encode(), "application/json")
        elif path in FILES:
            file = FOLDER / (path.strip("/") or "index.html")
            self._respond(file.read_bytes(), f"{self.guess_type(file)}; charset=utf-8")
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Do not log requests."""

    def _respond(self, body: bytes, kind: str) -> None:
        policy = (
            f"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self' {self._setup['metronome']}"
        )
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve a touch table that reports its sessions to Metronome.")
    parser.add_argument("--metronome", default=METRONOME, help="URL of Metronome (%(default)s)")
    parser.add_argument(
        "--idle", type=float, default=60, help="seconds without a touch until a session ends (%(default)s)"
    )
    parser.add_argument("--port", type=int, default=8001, help="port of the table; 0 for a free one (%(default)s)")
    arguments = parser.parse_args()
    key = os.environ.get(KEY_VARIABLE, "")
    if not key:
        sys.exit(f"missing key: create one with `metronome keys create hall` and set {KEY_VARIABLE} to it")
    setup = {"metronome": arguments.metronome.rstrip("/"), "key": key, "idleSeconds": arguments.idle}
    with ThreadingHTTPServer(("127.0.0.1", arguments.port), partial(Table, setup=setup)) as server:
        print(f"the table is at http://localhost:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
