"""What tests in a browser share: a Metronome and a site of pages for each module."""

from collections.abc import Iterator

import pytest

from tests.browser.chromium import need_chromium
from tests.browser.sites import Site, serving_pages
from tests.servers import Server, serving, unique_name


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    need_chromium()
    with serving(tmp_path_factory.mktemp("browser") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving_pages() as running:
        yield running


@pytest.fixture
def item() -> str:
    return unique_name("item-")
