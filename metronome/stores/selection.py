"""Which events to forget: those of an item, of a visitor, of an import, or all before a day."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

import orjson

from metronome.errors import Malformed
from metronome.fields import NAME_MAX_BYTES, VALUE_MAX_CHARACTERS
from metronome.stores.query import Equals, Filter

_TIMESTAMP_SLICE: Final = slice(len('{"@timestamp":"'), len('{"@timestamp":"2015-01-22'))


class SelectionKind(StrEnum):
    """What the events have in common."""

    ITEM = "item"
    VISITOR = "visitor"
    IMPORT = "import"
    BEFORE = "before"


_FIELDS: Final = {SelectionKind.ITEM: "id", SelectionKind.VISITOR: "visitor", SelectionKind.IMPORT: "import"}


@dataclass(frozen=True, slots=True)
class Selection:
    """Events to forget.

    Attributes:
        kind: what they have in common.
        value: the item, the visitor, the identity of the import (see
            `metronome.protocols.access_logs.reader.log_fingerprint`), or the first UTC day that is kept.
        is_hashed: whether the value is its `digest`: a tombstone must not name whom it forgets.

    """

    kind: SelectionKind
    value: str
    is_hashed: bool = False

    @property
    def where(self) -> Filter | None:
        """The filter of the events; None for `BEFORE`."""
        return None if self.kind is SelectionKind.BEFORE else Equals(_FIELDS[self.kind], self.value)

    @property
    def before(self) -> datetime | None:
        """The start of the first day that is kept; None unless `BEFORE`."""
        if self.kind is not SelectionKind.BEFORE:
            return None
        return datetime.fromisoformat(self.value).replace(tzinfo=UTC)

    def hashed(self) -> "Selection":
        """Return the same selection without what it names; a day stays readable."""
        if self.kind is SelectionKind.BEFORE or self.is_hashed:
            return self
        return Selection(self.kind, digest(self.value), is_hashed=True)

    def drop_lines(self, body: bytes) -> tuple[bytes, int]:
        """Return documents without those that are selected, and the number of those.

        Args:
            body: documents as NDJSON.

        """
        if not body or not self._may_match(body):
            return body, 0
        matches = self._matcher()
        lines = body.splitlines(keepends=True)
        kept = [line for line in lines if not matches(line)]
        return (body, 0) if len(kept) == len(lines) else (b"".join(kept), len(lines) - len(kept))

    def matches(self, document: bytes) -> bool:
        """Return whether a document is selected."""
        return self._matcher()(document)

    def _may_match(self, body: bytes) -> bool:
        if self.kind is SelectionKind.BEFORE or self.is_hashed:
            return True
        return self._needle() in body

    def _needle(self) -> bytes:
        """Return what each selected document contains; others may contain it in ``params``."""
        return b'"%b":%b' % (_FIELDS[self.kind].encode(), orjson.dumps(self.value))

    def _matcher(self) -> Callable[[bytes], bool]:
        if self.kind is SelectionKind.BEFORE:
            day = self.value.encode()
            return lambda line: line[_TIMESTAMP_SLICE] < day
        field, value = _FIELDS[self.kind], self.value
        if self.is_hashed:
            return lambda line: isinstance(found := _read_field(line, field), str) and digest(found) == value
        needle = self._needle()
        return lambda line: needle in line and _read_field(line, field) == value


def parse_selection(fields: Mapping[str, Any]) -> Selection:
    """Return the selection in a JSON object with exactly one of the keys item, visitor, import and before.

    Raises:
        Malformed: it has not exactly one of them, or the value is invalid.

    """
    kinds = [kind for kind in SelectionKind if fields.get(kind) is not None]
    if len(kinds) != 1:
        raise Malformed("expected exactly one of item, visitor, import and before")
    (kind,) = kinds
    value = fields[kind]
    if not isinstance(value, str) or not value:
        raise Malformed(f"invalid {kind}: expected a text")
    if kind is SelectionKind.BEFORE:
        return Selection(kind, _parse_day(value))
    if len(value) > VALUE_MAX_CHARACTERS or (kind is SelectionKind.ITEM and len(value.encode()) > NAME_MAX_BYTES):
        raise Malformed(f"invalid {kind}: no event has one of over {VALUE_MAX_CHARACTERS} characters")
    return Selection(kind, value)


def stored_selection(kind: str, value: object) -> Selection:
    """Return a selection that was stored as `Selection.hashed`.

    Raises:
        ValueError: there is no such kind.

    """
    known = SelectionKind(kind)
    return Selection(known, str(value), is_hashed=known is not SelectionKind.BEFORE)


def digest(value: str) -> str:
    """Return the SHA-256 of a value, in hexadecimal."""
    return sha256(value.encode()).hexdigest()


def _parse_day(text: str) -> str:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise Malformed(f"invalid before {text[:100]!r}: expected a day such as 2015-01-22")
    return text


def _read_field(line: bytes, name: str) -> object:
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return document.get(name) if isinstance(document, dict) else None
