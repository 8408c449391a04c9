"""Items: find the item of a request's path, and whether the request is a view or a download of it.

The operator's pattern defines what an item is. Without a pattern, every path is an item.
"""

import codecs
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from metronome.errors import ConfigurationError
from metronome.fields import NAME_MAX_BYTES

PERCENT_ERRORS: Final = "metronome.percent"
"""Bytes that are not UTF-8 become ``%HH``, as clients write them: different bytes are different items."""


def _percent_encode(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(f"%{byte:02X}" for byte in error.object[error.start : error.end]), error.end


codecs.register_error(PERCENT_ERRORS, _percent_encode)

PATTERN_SETTING: Final = "METRONOME_ITEM_PATTERN"

DOWNLOAD_FORMATS: Final = (
    *("pdf", "doc", "docx", "odt", "rtf", "ppt", "pptx", "odp", "epub", "txt"),
    *("csv", "tsv", "json", "jsonl", "ndjson", "xml", "xls", "xlsx", "ods", "parquet", "arrow", "sqlite"),
    *("geojson", "kml", "kmz", "shp", "gpkg", "gml", "gpx", "las", "laz", "tif", "tiff"),
    *("rdf", "ttl", "nt", "jsonld", "nc", "hdf5", "h5", "grib"),
    *("zip", "gz", "tar", "tar.gz", "tar.bz2", "tar.xz", "tgz", "bz2", "xz", "zst", "7z", "rar"),
    *("jar", "exe", "msi", "dmg", "deb", "rpm", "gem", "whl", "apk", "iso"),
    *("mp3", "mp4", "ogg", "wav", "flac", "webm", "mkv"),
)
"""File extensions that are downloads if there is no pattern: data, documents, software, media."""

_DOWNLOAD_FORMAT_SET = frozenset(DOWNLOAD_FORMATS)
_VIEWED_STATUSES = frozenset({200, 206, 304})
"""Statuses with which the visitor sees the item: in full, in part, or from the browser's cache."""
_MIN_ERROR_STATUS = 400
_CACHED_PATHS = 8192


class ItemMatch(NamedTuple):
    """What a path says about an item.

    Attributes:
        id: the item, or None if the path has none.
        format: of the file that the path is for, in lower case, if it is a download; otherwise None.

    """

    id: str | None
    format: str | None


class HitClassification(NamedTuple):
    """What one request counts as.

    Attributes:
        event: ``view``, ``download``, ``error`` or ``request``.
        id: the item, or None if the path has none.
        format: of a download, in lower case; otherwise None.

    """

    event: str
    id: str | None
    format: str | None


_NO_MATCH = ItemMatch(None, None)


class ItemPattern:
    """Find the item of a path, and what a request for it counts as.

    Args:
        regex: is searched in the path, and has the group ``id`` and, for downloads, ``format``.
            Without it, the whole path is the item, and its file extension decides whether it is a download.

    """

    def __init__(self, regex: re.Pattern[str] | None = None) -> None:
        self.regex = regex
        self.match: Callable[[str], ItemMatch] = lru_cache(_CACHED_PATHS)(self._match)
        """Return the item of a path, percent-encoded and without a query."""

    def classify(self, method: str | None, status: int | None, path: str) -> HitClassification:
        """Return what a request counts as.

        Args:
            method: None if the log does not have it.
            status: None if the log does not have it.
            path: percent-encoded, without the query.

        Returns:
            A view or a download only for a successful GET of an item; otherwise an error or a request, which have
            the ``id`` of their item, too.

        """
        match = self.match(path)
        event = event_of_request(method, status, match)
        return HitClassification(event, match.id, match.format if event == "download" else None)

    def _match(self, path: str) -> ItemMatch:
        if self.regex is None:
            return _build_match(path, _download_extension(path))
        match = self.regex.search(path)
        if match is None:
            return _NO_MATCH
        return _build_match(match["id"], match["format"] if "format" in self.regex.groupindex else None)


def event_of_request(method: str | None, status: int | None, match: ItemMatch) -> str:
    """Return the event of a request: ``view``, ``download``, ``error`` or ``request``."""
    if match.id is not None and method == "GET" and status in _VIEWED_STATUSES:
        return "download" if match.format else "view"
    return "error" if status is not None and status >= _MIN_ERROR_STATUS else "request"


def request_path(target: str) -> str:
    """Return the path of a request's target, percent-encoded and without the query; empty if it has no path.

    A proxy's request has a whole URL as target; ``OPTIONS *`` and ``CONNECT host:port`` have no path.
    """
    path = target.partition("?")[0]
    if path.startswith("/"):
        return path
    scheme, separator, rest = path.partition("://")
    return "/" + rest.partition("/")[2] if separator and scheme.isalpha() else ""


def url_path(url: str) -> str:
    """Return the path of a URL, percent-encoded; empty if it has neither a scheme nor a leading slash."""
    return request_path(url.partition("#")[0])


def compile_item_pattern(pattern: str | None) -> ItemPattern:
    """Compile the operator's setting.

    Args:
        pattern: a regular expression; None or empty for no pattern.

    Raises:
        ConfigurationError: it is not a valid regular expression, or lacks the group ``id``.

    """
    if not pattern:
        return ItemPattern()
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigurationError(f"{PATTERN_SETTING} is not a valid regular expression: {error}") from None
    if "id" not in compiled.groupindex:
        raise ConfigurationError(f"{PATTERN_SETTING} needs a group named id, as in ^/datasets/(?P<id>[^/]+)")
    return ItemPattern(compiled)


def _build_match(encoded_id: str | None, file_format: str | None) -> ItemMatch:
    item = ""
    if encoded_id:
        item = unquote_to_bytes(encoded_id).decode(errors=PERCENT_ERRORS) if "%" in encoded_id else encoded_id
    # A longer id would have the whole event rejected.
    if not item or len(item.encode(errors="replace")) > NAME_MAX_BYTES:
        return _NO_MATCH
    return ItemMatch(item, file_format.lower() if file_format else None)


def _download_extension(path: str) -> str | None:
    stem, dot, last = path.rpartition("/")[2].lower().rpartition(".")
    if not dot:
        return None
    double = f"{stem.rpartition('.')[2]}.{last}"
    if double in _DOWNLOAD_FORMAT_SET:
        return double
    return last if last in _DOWNLOAD_FORMAT_SET else None


def file_extension(name: str) -> str:
    """Return the extension of a file's name, in lower case; empty if it has none."""
    known = _download_extension(name)
    return known or name.rpartition("/")[2].lower().rpartition(".")[2] if "." in name else ""
