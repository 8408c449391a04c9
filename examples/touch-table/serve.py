"""Serves the touch table: ``python examples/touch-table/serve.py --key KEY``, with Python's standard library only."""

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
    """Answers with the files of this folder, and with what the table is set up with."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *given: object, setup: dict[str, object]) -> None:
        self._setup = setup
        super().__init__(*given, directory=str(FOLDER))  # type: ignore[arg-type]  # as the server gives them

    def do_GET(self) -> None:
        """Answer with a file, or with the table's set-up."""
        path = self.path.partition("?")[0]
        if path == "/setup.json":
            self._answer(json.dumps(self._setup).encode(), "application/json")
        elif path in FILES:
            file = FOLDER / (path.strip("/") or "index.html")
            self._answer(file.read_bytes(), f"{self.guess_type(file)}; charset=utf-8")
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""

    def _answer(self, body: bytes, kind: str) -> None:
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
    parser = argparse.ArgumentParser(description="Serve a touch table whose sessions Metronome keeps.")
    parser.add_argument("--metronome", default=METRONOME, help="where Metronome is (%(default)s)")
    parser.add_argument(
        "--key", default=os.environ.get(KEY_VARIABLE, ""), help=f"the table's key; without it, that in {KEY_VARIABLE}"
    )
    parser.add_argument("--idle", type=float, default=60, help="seconds until a visitor has left (%(default)s)")
    parser.add_argument("--port", type=int, default=8001, help="port of the table; 0 for a free one (%(default)s)")
    asked = parser.parse_args()
    if not asked.key:
        sys.exit("the table needs a key: make one with `metronome keys create hall`, and name it with --key")
    setup = {"metronome": asked.metronome.rstrip("/"), "key": asked.key, "idleSeconds": asked.idle}
    with ThreadingHTTPServer(("127.0.0.1", asked.port), partial(Table, setup=setup)) as server:
        print(f"the table is at http://localhost:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
