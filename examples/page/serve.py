"""Serve the example's pages with Python's standard library: ``python examples/page/serve.py``."""

import argparse
import sys
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
METRONOME: Final = "http://localhost:8080"
"""The URL in the pages."""
KINDS: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".csv": "text/csv",
    ".geojson": "application/geo+json",
}


class Pages(SimpleHTTPRequestHandler):
    """Responds with the files of this folder, with the configured URL of Metronome."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: object, metronome: str) -> None:
        self._metronome = metronome
        super().__init__(*args, directory=str(FOLDER))  # type: ignore[arg-type]  # the server's arguments

    def do_GET(self) -> None:
        """Respond with a file."""
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
        """Do not log requests."""

    def _policy(self) -> str:
        metronome = self._metronome
        return (
            f"default-src 'none'; style-src 'self'; script-src {metronome}; connect-src {metronome}; "
            f"img-src 'self' {metronome}; frame-src {metronome}"
        )


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve pages that Metronome counts.")
    parser.add_argument("--metronome", default=METRONOME, help="URL of Metronome (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port of the pages; 0 for a free one (%(default)s)")
    arguments = parser.parse_args()
    metronome = arguments.metronome.rstrip("/")
    try:
        urllib.request.urlopen(f"{metronome}/health/live", timeout=5).close()  # noqa: S310  # the user's own
    except (OSError, ValueError) as error:
        print(f"Metronome is unreachable at {metronome} ({error}): start it with `make serve`", file=sys.stderr)
    with ThreadingHTTPServer(("127.0.0.1", arguments.port), partial(Pages, metronome=metronome)) as server:
        print(f"the page is at http://localhost:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
