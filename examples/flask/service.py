"""A catalogue of datasets with Flask, whose views, downloads and errors Metronome counts."""

import csv
import json
import logging
import os
import urllib.error
import urllib.parse
import urllib.request
from io import StringIO
from typing import Any, Final

from flask import Flask, Response, abort, jsonify, request

from metronome.middleware import ClientConfig, Reporter, describe_request, events
from metronome.middleware.log_handler import ReportingHandler
from metronome.middleware.wsgi import WSGIMiddleware

METRONOME: Final = os.environ.get("METRONOME_URL", "http://localhost:8080")
DATASETS: Final[dict[str, list[dict[str, Any]]]] = {
    "rivers": [{"name": "Aare", "km": 288}, {"name": "Reuss", "km": 164}, {"name": "Limmat", "km": 35}],
    "lakes": [{"name": "Lake Zurich", "km2": 88}, {"name": "Lake Biel", "km2": 39}],
}
TIMEOUT_SECONDS: Final = 5.0

reporter = Reporter(ClientConfig(url=METRONOME, skip=("/health",), trusted_proxies=("127.0.0.1",)))
app = Flask(__name__)
app.wsgi_app = WSGIMiddleware(app.wsgi_app, reporter)  # type: ignore[method-assign]  # as in Flask's documentation
app.logger.addHandler(ReportingHandler(reporter, logging.WARNING))


def get_rows(name: str) -> list[dict[str, Any]]:
    """Return a dataset and assign the request to it."""
    if name not in DATASETS:
        abort(404)
    describe_request(id=name)
    return DATASETS[name]


@app.get("/health")
def health() -> Response:
    """Return that the service is running; not reported."""
    return jsonify(status="ok")


@app.get("/datasets")
def list_datasets() -> Response:
    """List the datasets; counts as a request without an item."""
    return jsonify(list(DATASETS))


@app.get("/datasets/<name>")
def view(name: str) -> Response:
    """Describe a dataset; counts as a view."""
    rows = get_rows(name)
    return jsonify(name=name, rows=len(rows), columns=list(rows[0]))


@app.get("/datasets/<name>.csv")
def download_csv(name: str) -> Response:
    """Return a dataset as CSV; counts as a download."""
    rows = get_rows(name)
    describe_request(format="csv")
    text = StringIO()
    table = csv.DictWriter(text, rows[0])
    table.writeheader()
    table.writerows(rows)
    return Response(text.getvalue(), mimetype="text/csv")


@app.post("/datasets/<name>/ratings")
def rate(name: str) -> tuple[str, int]:
    """Accept a rating of one to five stars, and report it as an event with a value."""
    get_rows(name)
    stars = request.form.get("stars", 0, int)
    if stars not in range(1, 6):
        app.logger.warning("a rating of %s stars", request.form.get("stars"))
        abort(400)
    reporter.track(events.event("dataset", "rate", name, stars), id=name)
    return "", 204


@app.get("/datasets/<name>/usage")
def usage(name: str) -> tuple[Response, int]:
    """Return the dataset's views and downloads from Metronome."""
    url = f"{METRONOME}/tock/{urllib.parse.quote(name, safe='')}.json"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310  # our own Metronome
            return jsonify(json.load(response)), 200
    except (OSError, ValueError):
        return jsonify(error="usage is not available at the moment"), 503
