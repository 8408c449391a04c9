"""A catalogue of datasets with FastAPI, whose views and downloads Metronome counts."""

import csv
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from io import StringIO
from typing import Annotated, Any, Final

from fastapi import FastAPI, HTTPException, Query, Response

from metronome.middleware import ClientConfig, Reporter, describe_request, events
from metronome.middleware.asgi import ASGIMiddleware

METRONOME: Final = os.environ.get("METRONOME_URL", "http://localhost:8080")
DATASETS: Final[dict[str, list[dict[str, Any]]]] = {
    "rivers": [{"name": "Aare", "km": 288}, {"name": "Reuss", "km": 164}, {"name": "Limmat", "km": 35}],
    "lakes": [{"name": "Lake Zurich", "km2": 88}, {"name": "Lake Biel", "km2": 39}],
}
TIMEOUT_SECONDS: Final = 5.0

reporter = Reporter(ClientConfig(url=METRONOME, skip=("/health",), trusted_proxies=("127.0.0.1",)))
app = FastAPI(title="Datasets")
app.add_middleware(ASGIMiddleware, reporter=reporter)


def get_rows(name: str) -> list[dict[str, Any]]:
    """Return a dataset and assign the request to it."""
    if name not in DATASETS:
        raise HTTPException(404, f"unknown dataset {name}")
    describe_request(id=name)
    return DATASETS[name]


@app.get("/health")
async def health() -> dict[str, str]:
    """Return that the service is running; not reported."""
    return {"status": "ok"}


@app.get("/datasets")
async def list_datasets() -> list[str]:
    """List the datasets; counts as a request without an item."""
    return list(DATASETS)


@app.get("/datasets/{name}.csv")
async def download_csv(name: str) -> Response:
    """Return a dataset as CSV; counts as a download."""
    rows = get_rows(name)
    describe_request(format="csv")
    text = StringIO()
    table = csv.DictWriter(text, rows[0])
    table.writeheader()
    table.writerows(rows)
    return Response(text.getvalue(), media_type="text/csv")


@app.get("/datasets/{name}")
async def view(name: str) -> dict[str, Any]:
    """Describe a dataset; counts as a view."""
    rows = get_rows(name)
    return {"name": name, "rows": len(rows), "columns": list(rows[0])}


@app.get("/search")
async def search(q: Annotated[str, Query(min_length=1)]) -> list[str]:
    """Return the datasets that contain a text, and report the search."""
    names = [name for name, rows in DATASETS.items() if q.lower() in json.dumps([name, rows]).lower()]
    reporter.track(events.site_search(q, count=len(names)))
    return names


@app.get("/datasets/{name}/usage")
def usage(name: str) -> Any:
    """Return the dataset's views and downloads from Metronome."""
    url = f"{METRONOME}/tock/{urllib.parse.quote(name, safe='')}.json"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310  # our own Metronome
            return json.load(response)
    except (OSError, ValueError):
        raise HTTPException(503, "usage is not available at the moment") from None
