"""The event loop that server processes share."""

import subprocess
import sys
from typing import Final

import pytest

SECONDS: Final = 30

COLLECT: Final = """
import asyncio
import gc
import weakref

from metronome.server import processes


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


processes._COLLECTION_SECONDS = 0.1
processes.run_process(main)
"""


@pytest.mark.slow
def test_frees_cycles_of_old_objects_at_intervals() -> None:
    done = subprocess.run([sys.executable, "-c", COLLECT], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stdout) == (0, "freed\n"), done.stderr
