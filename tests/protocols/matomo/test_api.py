"""Calls of Matomo's API by its log importer."""

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


def call_result(request: Request) -> Any:
    reply = api.reply(request, api.parse(request), IngestResult(0, {}))
    assert (reply.status, reply.content_type) == (200, "application/json")
    return orjson.loads(reply.body)


def test_the_url_of_any_site_is_this_server() -> None:
    site = call_result(call("SitesManager.getSiteFromId", idSite="7"))
    assert (site["idsite"], site["main_url"]) == (7, "http://stats.example:8080")


def test_the_url_is_one_of_the_operators_hosts_if_there_are_any() -> None:
    request = call("SitesManager.getSiteFromId", idSite="7")
    hosts = IngestConfig(own_hosts=frozenset({"data.example.org", "example.org", "example.net"}))
    assert call_result(request._replace(config=hosts))["main_url"] == "https://example.net"


@pytest.mark.parametrize("host", ["", "a b", "x/y", "ü.example", "a:b:c"])
def test_an_invalid_host_header_is_not_repeated(host: str) -> None:
    request = call("SitesManager.getSiteFromId", idSite="1")._replace(headers={"Host": host})
    assert call_result(request)["main_url"] == "http://localhost"


def test_a_query_is_equivalent_to_a_form() -> None:
    request = call("SitesManager.getSiteFromId", idSite="1")
    query_request = request._replace(body=b"", query=request.body.decode(), method="GET")
    assert call_result(query_request) == call_result(request)
    assert api.extract_key(query_request) == api.extract_key(request) == TOKEN


def test_without_a_site_the_importer_gets_the_only_one() -> None:
    assert call_result(call("SitesManager.getSitesIdFromSiteUrl", url="www.example.org")) == [{"idsite": 1}]
    assert call_result(call("SitesManager.getAllSites"))["1"]["main_url"] == "http://stats.example:8080"


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
def test_unsupported_calls_get_an_error_in_matomos_format(
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
def test_rejects_an_importer_without_the_scope_import(given: str, wrong: type[MetronomeError], status: int) -> None:
    request = call("SitesManager.getSiteFromId", idSite="1", token_auth=given)._replace(is_trusted=False)
    with pytest.raises(wrong, match="scope import") as found:
        api.parse(request)
    refused = api.reply_error(request, found.value)
    assert (refused.status, refused.content_type) == (status, "application/json")
    assert orjson.loads(refused.body) == {"result": "error", "message": describe_to_client(found.value)}


@pytest.mark.parametrize("body", [b"", b"module=CoreHome", b'{"module":', b'{"module":["API"]}', b"\xff=\xff"])
def test_other_requests_get_404(body: bytes) -> None:
    request = Request(body, "", 10, is_trusted=True)
    with pytest.raises((NotFound, Malformed)):
        api.parse(request)
    assert api.reply_error(request, Unauthorized("x")).content_type == "application/problem+json"
