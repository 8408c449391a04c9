"""Write the dashboards' saved objects to ``kibana/metronome.ndjson`` and into the package; with --check, compare them.

``python -m kibana`` is part of ``make docs``.
"""

import sys
from pathlib import Path
from typing import Final

import orjson

from kibana.health import HEALTH
from kibana.lens import Dashboard
from kibana.performance import PERFORMANCE
from kibana.saved_objects import Json, build_data_view
from kibana.usage import USAGE

DASHBOARDS: Final[tuple[Dashboard, ...]] = (USAGE, PERFORMANCE, HEALTH)
ROOT: Final = Path(__file__).parents[1]
FILES: Final = ("kibana/metronome.ndjson", "metronome/cli/dashboards.ndjson")
"""One to import by hand, and one that `metronome dashboards` reads from the installed package."""


def build_saved_objects() -> list[Json]:
    """Return all saved objects: the data view, and the panels and dashboards. IDs stay the same between runs."""
    objects = [saved_object for dashboard in DASHBOARDS for saved_object in dashboard.to_saved_objects()]
    return [build_data_view(), *objects]


def encode_saved_objects() -> bytes:
    """Return all saved objects as NDJSON, with sorted keys."""
    option = orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    return b"".join(orjson.dumps(saved_object, option=option) for saved_object in build_saved_objects())


def main() -> int:
    """Write or check the files, and return the exit code."""
    content, exit_code = encode_saved_objects(), 0
    for name in FILES:
        file = ROOT / name
        if "--check" not in sys.argv[1:]:
            file.write_bytes(content)
        elif not file.exists() or file.read_bytes() != content:
            sys.stderr.write(f"{name} is out of date: run `make docs`\n")
            exit_code = 1
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
