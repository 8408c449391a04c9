"""Tock and COUNTER agree on downloads in parts."""

import pytest

from metronome.reports.counter.tally import usage_report
from metronome.reports.parameters import ReportParameters
from metronome.reports.tock import tock_report
from tests.reports.filled import Fill
from tests.test_partial_requests import DOWNLOADS, RANGES, documents

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_tock_and_counter_agree_on_downloads_in_parts(fill: Fill) -> None:
    store = await fill(documents(RANGES))
    found = {}
    for name in DOWNLOADS:
        tock = await tock_report(store, f"/r/{name}", ReportParameters())
        usage = await usage_report(store, f"/r/{name}", ReportParameters())
        found[name] = (sum(tock["downloads"].values()), usage)
    assert {name: downloads for name, (downloads, _) in found.items()} == DOWNLOADS
    totals = {name: usage["months"]["2026-01"]["total_requests"] for name, (_, usage) in found.items()}
    assert totals == DOWNLOADS
