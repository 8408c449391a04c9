"""The protocol of true-micro-analytics: each GET of a path counts as a view of it, and others ask for the counts.

The item is the path behind the protocol's prefix, percent-decoded and with its first slash, as it came: ``/a`` and
``/a/`` are two items. A query is no part of it; it is kept in ``url``.
"""

import re
from enum import Enum
from typing import Final
from urllib.parse import parse_qsl, unquote

from metronome.errors import MetronomeError
from metronome.event import Event
from metronome.protocol import IngestResult, ParsedRequest, Reply, Request, bearer_token, problem_reply

ROOT_PATH: Final = "/"
_LONE_SURROGATES: Final = re.compile("[\ud800-\udfff]")
"""Surrogates alone, which stand for bytes that are no UTF-8."""
_FAVICON_PATH: Final = "/favicon.ico"
_FIELD_HEADERS: Final = {"agent": "User-Agent", "referer": "Referer"}


class ReportKind(Enum):
    """What a request asks for that is not to be counted."""

    COUNT = "count"
    """How often a path was viewed."""
    VIEWS = "views"
    """When a path was viewed."""
    PATHS = "paths"
    """When each path was viewed."""


def extract_key(request: Request) -> str:
    """Return the key of the request (see `Dialect.key`)."""
    return bearer_token(request.headers)


def parse(request: Request) -> ParsedRequest:
    """Read the view of a request; browsers ask for the icon by themselves, which is none (see `Dialect.read`)."""
    if request.path == _FAVICON_PATH:
        return ParsedRequest([], is_batch=False)
    url = f"{request.path}?{request.query}" if request.query else request.path
    told = {name: request.headers.get(header) for name, header in _FIELD_HEADERS.items()} | {
        "clientip": request.client_ip
    }
    fields = {"event": "view", "id": item_id_from_path(request.path), "url": url}
    return ParsedRequest([Event({**fields, **{name: value for name, value in told.items() if value}})], is_batch=False)


def reply(_: Request, __: ParsedRequest, result: IngestResult) -> Reply:
    """Answer 204 (see `Dialect.reply`)."""
    for error in result.rejected.values():
        raise error
    return Reply(204, headers={"Cache-Control": "no-store"})


def reply_error(_: Request, error: MetronomeError) -> Reply:
    """Describe the error; the protocol has no form for that (see `Dialect.refuse`)."""
    return problem_reply(error)


def method_not_allowed_reply() -> Reply:
    """Answer what is no GET."""
    return Reply(405, b"Method not supported", "text/plain", {"Allow": "GET"})


def report_kind(path: str, query: str) -> ReportKind | None:
    """Tell what a request asks for, or None where it is to be counted.

    Args:
        path: what follows the protocol's prefix, percent-encoded.
        query: as it came.

    """
    if path in {"", ROOT_PATH}:
        return ReportKind.PATHS
    if path == _FAVICON_PATH:
        return None
    names = {name for name, _ in parse_qsl(query, keep_blank_values=True)}
    if "count" in names:
        return ReportKind.COUNT
    return ReportKind.VIEWS if "views" in names else None


def item_id_from_path(path: str) -> str:
    """Return the item that a path is of.

    Args:
        path: what follows the protocol's prefix, percent-encoded.

    """
    return _LONE_SURROGATES.sub("\ufffd", unquote(path))
