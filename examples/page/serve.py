"""Serves the example's pages: ``python examples/page/serve.py``, with nothing but Python's standard library."""

import argparse
import sys
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
METRONOME: Final = "http://localhost:8080"
"""The address that stands in the pages."""
KINDS: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".csv": "text/csv",
    ".geojson": "application/geo+json",
}


class Pages(SimpleHTTPRequestHandler):
    """Answers with the files of this folder, in which another Metronome may take the place of the usual one."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *given: object, metronome: str) -> None:
        self._metronome = metronome
        super().__init__(*given, directory=str(FOLDER))  # type: ignore[arg-type]  # as the server gives them

    def do_GET(self) -> None:
        """Answer with a file."""
        path = Path(self.translate_path(self.path))
        if path.is_dir():
            path /= "index.html"
        if path.suffix not in KINDS or not path.is_file():
            self.send_error(404)
            return
        body = path.read_text(encoding="utf-8").replace(METRONOME, self._metronome).encode()
        self.send_response(200)
        self.send_header("Content-Type", f"{KINDS[path.suffix]}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Content-Security-Policy", self._policy())
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""

    def _policy(self) -> str:
        allowed = f"'self' {self._metronome}"
        return f"default-src 'none'; style-src 'self'; script-src {allowed}; connect-src {allowed}; img-src {allowed}"


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve pages that Metronome counts.")
    parser.add_argument("--metronome", default=METRONOME, help="where Metronome is (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port of the pages; 0 for a free one (%(default)s)")
    asked = parser.parse_args()
    metronome = asked.metronome.rstrip("/")
    try:
        urllib.request.urlopen(f"{metronome}/health/live", timeout=5).close()  # noqa: S310  # the user's own
    except (OSError, ValueError) as error:
        print(f"no Metronome answers at {metronome} ({error}): start one with `make serve`", file=sys.stderr)
    with ThreadingHTTPServer(("127.0.0.1", asked.port), partial(Pages, metronome=metronome)) as server:
        print(f"the page is at http://localhost:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
