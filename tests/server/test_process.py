"""What every process of the service has in common."""

import subprocess
import sys
from typing import Final

SECONDS: Final = 30

COLLECT: Final = """
import asyncio
import gc
import weakref

from metronome.server import process


class Node:
    pass


async def main(stop: asyncio.Event) -> None:
    node = Node()
    node.itself = node
    freed = asyncio.Event()
    weakref.finalize(node, freed.set)
    # Promote the node to the oldest generation, as objects of long requests are.
    gc.collect(1)
    del node
    gc.collect(1)
    assert not freed.is_set()
    await asyncio.wait_for(freed.wait(), 10)
    print("freed")


process._COLLECTION_SECONDS = 0.1
process.run(main)
"""


def test_cycles_of_old_objects_are_freed_at_regular_intervals() -> None:
    done = subprocess.run([sys.executable, "-c", COLLECT], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stdout) == (0, "freed\n"), done.stderr
