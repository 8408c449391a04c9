"""Patterns of routes, in the one form in which they are reported: ``/users/:id``.

Each framework writes them in its own: ``/users/{id:int}`` (Starlette, FastAPI, aiohttp), ``/users/<int:id>`` (Flask,
Django), ``^users/(?P<id>[0-9]+)/$`` (Django's regular expressions).

Which requests are not reported.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from metronome.middleware.reporter import Reporter

_BRACE_PATTERN = re.compile(r"\{([^{}:]+)(?::(?:[^{}]|\{[^{}]*\})*)?\}")
_ANGLE_PATTERN = re.compile(r"<(?:[^<>:]*:)?([^<>]+)>")
_NAMED_GROUP_PATTERN = re.compile(r"\(\?P<(\w+)>")
_ESCAPE_PATTERN = re.compile(r"\\(.)")
_CACHE_SIZE: Final = 4096
ROUTE_KEY: Final = "metronome.route"
"""Where, in an ASGI scope or a WSGI environment, an application may say itself what the route is, as with braces."""
WILDCARD: Final = "*"
"""Stands for what a pattern does not name."""


@lru_cache(_CACHE_SIZE)
def normalize_braces(pattern: str) -> str:
    """Read a pattern of Starlette, FastAPI or aiohttp."""
    return _with_leading_slash(_BRACE_PATTERN.sub(r":\1", pattern))


@lru_cache(_CACHE_SIZE)
def normalize_angles(pattern: str) -> str:
    """Read a pattern of Flask, or of Django's ``path()``."""
    return _with_leading_slash(_ANGLE_PATTERN.sub(r":\1", pattern))


@lru_cache(_CACHE_SIZE)
def normalize_django(pattern: str) -> str:
    """Read a ``resolver_match.route`` of Django's: parts of ``path()`` and of ``re_path()``, one after the other."""
    return (
        _with_leading_slash(_replace_groups(pattern)) if "(" in pattern or "^" in pattern else normalize_angles(pattern)
    )


def replace_values_with_names(path: str, values: Mapping[str, Any]) -> str | None:
    """Put names in the place of values in a path, where nothing else tells its pattern.

    Args:
        path: as it came.
        values: what was found in it, by their names.

    Returns:
        The pattern; or None if a value is not a whole segment, or some segments, of the path.

    """
    named = f"{path}/"
    for name, value in reversed(tuple(values.items())):
        # The last place: it is what comes first in a path that is fixed.
        before, found, after = named.rpartition(f"/{value}/")
        if not found:
            return None
        named = f"{before}/:{name}/{after}"
    return named[:-1]


def _replace_groups(pattern: str) -> str:
    """Put names in the place of a regular expression's groups, and take away what anchors and repeats."""
    text, at = "", 0
    while at < len(pattern):
        letter = pattern[at]
        if letter == "(":
            end = _end_of_group(pattern, at)
            name = _NAMED_GROUP_PATTERN.match(pattern, at)
            text += f":{name[1]}" if name else WILDCARD
            at = end
        else:
            text += pattern[at : at + 2] if letter == "\\" else letter
            at += 2 if letter == "\\" else 1
    text = re.sub(r"\\[AZbBz]|(?<!\\)[\^$?+]", "", text)
    return _ANGLE_PATTERN.sub(r":\1", _ESCAPE_PATTERN.sub(r"\1", text))


def _end_of_group(pattern: str, at: int) -> int:
    depth = 0
    while at < len(pattern):
        letter = pattern[at]
        depth += (letter == "(") - (letter == ")")
        at += 2 if letter == "\\" else 1
        if depth == 0:
            break
    return at


def _with_leading_slash(pattern: str) -> str:
    return pattern if pattern.startswith("/") else f"/{pattern}"


class PathFilter:
    """Says of a request whether it is left out.

    Args:
        reporter: whose configuration names the paths, and what else decides.

    """

    def __init__(self, reporter: Reporter) -> None:
        config = reporter.config
        self._count_error = reporter.count_error
        self._paths = frozenset(config.skip)
        self._prefixes = tuple(path if path.endswith("/") else f"{path}/" for path in config.skip)
        self._skip_if = config.skip_if

    def __call__(self, method: str, path: str) -> bool:
        """Tell whether a request of this method and path is not reported."""
        if self._prefixes and (path in self._paths or path.startswith(self._prefixes)):
            return True
        if self._skip_if is None:
            return False
        try:
            return bool(self._skip_if(method, path))
        except Exception as error:  # noqa: BLE001  # a request is not to fail because of a report
            self._count_error(error)
            return False
