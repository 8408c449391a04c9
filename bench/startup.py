"""The CPU time of a command that does nothing but start."""

import os
import statistics
import subprocess
import sys
from typing import Final

from bench.harness import BenchmarkRow, sized

ROUNDS: Final = sized(11, 3)


def measure() -> list[BenchmarkRow]:
    """Run ``metronome --help`` and compare its CPU time with that of a Python that does nothing."""
    python = _cpu_seconds(sys.executable, "-c", "pass")
    seconds = _cpu_seconds(sys.executable, "-c", "from metronome.cli import main; main()", "--help")
    return [
        BenchmarkRow(
            "`metronome --help`, CPU time",
            f"{seconds:.2f} s",
            f"{python:.2f} s (`python -c pass`)",
            f"{seconds / python:.1f}",
            "≤ 0.3 s",
        )
    ]


def _cpu_seconds(*command: str) -> float:
    durations = []
    for _ in range(ROUNDS):
        before = os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        durations.append(after.children_user - before.children_user + after.children_system - before.children_system)
    return statistics.median(durations)
