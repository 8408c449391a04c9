"""Tells the middleware around a Django application which route a request took: only Django itself knows.

Stands in Django's ``MIDDLEWARE`` as ``metronome.middleware.django.RouteMiddleware``, in any place.
"""

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http.request import HttpRequest

from metronome.middleware.paths import ROUTE_KEY, normalize_django


class RouteMiddleware:
    """Leaves the route's pattern where `WSGIMiddleware` and `ASGIMiddleware` look for it.

    Args:
        get_response: handles a request.

    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Handle a request as Django does."""
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: object, args: object, kwargs: object) -> None:  # noqa: ARG002  # how Django calls it
        """Note the route, which is known just before its view is called."""
        match = request.resolver_match
        if match is not None:
            # An ASGI request has its scope beside the environment that Django makes of it.
            outside: Any = getattr(request, "scope", request.META)
            outside[ROUTE_KEY] = normalize_django(match.route)
