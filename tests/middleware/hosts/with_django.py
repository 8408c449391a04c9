"""A Django project in one file, served over WSGI and ASGI."""

from collections.abc import Iterator

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import include, path, re_path

from metronome.middleware import describe_request
from metronome.middleware.asgi import ASGIMiddleware
from metronome.middleware.wsgi import WSGIMiddleware
from tests.middleware.hosts.settings import ENVIRONMENT, reporter

REPORTER = reporter()


def health(_: HttpRequest) -> HttpResponse:
    return HttpResponse("well")


def dataset(_: HttpRequest, name: str) -> HttpResponse:
    describe_request(id=name)
    return JsonResponse({"name": name})


def file(_: HttpRequest, name: str, form: str) -> HttpResponse:
    describe_request(id=name, format=form)
    return HttpResponse(b"1,2\n", content_type="text/csv")


def fails(_: HttpRequest) -> HttpResponse:
    raise RuntimeError("the host's own")


def echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body, content_type="application/octet-stream")


def stream(_: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[bytes]:
        for number in range(100):
            yield b"%d\n" % number

    return StreamingHttpResponse(parts(), content_type="text/plain")


def server_sent_events(_: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse((f"data: {number}\n\n" for number in range(3)), content_type="text/event-stream")


def order(_: HttpRequest, number: str) -> HttpResponse:
    REPORTER.track("order", goal="0", order=number, revenue=12.5, id="rivers")
    return HttpResponse(b"")


def lake(_: HttpRequest, region: str, lake: str) -> HttpResponse:
    return HttpResponse(f"{region}{lake}")


settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY=ENVIRONMENT,
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["metronome.middleware.django.RouteMiddleware"],
)
django.setup()

urlpatterns = [
    path("health", health),
    path("datasets/<str:name>", dataset),
    path("datasets/<str:name>/file.<str:form>", file),
    path("fails", fails),
    path("echo", echo),
    path("stream", stream),
    path("news", server_sent_events),
    path("orders/<str:number>", order),
    path("v1/regions/<str:region>/", include([re_path(r"^lakes/(?P<lake>[0-9]+)$", lake)])),
]

application = WSGIMiddleware(get_wsgi_application(), REPORTER)
asgi_application = ASGIMiddleware(get_asgi_application(), REPORTER)
