"""Requests of plausible-tracker, Plausible's own script, @umami/node and GoatCounter's script, through a server."""

from email.message import Message
from typing import Final, NamedTuple
from urllib.request import Request, urlopen

import orjson
import pytest

from tests.servers import Server, unique_name

CHROME: Final = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
ORIGIN: Final = "https://data.example.org"
PLAUSIBLE_TRACKER: Final = '{"n":"pageview","u":"%s/%s?a=1","d":"data.example.org","r":null,"w":1280,"h":0}'
PLAUSIBLE_SCRIPT: Final = '{"n":"pageview","v":36,"u":"%s/%s","d":"data.example.org","r":"https://news.example/"}'
UMAMI_NODE: Final = '{"type":"event","payload":{"website":"94db1cb1-74f4-4a40-ad6c-962362670409","url":"%s/%s"}}'
GOATCOUNTER: Final = "/count?p=%%2F%s&r=&e=false&t=Wells&s=1280%%2C720%%2C1&b=0&q=&rnd=8kgu5"


class Response(NamedTuple):
    status: int
    headers: Message
    body: bytes


def send(
    server: Server, path: str, body: str | None, agent: str = CHROME, content_type: str = "text/plain"
) -> Response:
    headers = {"User-Agent": agent, "Origin": ORIGIN, "Content-Type": content_type}
    request = Request(server.url + path, None if body is None else body.encode(), headers)  # noqa: S310  # our own server
    with urlopen(request, timeout=30) as response:  # noqa: S310  # our own server
        return Response(response.status, response.headers, response.read())


@pytest.mark.clock
def test_recorded_views_of_web_analytics_are_in_the_tock(server: Server, item: str) -> None:
    reply = send(server, "/api/event", PLAUSIBLE_TRACKER % (ORIGIN, item))
    assert (reply.status, reply.body, reply.headers["Access-Control-Allow-Origin"]) == (202, b"ok", ORIGIN)
    assert send(server, "/api/event", PLAUSIBLE_SCRIPT % (ORIGIN, item)).status == 202
    reply = send(server, "/api/send", UMAMI_NODE % (ORIGIN, item), "Mozilla/5.0 Umami/v24.8.0", "application/json")
    assert reply.status == 200
    assert orjson.loads(reply.body).keys() == {"cache", "sessionId", "visitId"}
    for body in (None, ""):
        reply = send(server, GOATCOUNTER % item, body)
        assert (reply.status, reply.headers["Content-Type"], len(reply.body)) == (200, "image/gif", 43)
    hit = orjson.dumps({"hits": [{"path": f"/{item}", "user_agent": CHROME, "ip": "203.0.113.9"}]}).decode()
    assert send(server, "/api/v0/count", hit).status == 202
    server.wait_until_shipped()
    found = server.get(f"/tock//{item}.json")
    assert sum(found["views"].values()) == 6
    assert found["referers"] == {"news.example": 1}


def test_a_headless_browser_that_goatcounter_reports_is_a_robot(server: Server) -> None:
    item = unique_name("item-")
    send(server, f"/count?p=/{item}&b=153", None)
    server.wait_until_shipped()
    assert server.get(f"/query?id=/{item}&by=bot&bots=1")["rows"] == [["webdriver", 1]]
