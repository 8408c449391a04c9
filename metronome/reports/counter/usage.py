"""Usage: how often one dataset was investigated and requested, month by month."""

from typing import Any, Final

from metronome.reports.counter.count import SECONDS, Deadline, count_usage
from metronome.reports.counter.tally import METRICS, Cell, Counts, Tally
from metronome.reports.parameters import Parameters
from metronome.stores.store import Store

PARAMETERS: Final = frozenset({"from", "to", "tz"})


async def usage(store: Store, item: str, asked: Parameters, seconds: float = SECONDS) -> dict[str, Any]:
    """Answer how an item was used, as the Code of Practice counts it (see `metronome.reports.counter`).

    Args:
        store: what is asked.
        item: the item's id.
        asked: the range and the zone.
        seconds: how long it may take.

    Returns:
        ``months``, newest first, without empty ones; each with the numbers of `METRICS` of people and, under
        ``machine``, of scripts and tools; both with ``countries`` where countries are known, those with the most
        investigations first, each with the same four numbers. Robots are in none.

    Raises:
        TooCostly: it takes longer.

    """
    tally = await count_usage(store, item, asked, Deadline(seconds))
    months = sorted({cell.month for cell in tally.cells}, reverse=True)
    return {"months": {month: _month(tally, item, month) for month in months}}


def _month(tally: Tally, item: str, month: str) -> dict[str, Any]:
    people, machines = (
        _shown(tally.cells.get(Cell(item, month, is_machine), Counts())) for is_machine in (False, True)
    )
    return {**people, "machine": machines}


def _shown(counts: Counts) -> dict[str, Any]:
    by_most = sorted(counts.countries.items(), key=lambda one: (-one[1][0], one[0]))
    countries = {country: _named(numbers) for country, numbers in by_most}
    return {**_named(counts.numbers), **({"countries": countries} if countries else {})}


def _named(numbers: list[int]) -> dict[str, int]:
    return dict(zip(METRICS, numbers, strict=True))
