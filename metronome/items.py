"""Items: find the item of a request's path, and whether the request is a view or a download of it.

The operator's pattern defines what an item is. Without a pattern, every path is an item.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

from metronome.errors import ConfigurationError
from metronome.fields import NAME_MAX_BYTES, decode_percent

PATTERN_SETTING: Final = "METRONOME_ITEM_PATTERN"
EXCLUDE_SETTING: Final = "METRONOME_EXCLUDE_PATTERN"

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
_STATIC_EXTENSIONS: Final = frozenset(
    {
        *("css", "js", "mjs", "map", "wasm", "webmanifest"),
        *("png", "jpg", "jpeg", "gif", "svg", "ico", "cur", "webp", "avif", "bmp"),
        *("woff", "woff2", "ttf", "otf", "eot"),
    }
)
_STATIC_NAME_PATTERN: Final = re.compile(
    r"(?:robots|humans|ads|app-ads|security)\.txt|sitemap[\w.-]*\.(?:xml|xml\.gz|txt)|browserconfig\.xml|favicon\.\w+"
    r"|apple-touch-icon[\w-]*\.png",
    re.ASCII,
)
"""The parts of pages, and what crawlers and browsers ask for by themselves."""
_VIEWED_STATUSES = frozenset({200, 206, 304})
"""Statuses with which the visitor sees the item: in full, in part, or from the browser's cache."""
_REDIRECT_STATUSES = frozenset({302, 303, 307})
"""Statuses that send the visitor to the file, such as in a store of objects."""
_MIN_ERROR_STATUS = 400
_CACHED_PATHS = 8192


class ItemMatch(NamedTuple):
    """What a path says about an item.

    Attributes:
        id: the item, or None if the path has none.
        format: of the file that the path is for, in lower case, if it is a download; otherwise None.
        is_counted: whether requests for it can be views or downloads.

    """

    id: str | None
    format: str | None
    is_counted: bool = True


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
        exclude: is searched in the path, too: a request that it matches is not counted.
        match_url: whether both are searched in host, path and query instead: ``data.example.org/d/rivers?a=1``.
        count_static: whether, without *regex*, files that are parts of pages count, such as images and style sheets.
        count_redirects: whether a redirect to a download counts as one.

    """

    def __init__(
        self,
        regex: re.Pattern[str] | None = None,
        *,
        exclude: re.Pattern[str] | None = None,
        match_url: bool = False,
        count_static: bool = False,
        count_redirects: bool = False,
    ) -> None:
        self.regex = regex
        self.match_url = match_url
        self._exclude = exclude
        self._count_static = count_static
        self._count_redirects = count_redirects
        self.match: Callable[[str], ItemMatch] = lru_cache(_CACHED_PATHS)(self._match)
        """Return the item of a target: a path, percent-encoded and without a query (see `target`)."""

    def target(self, url: str, host: str = "") -> str:
        """Return what the pattern is searched in.

        Args:
            url: of a page, or the target of a request.
            host: of the request, if *url* has none.

        Returns:
            The path; with ``match_url`` host, path and query, without a port or a fragment.

        """
        if not self.match_url:
            return request_path(url)
        path = request_path(url)
        if not path:
            return ""
        if not url.startswith("/"):
            host = _PORT_PATTERN.sub("", url.partition("://")[2].partition("/")[0].partition("?")[0])
        query = url.partition("?")[2].partition("#")[0]
        return f"{host.lower()}{path}?{query}" if query else f"{host.lower()}{path}"

    def classify(self, method: str | None, status: int | None, target: str) -> HitClassification:
        """Return what a request counts as.

        Args:
            method: None if the log does not have it.
            status: None if the log does not have it.
            target: the path, percent-encoded and without the query (see `target`).

        Returns:
            A view or a download only for a successful GET of an item; otherwise an error or a request, which have
            the ``id`` of their item, too.

        """
        match = self.match(target)
        event = event_of_request(method, status, match)
        if self._count_redirects and status in _REDIRECT_STATUSES and method == "GET" and match.format:
            event = "download" if match.is_counted else event
        return HitClassification(event, match.id, match.format if event == "download" else None)

    def _match(self, target: str) -> ItemMatch:
        if self._exclude is not None and self._exclude.search(target) is not None:
            return self._find(target)._replace(is_counted=False)
        return self._find(target)

    def _find(self, target: str) -> ItemMatch:
        if self.regex is None:
            path = target.partition("?")[0] if self.match_url else target
            found = _build_match(path, _download_extension(path))
            return found if self._count_static or not _is_static(path) else found._replace(is_counted=False)
        match = self.regex.search(target)
        if match is None:
            return _NO_MATCH
        return _build_match(match["id"], match["format"] if "format" in self.regex.groupindex else None)


def event_of_request(method: str | None, status: int | None, match: ItemMatch) -> str:
    """Return the event of a request: ``view``, ``download``, ``error`` or ``request``."""
    if match.id is not None and match.is_counted and method == "GET" and status in _VIEWED_STATUSES:
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


def compile_item_pattern(
    pattern: str | None,
    *,
    exclude: str | None = None,
    match_url: bool = False,
    count_static: bool = False,
    count_redirects: bool = False,
) -> ItemPattern:
    """Compile the operator's settings (see `ItemPattern`).

    Args:
        pattern: a regular expression; None or empty for no pattern.
        exclude: a regular expression; None or empty for none.
        match_url: whether both are searched in host, path and query.
        count_static: whether parts of pages count.
        count_redirects: whether redirects to downloads count.

    Raises:
        ConfigurationError: one is not a valid regular expression, or *pattern* lacks the group ``id``.

    """
    compiled = _compile_regex(PATTERN_SETTING, pattern)
    if compiled is not None and "id" not in compiled.groupindex:
        raise ConfigurationError(f"{PATTERN_SETTING} needs a group named id, as in ^/datasets/(?P<id>[^/]+)")
    return ItemPattern(
        compiled,
        exclude=_compile_regex(EXCLUDE_SETTING, exclude),
        match_url=match_url,
        count_static=count_static,
        count_redirects=count_redirects,
    )


def _compile_regex(setting: str, pattern: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern) if pattern else None
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigurationError(f"{setting} is not a valid regular expression: {error}") from None


def _is_static(path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    return name.rpartition(".")[2] in _STATIC_EXTENSIONS or _STATIC_NAME_PATTERN.fullmatch(name) is not None


_PORT_PATTERN = re.compile(r":\d++\Z", re.ASCII)


def _build_match(encoded_id: str | None, file_format: str | None) -> ItemMatch:
    item = ""
    if encoded_id:
        item = decode_percent(encoded_id)
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
