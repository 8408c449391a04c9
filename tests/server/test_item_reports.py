"""Errors, recommendations and orders of items, asked of real servers over HTTP, on both stores."""

from collections.abc import Iterator
from typing import Any, Final

import orjson
import pytest

from tests.installations import create_salts
from tests.servers import Server, delete_indices, refresh_indices, running_server, unique_name

# The embedded store is tested with two workers only.
pytestmark = pytest.mark.crew

DAY: Final = "2015-01-22T10:00:00Z"
VISITORS: Final = {"a/b": range(6), "twin": range(6), "else": range(6, 20)}
EVENTS: Final[list[dict[str, Any]]] = [
    *(
        {"id": item, "ts": DAY, "visitor": f"v{visitor}", "session": f"s{visitor}"}
        for item, visitors in VISITORS.items()
        for visitor in visitors
    ),
    *(
        {
            "id": "a/b",
            "ts": DAY,
            "event": "error",
            "message": f"no item {number}",
            "session": "s0",
            "visitor": "v0",
            "browser": "Firefox",
            "browser_version": "140",
        }
        for number in (1, 22, 333)
    ),
]


@pytest.fixture(
    scope="module", params=["crew", pytest.param("elasticsearch", marks=[pytest.mark.elasticsearch, pytest.mark.slow])]
)
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server with two workers and the embedded store, and one on Elasticsearch."""
    data = tmp_path_factory.mktemp("reports") / "data"
    if request.param == "crew":
        with running_server(data, workers=2) as running:
            fill(running)
            yield running
        return
    node, prefix = request.getfixturevalue("elasticsearch_url"), unique_name("reports")
    try:
        create_salts(node, prefix)
        with running_server(data, store=node, index_prefix=prefix) as running:
            fill(running)
            refresh_indices(node, prefix)
            yield running
    finally:
        delete_indices(node, prefix)


def fill(server: Server) -> None:
    assert orjson.loads(server.post_events(orjson.dumps(EVENTS)))["accepted"] == len(EVENTS)
    server.wait_until_shipped()


def asked(server: Server, path: str) -> Any:
    found = server.get(path)
    # Elasticsearch estimates how many visitors there are; of few, its estimate is right.
    found.pop("exact", None)
    return found


def test_errors_of_an_item_are_folded_at_the_door(filled: Server) -> None:
    found = asked(filled, "/errors/a%2Fb.json")
    assert found["days"] == {"2015-01-22": 3}
    (message,) = found["messages"]
    assert (message["count"], message["sessions"]) == (3, 1)
    assert message["first"] == message["last"] == "2015-01-22T10:00:00.000Z"
    assert "333" not in message["message"]
    assert found["browsers"] == [{"browser": "Firefox", "version": "140", "count": 3, "sessions": 1}]
    assert found["session_share"] == 0.1667
    assert "items" not in found


def test_errors_of_all_items_name_them(filled: Server) -> None:
    found = asked(filled, "/errors.json?from=2015-01-22&to=2015-01-22&tz=Europe/Zurich&limit=5&bots=0")
    assert (found["session_share"], found["items"]) == (0.05, [{"id": "a/b", "count": 3}])


def test_recommendations_of_an_item_are_those_that_its_visitors_saw(filled: Server) -> None:
    found = asked(filled, "/recommendations/a%2Fb.json?from=2015-01-01&to=2015-02-01&limit=5")
    assert [(each["id"], each["visitors"]) for each in found["items"]] == [("twin", 6)]
    assert asked(filled, "/recommendations/never.json") == {"items": []}


def test_recommendations_of_all_items_are_pairs(filled: Server) -> None:
    found = asked(filled, "/recommendations.json")
    assert [(pair["items"], pair["visitors"]) for pair in found["pairs"]] == [(["a/b", "twin"], 6)]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("order=views", {"id": "else", "views": 14, "downloads": 0}),
        ("order=visitors", {"id": "else", "views": 14, "downloads": 0, "visitors": 14}),
        ("order=rising&to=2015-01-22", {"id": "else", "views": 14, "downloads": 0, "before": 0, "change": 14}),
    ],
)
def test_items_are_told_in_the_order_that_is_asked_for(filled: Server, query: str, first: dict[str, Any]) -> None:
    assert asked(filled, f"/items.json?{query}")["items"][0] == first


def test_what_rises_does_so_up_to_now(filled: Server) -> None:
    assert asked(filled, "/items.json?order=rising") == {"items": []}


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/items.json?order=best", "invalid order=best: expected one of views, downloads, visitors, rising"),
        ("/items.json?order=rising&from=2015-02-01&to=2015-01-01", "the range is empty"),
        ("/errors.json?order=views", "unknown parameter 'order'"),
        ("/recommendations/x.json?interval=day", "unknown parameter 'interval'"),
    ],
)
def test_rejects_invalid_parameters(filled: Server, path: str, says: str) -> None:
    found = filled.get(path)
    assert found["status"] == 400
    assert says in found["detail"]
