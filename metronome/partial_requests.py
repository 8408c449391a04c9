"""Parts of files: of the requests with which a visitor gets a file in parts, one is the download.

Players and readers of PDF files request a file in parts, and an interrupted download is resumed; servers answer each
request with the status 206. The first counts. Those that follow within half an hour are stored as requests.
"""

from collections import OrderedDict
from typing import Any, Final, NamedTuple

from metronome.times import is_same_visit

PART_FIELD: Final = "part"
_PARTIAL_STATUSES: Final = frozenset({206, "206"})
_STATUSES: Final = frozenset({200, "200", *_PARTIAL_STATUSES})
_COUNTED_EVENTS: Final = frozenset({"view", "download"})


class _Opener(NamedTuple):
    """The request that counted, and when the last part followed."""

    event_id: str
    timestamp: str


class PartialRequests:
    """Remembers who got which file recently, in bounded memory.

    Only hashes are kept, and they are never stored.

    Args:
        max_files: how many files of visitors are remembered; the oldest is forgotten first.

    """

    def __init__(self, max_files: int = 50_000) -> None:
        self._max_files = max_files
        # The first key of a plain dict is found slower the more were deleted before it.
        self._openers: OrderedDict[int, _Opener] = OrderedDict()

    def is_part(self, doc: dict[str, Any], address: object) -> bool:
        """Return whether a document is about a part of a file whose download has been counted.

        The same request, sent again, has the same result.

        Args:
            doc: the document, with its event and its ``event_id``.
            address: the whole IP address of the client.

        """
        status = doc.get("status")
        if type(status) not in (int, str) or status not in _STATUSES or doc["event"] not in _COUNTED_EVENTS:
            return False
        visitor = (address if type(address) is str else None) or doc.get("visitor")
        if not visitor:
            return False
        url = doc.get("url")
        path = url.partition("?")[0] if type(url) is str else doc.get("format")
        key = hash((visitor, doc.get("agent"), doc.get("id"), path))
        event_id, timestamp = doc["event_id"], doc["@timestamp"]
        opener = self._openers.pop(key, None)
        is_part = (
            opener is not None
            and status in _PARTIAL_STATUSES
            and opener.event_id != event_id
            and is_same_visit(opener.timestamp, timestamp)
        )
        if is_part and opener is not None:
            self._openers[key] = _Opener(opener.event_id, max(opener.timestamp, timestamp))
        else:
            self._openers[key] = _Opener(event_id, timestamp)
        if len(self._openers) > self._max_files:
            self._openers.popitem(last=False)
        return is_part
