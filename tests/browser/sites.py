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
    """The response at a path.

    Attributes:
        body: the response's body.
        content_type: its content type.
        headers: further headers.
        delay: seconds before the response.

    """

    body: str = ""
    content_type: str = HTML
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass(slots=True)
class StaticSite:
    """A running site.

    Attributes:
        port: port on the loopback interface.
        pages: pages by path; pages can be added at any time.
        cookies: the cookies of requests.

    """

    port: int
    pages: dict[str, SitePage] = field(default_factory=dict)
    cookies: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The site's URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def other_host_url(self) -> str:
        """The same site under another host name."""
        return f"http://localhost:{self.port}"

    def add_page(self, path: str, body: str = "", head: str = "", title: str = "A page", **headers: str) -> str:
        """Add an HTML page and return its URL."""
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
            """Do not log requests."""

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
