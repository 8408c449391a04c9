"""A Flask application with streams and downloads."""

from collections.abc import Iterator
from io import BytesIO

from flask import Blueprint, Flask, Response, request, send_file

from metronome.middleware import describe_request
from metronome.middleware.wsgi import WSGIMiddleware
from tests.middleware.hosts.settings import reporter

REPORTER = reporter()

app = Flask(__name__)
inner = Blueprint("inner", __name__, url_prefix="/v1/regions/<region>")


@app.get("/health")
def health() -> str:
    return "well"


@app.get("/datasets/<name>")
def dataset(name: str) -> dict[str, str]:
    describe_request(id=name)
    return {"name": name}


@app.get("/datasets/<name>/file.<form>")
def file(name: str, form: str) -> Response:
    describe_request(id=name, format=form)
    return send_file(BytesIO(b"1,2\n"), mimetype="text/csv")


@app.get("/fails")
def fails() -> str:
    raise RuntimeError("the host's own")


@app.post("/echo")
def echo() -> Response:
    return Response(request.get_data(), mimetype="application/octet-stream")


@app.get("/stream")
def stream() -> Response:
    def parts() -> Iterator[bytes]:
        for number in range(100):
            yield b"%d\n" % number

    return Response(parts(), mimetype="text/plain")


@app.get("/news")
def server_sent_events() -> Response:
    return Response((f"data: {number}\n\n" for number in range(3)), mimetype="text/event-stream")


@app.post("/orders/<number>")
def order(number: str) -> str:
    REPORTER.track("order", goal="0", order=number, revenue=12.5, id="rivers")
    return ""


@inner.get("/lakes/<int:lake>")
def lake(region: str, lake: int) -> str:
    return f"{region}{lake}"


app.register_blueprint(inner)
application = WSGIMiddleware(app, REPORTER)
