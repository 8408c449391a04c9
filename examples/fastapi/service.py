"""A small catalogue of datasets, with FastAPI: what is viewed and downloaded is counted by Metronome."""

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
ASKING_SECONDS: Final = 5.0

reporter = Reporter(ClientConfig(url=METRONOME, skip=("/health",), trusted_proxies=("127.0.0.1",)))
app = FastAPI(title="Datasets")
app.add_middleware(ASGIMiddleware, reporter=reporter)


def rows_of(name: str) -> list[dict[str, Any]]:
    """Return a dataset, and say that the request is for it; of one that is not there, the request is an error."""
    if name not in DATASETS:
        raise HTTPException(404, f"there is no dataset {name}")
    describe_request(id=name)
    return DATASETS[name]


@app.get("/health")
async def health() -> dict[str, str]:
    """Say that the service runs: this is not reported."""
    return {"status": "ok"}


@app.get("/datasets")
async def list_datasets() -> list[str]:
    """List the datasets: a request for none of them in particular."""
    return list(DATASETS)


@app.get("/datasets/{name}.csv")
async def download_csv(name: str) -> Response:
    """Give a dataset as CSV: a download."""
    rows = rows_of(name)
    describe_request(format="csv")
    text = StringIO()
    table = csv.DictWriter(text, rows[0])
    table.writeheader()
    table.writerows(rows)
    return Response(text.getvalue(), media_type="text/csv")


@app.get("/datasets/{name}")
async def view(name: str) -> dict[str, Any]:
    """Describe a dataset: a view."""
    rows = rows_of(name)
    return {"name": name, "rows": len(rows), "columns": list(rows[0])}


@app.get("/search")
async def search(q: Annotated[str, Query(min_length=1)]) -> list[str]:
    """Find datasets by their contents, and report what was looked for."""
    found = [name for name, rows in DATASETS.items() if q.lower() in json.dumps([name, rows]).lower()]
    reporter.track(events.site_search(q, count=len(found)))
    return found


@app.get("/datasets/{name}/usage")
def usage(name: str) -> Any:
    """Tell how a dataset is used, as Metronome does."""
    url = f"{METRONOME}/tock/{urllib.parse.quote(name, safe='')}.json"
    try:
        with urllib.request.urlopen(url, timeout=ASKING_SECONDS) as answer:  # noqa: S310  # our own Metronome
            return json.load(answer)
    except (OSError, ValueError):
        raise HTTPException(503, "usage cannot be told at the moment; it is counted all the same") from None
