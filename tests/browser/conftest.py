"""Fixtures of browser tests: a Metronome and a site for each module."""

from collections.abc import Iterator

import pytest

from tests.browser.chromium import require_chromium
from tests.browser.sites import StaticSite, running_site
from tests.servers import Server, running_server, unique_name


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    require_chromium()
    with running_server(tmp_path_factory.mktemp("browser") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def site() -> Iterator[StaticSite]:
    with running_site() as running:
        yield running


@pytest.fixture
def item() -> str:
    return unique_name("item-")
