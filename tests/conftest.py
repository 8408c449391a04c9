"""Fixtures and settings of all tests."""

import gc
import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest

from tests.elasticsearch_node import elasticsearch_url, opensearch_url, other_cluster_url
from tests.s3_server import s3, s3_environment
from tests.servers import Server, running_server, unique_name

pytest.register_assert_rewrite(
    "tests.contracts",
    "tests.browser.chromium",
)

from tests.browser.chromium import browser, visitor  # noqa: E402  # after registering it for assertion rewriting

__all__ = [
    "browser",
    "elasticsearch_url",
    "opensearch_url",
    "other_cluster_url",
    "s3",
    "s3_environment",
    "visitor",
]

# They need what `make test-clients` installs, and run with it.
collect_ignore = [] if "METRONOME_CLIENTS" in os.environ else ["programs"]

# Processes that a shell starts in the background ignore Ctrl-C, and so would those that are started here to test it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A test says what is right, not how fast it is: on a busy machine the first example alone may take too long.
hypothesis.settings.register_profile("thorough", deadline=None)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=20)
hypothesis.settings.load_profile("thorough")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name binary parameters by their argument: pytest-xdist needs the same test names in all of its workers.

    Compressed and packed bytes may contain the current time.
    """
    return argname if isinstance(val, bytes) and not val.decode("latin-1").isprintable() else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the variants with two workers as slow, except those of tests marked `crew`."""
    for item in items:
        if _has_two_workers(item) and item.get_closest_marker("crew") is None:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Exclude the many objects that collection created from the garbage collections during the tests."""
    gc.collect()
    gc.freeze()


def _has_two_workers(item: pytest.Item) -> bool:
    variant = item.name.partition("[")[2].rstrip("]").split("-")
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return parameters.get("workers") == 2 or any(part.startswith("crew") for part in variant)


READ_WAIT_SECONDS = 30


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Provide a server which tests in many modules share; reads wait for what was sent, however busy the machine is."""
    with running_server(tmp_path_factory.mktemp("server") / "data", read_wait_seconds=READ_WAIT_SECONDS) as running:
        yield running


@pytest.fixture(scope="session")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Provide a server with two workers, which tests in many modules share; reads wait as those of `server`."""
    with running_server(
        tmp_path_factory.mktemp("crew") / "data", workers=2, read_wait_seconds=READ_WAIT_SECONDS
    ) as running:
        yield running


@pytest.fixture(params=["one", "crew"])
def either(request: pytest.FixtureRequest) -> Server:
    """Provide a server with a single process, and one with two workers."""
    running: Server = request.getfixturevalue("server" if request.param == "one" else "crew")
    return running


@pytest.fixture
def item() -> str:
    """Return the ID of an item that no other test uses."""
    return unique_name("item-")
