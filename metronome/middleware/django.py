"""Route patterns from Django, which are known only inside of it.

List ``metronome.middleware.django.RouteMiddleware`` anywhere in Django's ``MIDDLEWARE``.
"""

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http.request import HttpRequest

from metronome.middleware.paths import ROUTE_KEY, normalize_django


class RouteMiddleware:
    """Passes the matched route's pattern to the `WSGIMiddleware` or `ASGIMiddleware` around the application.

    Args:
        get_response: the next middleware or view.

    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Handle a request unchanged."""
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: object, args: object, kwargs: object) -> None:  # noqa: ARG002  # Django's signature
        """Store the route's pattern, which is known just before the view is called."""
        match = request.resolver_match
        if match is not None:
            # An ASGI request has its own scope besides the WSGI environment that Django derives from it.
            environment: Any = getattr(request, "scope", request.META)
            environment[ROUTE_KEY] = normalize_django(match.route)
