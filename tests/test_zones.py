"""Time zones come from the tzdata package, whatever the system has."""

import subprocess
import sys
import zoneinfo
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import duckdb
import pytest

import metronome.times  # noqa: F401  # sets where zones come from

READ_ZONE = """
import datetime
import metronome.times
import zoneinfo

assert zoneinfo.TZPATH == (), zoneinfo.TZPATH
print(zoneinfo.ZoneInfo("Europe/Berlin").utcoffset(datetime.datetime(2026, 1, 1)))
"""


def test_zones_come_from_the_package_and_not_from_the_system(tmp_path: Path) -> None:
    (tmp_path / "Europe").mkdir()
    (tmp_path / "Europe" / "Berlin").write_bytes(b"an outdated zone")
    done = subprocess.run(
        [sys.executable, "-c", READ_ZONE],
        env={"PYTHONTZPATH": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "1:00:00\n"), done.stderr


DAYS: Final = 17
"""Between the times that are compared: no multiple of a week, so that they hit changes at any day and hour."""
OFFSETS: Final = """
SELECT list(date_diff('second', t, timezone($zone, timezone('UTC', t))) ORDER BY t)
FROM (SELECT TIMESTAMP '1970-01-01' + to_hours((24 * $days + 1) * i) AS t FROM range($count) AS _(i))
"""


def compare_zones(count: int) -> dict[str, datetime]:
    """Return the zones in which DuckDB's clocks differ, and when they first do, at *count* times since 1970."""
    moments = [datetime(1970, 1, 1, tzinfo=UTC) + at * timedelta(days=DAYS, hours=1) for at in range(count)]
    differing: dict[str, datetime] = {}
    with duckdb.connect() as database:
        for name in sorted(zoneinfo.available_timezones()):
            zone = ZoneInfo(name)
            row = database.execute(OFFSETS, {"zone": name, "days": DAYS, "count": count}).fetchone()
            assert row is not None
            for moment, offset in zip(moments, row[0], strict=True):
                if moment.astimezone(zone).utcoffset() != timedelta(seconds=offset):
                    differing.setdefault(name, moment)
    return differing


@pytest.mark.slow  # compares 800,000 times
def test_all_zones_are_those_of_the_embedded_store_for_sixty_years() -> None:
    assert compare_zones(60 * 365 // DAYS) == {}
