"""Time zones come from the tzdata package, whatever the system has."""

import subprocess
import sys
from pathlib import Path

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
