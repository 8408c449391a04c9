"""Take the README's pictures of the page: ``python -m docs.screenshot``, which ``make screenshot`` runs.

They show the demo on a throwaway server, in a real Chromium, so they change with the page and with the day.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import orjson

from tests.browser.chromium import launch_browser, require_chromium
from tests.servers import COMMAND, STOP_TIMEOUT_SECONDS, build_environment

IMAGES: Final = Path(__file__).parent / "images"
THEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
WIDTH: Final = 1180
HEIGHT: Final = 815
MAX_BYTES: Final = 200_000
"""GitHub loads the picture with the README."""


@contextmanager
def running_demo() -> Iterator[str]:
    """Run a throwaway server, and yield the URL of its page once the demo is in its store."""
    process = subprocess.Popen(  # noqa: S603  # the project's own command
        [*COMMAND, "serve", "--demo", "--port", "0"], env=build_environment(log_format="json"), stderr=subprocess.PIPE
    )
    try:
        assert process.stderr is not None  # noqa: S101  # it is a pipe
        events = map(orjson.loads, process.stderr)
        yield next(event["url"] for event in events if event["event"] == "demo_loaded")
    finally:
        process.terminate()
        process.communicate(timeout=STOP_TIMEOUT_SECONDS)


async def take_pictures(url: str) -> None:
    """Write a picture of the page for each theme."""
    IMAGES.mkdir(exist_ok=True)
    async with launch_browser(require_chromium()) as browser:
        for theme in THEMES:
            page = await browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=theme)
            await page.goto(url, wait_until="networkidle")
            picture = await page.screenshot()
            await page.close()
            if len(picture) > MAX_BYTES:
                sys.exit(f"the {theme} picture has {len(picture):,} bytes, over {MAX_BYTES:,}: make it smaller")
            (IMAGES / f"overview-{theme}.png").write_bytes(picture)


def main() -> None:
    """Take the pictures."""
    with running_demo() as url:
        asyncio.run(take_pictures(url))


if __name__ == "__main__":
    main()
