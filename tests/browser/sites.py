"""A small site on the loopback interface."""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

HTML: Final = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class SitePage:
    """What is answered at a path.

    Attributes:
        body: of the answer.
        kind: its content type.
        headers: more of them.
        delay: seconds until it is answered.

    """

    body: str = ""
    content_type: str = HTML
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass(slots=True)
class StaticSite:
    """A site that is being served.

    Attributes:
        port: of the loopback, where it is.
        pages: by their paths; more may be added at any time.
        cookies: those that came with requests.

    """

    port: int
    pages: dict[str, SitePage] = field(default_factory=dict)
    cookies: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The site's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def other_host_url(self) -> str:
        """The same site under the name of another host."""
        return f"http://localhost:{self.port}"

    def add_page(self, path: str, body: str = "", head: str = "", title: str = "A page", **headers: str) -> str:
        """Put a page of HTML at a path, and return its address."""
        text = f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{title}</title>{head}</head>"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.pages[path] = SitePage(f"{text}<body>{body}</body></html>", headers=named)
        return self.url + path


@contextlib.contextmanager
def running_site() -> Iterator[StaticSite]:
    """Serve a site."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # as the standard library calls it
            if "Cookie" in self.headers:
                site.cookies.append(self.headers["Cookie"])
            page = site.pages.get(self.path.partition("?")[0])
            time.sleep(page.delay if page else 0)
            body = (page.body if page else "not here").encode()
            self.send_response(200 if page else 404)
            self.send_header("Content-Type", page.content_type if page else "text/plain")
            self.send_header("Content-Length", str(len(body)))
            for name, value in (page.headers if page else {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        site = StaticSite(listening.server_port)
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield site
        finally:
            listening.shutdown()
            thread.join()
