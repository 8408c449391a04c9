"""The durable queue between a reply, and the store and the archive: one writes it, several read it."""

from metronome.spool.file import FILE_NAME, Depth, appoint
from metronome.spool.reader import ARCHIVE, STORE, Outlet, Span, Taken, measure
from metronome.spool.writer import Spool

__all__ = ["ARCHIVE", "FILE_NAME", "STORE", "Depth", "Outlet", "Span", "Spool", "Taken", "appoint", "measure"]
