"""``metronome`` with an embedded store that moves events through segments all the time, to be killed while it does."""

from metronome.cli import main
from metronome.stores.duckdb.maintenance import DEFAULT_LIMITS

for name, value in {
    "table_rows": 1000,
    "direct_rows": 100,
    "hot_rows": 200,
    "old_rows": 500,
    "merged_segments": 3,
    "filter_rows": 300,
    "rollup_rows": 100,
    "quiet_seconds": 0.2,
}.items():
    object.__setattr__(DEFAULT_LIMITS, name, value)

if __name__ == "__main__":
    main()
