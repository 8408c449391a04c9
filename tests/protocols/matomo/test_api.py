"""What Matomo's log importer asks before it starts."""

from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from metronome.errors import Forbidden, Malformed, MetronomeError, NotFound, Unauthorized, describe_to_client
from metronome.event import IngestConfig
from metronome.protocol import IngestResult, Request
from metronome.protocols.matomo import api

TOKEN = "b" * 32


def call(method: str, **parameters: str) -> Request:
    given = {"module": "API", "format": "json", "method": method, "filter_limit": "-1", "token_auth": TOKEN}
    body = urlencode({**given, **parameters}).encode()
    return Request(body, "", 10, headers={"Host": "stats.example:8080"}, is_trusted=True)


def ask(request: Request) -> Any:
    reply = api.reply(request, api.parse(request), IngestResult(0, {}))
    assert (reply.status, reply.content_type) == (200, "application/json")
    return orjson.loads(reply.body)


def test_the_address_of_any_site_is_this_service_s() -> None:
    site = ask(call("SitesManager.getSiteFromId", idSite="7"))
    assert (site["idsite"], site["main_url"]) == (7, "http://stats.example:8080")


def test_it_is_one_of_the_operator_s_hosts_where_there_are_some() -> None:
    request = call("SitesManager.getSiteFromId", idSite="7")
    hosts = IngestConfig(own_hosts=frozenset({"data.example.org", "example.org", "example.net"}))
    assert ask(request._replace(config=hosts))["main_url"] == "https://example.net"


@pytest.mark.parametrize("host", ["", "a b", "x/y", "ü.example", "a:b:c"])
def test_what_is_no_host_is_not_repeated(host: str) -> None:
    request = call("SitesManager.getSiteFromId", idSite="1")._replace(headers={"Host": host})
    assert ask(request)["main_url"] == "http://localhost"


def test_a_query_asks_as_well_as_a_form() -> None:
    request = call("SitesManager.getSiteFromId", idSite="1")
    asked = request._replace(body=b"", query=request.body.decode(), method="GET")
    assert ask(asked) == ask(request)
    assert api.extract_key(asked) == api.extract_key(request) == TOKEN


def test_without_a_site_the_importer_is_told_of_the_only_one() -> None:
    assert ask(call("SitesManager.getSitesIdFromSiteUrl", url="www.example.org")) == [{"idsite": 1}]
    assert ask(call("SitesManager.getAllSites"))["1"]["main_url"] == "http://stats.example:8080"


@pytest.mark.parametrize(
    ("method", "parameters", "sentence"),
    [
        ("SitesManager.getSiteFromId", {}, "idSite"),
        ("SitesManager.getSiteFromId", {"idSite": "0"}, "idSite"),
        ("SitesManager.getSiteFromId", {"idSite": "x"}, "idSite"),
        ("SitesManager.addSite", {"siteName": "x"}, "SitesManager.getSiteFromId"),
        ("UsersManager.createAppSpecificTokenAuth", {"userLogin": "x"}, "metronome keys create"),
    ],
)
def test_what_cannot_be_answered_is_an_error_in_matomos_way(
    method: str, parameters: dict[str, str], sentence: str
) -> None:
    request = call(method, **parameters)
    with pytest.raises(Malformed, match=sentence) as found:
        api.parse(request)
    said = orjson.loads(api.reply_error(request, found.value).body)
    assert said["result"] == "error"
    assert sentence in said["message"]


@pytest.mark.parametrize(
    ("given", "wrong", "status"), [("", Unauthorized, 401), (TOKEN, Forbidden, 403)], ids=["no key", "a key for less"]
)
def test_an_importer_that_would_not_be_believed_hears_it_first(
    given: str, wrong: type[MetronomeError], status: int
) -> None:
    request = call("SitesManager.getSiteFromId", idSite="1", token_auth=given)._replace(is_trusted=False)
    with pytest.raises(wrong, match="scope import") as found:
        api.parse(request)
    refused = api.reply_error(request, found.value)
    assert (refused.status, refused.content_type) == (status, "application/json")
    assert orjson.loads(refused.body) == {"result": "error", "message": describe_to_client(found.value)}


@pytest.mark.parametrize("body", [b"", b"module=CoreHome", b'{"module":', b'{"module":["API"]}', b"\xff=\xff"])
def test_what_is_no_call_finds_nothing(body: bytes) -> None:
    request = Request(body, "", 10, is_trusted=True)
    with pytest.raises((NotFound, Malformed)):
        api.parse(request)
    assert api.reply_error(request, Unauthorized("x")).content_type == "application/problem+json"
