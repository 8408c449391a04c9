"""The route that an ASGI application has chosen, as Starlette and FastAPI leave it in the scope."""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from metronome.clients.hit import UNMATCHED
from metronome.clients.routes import ANYTHING, ROUTE_KEY, from_braces, with_values_named

_NAMES = re.compile(r":(\w+)")
_MAX_REMEMBERED: Final = 4096


class _Known(NamedTuple):
    """A route that was seen before; it is held, so that its number is no other's."""

    route: Any
    context: Any
    pattern: str
    names: frozenset[str]


_known: dict[tuple[int, int], _Known] = {}


def route_of(scope: Mapping[str, Any], root: str) -> str:
    """Return the pattern of the route that a request took, in the form of `metronome.clients.routes`.

    Args:
        scope: as the application has left it.
        root: the ``root_path`` that it came with: what is more by now are the mounts that it went through.

    """
    told = scope.get(ROUTE_KEY)
    if told is not None:
        return from_braces(str(told))
    mounted = scope.get("root_path", "")[len(root) :]
    route = scope.get("route")
    if not hasattr(route, "endpoint"):
        # None, or a mount in which nothing was found or looked for: as static files.
        return _without_a_route(scope, root, mounted)
    context = scope.get("fastapi", _NOTHING).get("effective_route_context")
    if context is not None and getattr(context, "original_route", None) is not route:
        context = None
    known = _known.get((id(route), id(context)))
    if known is None:
        known = _remember(route, context)
    if not mounted:
        return known.pattern
    outer = {name: value for name, value in scope.get("path_params", _NOTHING).items() if name not in known.names}
    prefix = with_values_named(mounted, outer) if outer else mounted
    return f"{prefix}{known.pattern}" if prefix is not None else UNMATCHED


_NOTHING: Final[Mapping[str, Any]] = {}


def _without_a_route(scope: Mapping[str, Any], root: str, mounted: str) -> str:
    params = scope.get("path_params", _NOTHING)
    if mounted:
        prefix = with_values_named(mounted, params)
        return f"{prefix}/{ANYTHING}" if prefix is not None else UNMATCHED
    if scope.get("route") is not None:
        return f"/{ANYTHING}"
    if scope.get("endpoint") is None or not params:
        return UNMATCHED
    # Frameworks that tell the values only.
    return with_values_named(scope["path"][len(root) :], params) or UNMATCHED


def _remember(route: Any, context: Any) -> _Known:
    """Read a route's pattern; FastAPI has that of a route in an included router in a context beside it."""
    of_context = getattr(context, "path_format", None) or getattr(
        getattr(context, "starlette_route", None), "path_format", None
    )
    pattern = from_braces(of_context or getattr(route, "path_format", None) or route.path)
    known = _Known(route, context, pattern, frozenset(_NAMES.findall(pattern)))
    if len(_known) >= _MAX_REMEMBERED:
        _known.clear()
    _known[id(route), id(context)] = known
    return known
