"""Which documents this process has taken lately, so that a second ``create`` of one is a conflict."""

from typing import Final

DocumentKey = tuple[str, str]
"""An index and an ``_id``."""

RECENT_IDS_MAX: Final = 50_000
RECENT_IDS_MAX_CHARACTERS: Final = 4_000_000


class RecentDocumentIds:
    """The names, each of an index and an ``_id``, of documents that are on disk.

    It holds only what was added, and so never says of a document that is not on disk that it is; that would lose it.
    It forgets: the older half when it is full, and everything with its process. Other workers of the same server
    have a memory of their own. Who sends a document again that was forgotten hears once more that it was created, and
    the store, which knows it by its ``_id``, keeps it once all the same.

    Args:
        max_ids: about how many names it holds.
        max_characters: how long they may be all together.

    """

    def __init__(self, max_ids: int = RECENT_IDS_MAX, max_characters: int = RECENT_IDS_MAX_CHARACTERS) -> None:
        self._half = max(max_ids // 2, 1)
        self._half_characters = max_characters // 2
        self._young: set[DocumentKey] = set()
        self._old: set[DocumentKey] = set()
        self._characters = 0

    def __contains__(self, name: DocumentKey) -> bool:
        """Tell whether the document of that name is known to be on disk."""
        return name in self._young or name in self._old

    def add(self, name: DocumentKey) -> None:
        """Note that the document of that name is on disk."""
        if len(self._young) >= self._half or self._characters > self._half_characters:
            self._old, self._young, self._characters = self._young, set(), 0
        self._young.add(name)
        self._characters += len(name[0]) + len(name[1])
