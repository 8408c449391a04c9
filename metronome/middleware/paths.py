"""Route patterns in one form, ``/users/:id``, and the filter of paths that are not reported.

Frameworks write patterns as ``/users/{id:int}`` (Starlette, FastAPI, aiohttp), ``/users/<int:id>`` (Flask, Django) or
``^users/(?P<id>[0-9]+)/$`` (Django's regular expressions).
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
"""The key of an ASGI scope or a WSGI environment under which an application can set its route, as ``/users/{id}``."""
WILDCARD: Final = "*"
"""Replaces the unnamed parts of a pattern."""


@lru_cache(_CACHE_SIZE)
def normalize_braces(pattern: str) -> str:
    """Normalize a pattern of Starlette, FastAPI or aiohttp."""
    return _with_leading_slash(_BRACE_PATTERN.sub(r":\1", pattern))


@lru_cache(_CACHE_SIZE)
def normalize_angles(pattern: str) -> str:
    """Normalize a pattern of Flask or of Django's ``path()``."""
    return _with_leading_slash(_ANGLE_PATTERN.sub(r":\1", pattern))


@lru_cache(_CACHE_SIZE)
def normalize_django(pattern: str) -> str:
    """Normalize Django's ``resolver_match.route``, a concatenation of patterns of ``path()`` and ``re_path()``."""
    return (
        _with_leading_slash(_replace_groups(pattern)) if "(" in pattern or "^" in pattern else normalize_angles(pattern)
    )


def replace_values_with_names(path: str, values: Mapping[str, Any]) -> str | None:
    """Derive a pattern from a path by replacing the values of its parameters with their names.

    Args:
        path: the requested path.
        values: the parameters' values by name.

    Returns:
        The pattern, or None if a value does not match whole segments of the path.

    """
    named = f"{path}/"
    for name, value in reversed(tuple(values.items())):
        # The last occurrence: the fixed segments of a path usually precede its parameters.
        before, match, after = named.rpartition(f"/{value}/")
        if not match:
            return None
        named = f"{before}/:{name}/{after}"
    return named[:-1]


def _replace_groups(pattern: str) -> str:
    """Replace the groups of a regular expression with their names, and remove anchors and quantifiers."""
    text, position = "", 0
    while position < len(pattern):
        character = pattern[position]
        if character == "(":
            end = _end_of_group(pattern, position)
            name = _NAMED_GROUP_PATTERN.match(pattern, position)
            text += f":{name[1]}" if name else WILDCARD
            position = end
        else:
            text += pattern[position : position + 2] if character == "\\" else character
            position += 2 if character == "\\" else 1
    text = re.sub(r"\\[AZbBz]|(?<!\\)[\^$?+]", "", text)
    return _ANGLE_PATTERN.sub(r":\1", _ESCAPE_PATTERN.sub(r"\1", text))


def _end_of_group(pattern: str, position: int) -> int:
    depth = 0
    while position < len(pattern):
        character = pattern[position]
        depth += (character == "(") - (character == ")")
        position += 2 if character == "\\" else 1
        if depth == 0:
            break
    return position


def _with_leading_slash(pattern: str) -> str:
    return pattern if pattern.startswith("/") else f"/{pattern}"


class PathFilter:
    """Decides which requests are not reported, by the ``skip`` and ``skip_if`` of the configuration.

    Args:
        reporter: has the configuration and counts errors of ``skip_if``.

    """

    def __init__(self, reporter: Reporter) -> None:
        config = reporter.config
        self._count_error = reporter.count_error
        self._paths = frozenset(config.skip)
        self._prefixes = tuple(path if path.endswith("/") else f"{path}/" for path in config.skip)
        self._skip_if = config.skip_if

    def __call__(self, method: str, path: str) -> bool:
        """Return whether to skip a request."""
        if self._prefixes and (path in self._paths or path.startswith(self._prefixes)):
            return True
        if self._skip_if is None:
            return False
        try:
            return bool(self._skip_if(method, path))
        except Exception as error:  # noqa: BLE001  # reporting must not break the host
            self._count_error(error)
            return False
