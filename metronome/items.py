"""Items: which hits of a web server are views and downloads, and of what.

An item rule looks at the path of a request. With a pattern, the operator says what an item is; without
one, every path is an item of its own.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote

from metronome.errors import ConfigurationError
from metronome.fields import NAME_MAX_BYTES

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
"""The file extensions that are downloads where no pattern says otherwise: data, documents, software, media."""

_DOWNLOAD_FORMAT_SET = frozenset(DOWNLOAD_FORMATS)
_VIEWED_STATUSES = frozenset({200, 206, 304})
"""The statuses that show the item to its visitor: in full, in part, or from the visitor's own cache."""
_MIN_ERROR_STATUS = 400
_CACHED_PATHS = 8192


class HitClassification(NamedTuple):
    """What one request counts as.

    Attributes:
        event: ``view``, ``download``, ``error`` or ``request``.
        id: the item, or None where the path is none.
        format: of a download, in lower case; else None.

    """

    event: str
    id: str | None
    format: str | None


class _ItemMatch(NamedTuple):
    id: str | None
    format: str | None


_NO_MATCH = _ItemMatch(None, None)


class ItemPattern:
    """Says of each request which item it is of and whether it was viewed or downloaded.

    Args:
        regex: is searched in the path, and has the group ``id`` and, for downloads, ``format``.
            Without it, the whole path is the item, and its file extension says what is a download.

    """

    def __init__(self, regex: re.Pattern[str] | None = None) -> None:
        self.regex = regex
        self._cached_match: Callable[[str], _ItemMatch] = lru_cache(_CACHED_PATHS)(self._match_item)

    def classify(self, method: str | None, status: int | None, path: str) -> HitClassification:
        """Say what a request counts as.

        Args:
            method: its method, or None where the log does not have it.
            status: how it ended, or None where the log does not have it.
            path: the path it asked for, percent-encoded, without the query.

        Returns:
            A view or a download only if a GET showed an item; else an error or a request, which keep
            the ``id`` of the item that they are of.

        """
        item, form = self._cached_match(path)
        if item is not None and method == "GET" and status in _VIEWED_STATUSES:
            return HitClassification("download", item, form) if form else HitClassification("view", item, None)
        return HitClassification(
            "error" if status is not None and status >= _MIN_ERROR_STATUS else "request", item, None
        )

    def _match_item(self, path: str) -> _ItemMatch:
        if self.regex is None:
            return _build_match(path, _download_extension(path))
        found = self.regex.search(path)
        if found is None:
            return _NO_MATCH
        return _build_match(found["id"], found["format"] if "format" in self.regex.groupindex else None)


def compile_item_pattern(pattern: str | None) -> ItemPattern:
    """Make the rule of an operator's setting.

    Args:
        pattern: a regular expression, or None or nothing for the rule without a pattern.

    Raises:
        ConfigurationError: it is no regular expression, or lacks the group ``id``.

    """
    if not pattern:
        return ItemPattern()
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigurationError(f"{PATTERN_SETTING} is no regular expression: {error}") from None
    if "id" not in compiled.groupindex:
        raise ConfigurationError(f"{PATTERN_SETTING} needs a group named id, as in ^/datasets/(?P<id>[^/]+)")
    return ItemPattern(compiled)


def _build_match(encoded_id: str | None, file_format: str | None) -> _ItemMatch:
    item = unquote(encoded_id) if encoded_id else ""
    # The server refuses a longer id, and with it the whole event.
    if not item or len(item.encode(errors="replace")) > NAME_MAX_BYTES:
        return _NO_MATCH
    return _ItemMatch(item, file_format.lower() if file_format else None)


def _download_extension(path: str) -> str | None:
    stem, dot, last = path.rpartition("/")[2].lower().rpartition(".")
    if not dot:
        return None
    double = f"{stem.rpartition('.')[2]}.{last}"
    if double in _DOWNLOAD_FORMAT_SET:
        return double
    return last if last in _DOWNLOAD_FORMAT_SET else None
