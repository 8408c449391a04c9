"""What became of each document of a request: how they are read, and how that is answered.

Answers are put together of ready-made parts: most documents are taken, and of those one answer is like another.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from metronome.dialects.bulk.actions import AFTER_ID, CREATE, Action, Step
from metronome.dialects.bulk.documents import read_sources
from metronome.dialects.bulk.errors import BUSY, CONFLICT, busy_cause, conflict_cause, item_cause
from metronome.dialects.bulk.known import Known, Name
from metronome.dialects.bulk.shown import Shown
from metronome.dialects.dialect import Outcome, Reading
from metronome.dialects.site import Site

_AFTER_ID: Final = AFTER_ID.decode()
_REFUSED: Final = 400
_TWIN: Final = "another document of this _id in the same request was refused: send this one again"


class Failure:
    """Why a document was not taken."""

    __slots__ = ("cause", "status")

    def __init__(self, status: int, cause: Mapping[str, str]) -> None:
        self.status = status
        self.cause = cause


class Items:
    """The documents of one request.

    Args:
        steps: the actions, each with its document.
        known: which documents are on disk already.

    Attributes:
        noops: positions of documents that ``index`` would change, which nothing does; known in full once it is settled.

    """

    def __init__(self, steps: list[Step], known: Known) -> None:
        self.steps = steps
        self.identities: list[str] = []
        self._known = known
        self._first: dict[Name, int] = {}
        self._twins: dict[int, int] = {}
        self._conflicts: set[int] = set()
        self.noops: set[int] = set()
        self._find_known()
        self._left_out = self._conflicts | self.noops | self._twins.keys()

    def _find_known(self) -> None:
        """Find what is there already: ``create`` may not make it again, and ``index`` changes nothing of it."""
        for position, (action, _) in enumerate(self.steps):
            if action.id is None or action.wrong:
                continue
            name = (action.into, action.id)
            earlier = self._first.setdefault(name, position)
            if name in self._known:
                (self._conflicts if action.operation == CREATE else self.noops).add(position)
            elif earlier != position:
                self._twins[position] = earlier

    def readings(self, site: Site, identities: Iterator[str]) -> Iterator[Reading]:
        """Read the documents one by one, but those that are known."""
        if not self._left_out:
            return read_sources(self.steps, site, identities, self.identities)
        return self._but_those(site, identities)

    def _but_those(self, site: Site, identities: Iterator[str]) -> Iterator[Reading]:
        for position, step in enumerate(self.steps):
            if position in self._left_out:
                self.identities.append(step[0].id or "")
            else:
                yield from read_sources((step,), site, identities, self.identities)

    def settle(self, outcome: Outcome) -> dict[int, Failure]:
        """Note what is on disk now, and return why the other documents are not, by their position."""
        failures = self._failures(outcome)
        for name, position in self._first.items():
            if position not in failures:
                self._known.add(name)
        return failures

    def _failures(self, outcome: Outcome) -> dict[int, Failure]:
        failures: dict[int, Failure] = {}
        if outcome.rejected:
            read = [position for position in range(len(self.steps)) if position not in self._left_out]
            for index, error in outcome.rejected.items():
                position = read[index]
                failures[position] = Failure(_REFUSED, item_cause(error, self.steps[position][0].wrong))
        for position in self._conflicts:
            failures[position] = Failure(CONFLICT, conflict_cause(self.identities[position]))
        for position, earlier in self._twins.items():
            # Only where the first one is on disk is the second one there already.
            if earlier in failures and failures[earlier].status != CONFLICT:
                failures[position] = Failure(BUSY, busy_cause(_TWIN))
            elif self.steps[position][0].operation == CREATE:
                failures[position] = Failure(CONFLICT, conflict_cause(self.identities[position]))
            else:
                self.noops.add(position)
        return failures


def answer(items: Items, failures: Mapping[int, Failure], shown: Shown) -> bytes:
    """Put together the answer to a bulk request."""
    heads = [b'"took":0'] if "took" in shown.top else []
    if "errors" in shown.top:
        heads.append(b'"errors":true' if failures else b'"errors":false')
    if shown.fields is None and not failures and not items.noops and _are_alike(items):
        before = items.steps[0][0].before_id.decode()
        text = f'"{_AFTER_ID},{before}"'.join(items.identities)
        heads.append(f'"items":[{before}"{text}"{_AFTER_ID}]'.encode())
        return b"{%b}" % b",".join(heads)
    parts = _taken(items, shown.fields)
    for position in items.noops:
        action, identity = items.steps[position][0], items.identities[position]
        found = unchanged(action, identity)
        parts[position] = _part(action, found if shown.fields is None else _only(found, shown.fields))
    for position, failure in failures.items():
        action, identity = items.steps[position][0], items.identities[position]
        parts[position] = _failed(action, identity, failure, shown.fields)
    if shown.fields is not None:
        parts = [part for part in parts if part]
    if parts:
        heads.append(b'"items":[%b]' % b",".join(parts))
    return b"{%b}" % b",".join(heads)


def _are_alike(items: Items) -> bool:
    """Tell whether all documents came by one and the same action, and have names that are written as they are."""
    action, names = items.steps[0][0], "".join(items.identities)
    plain = names.isascii() and names.isprintable() and '"' not in names and "\\" not in names
    return plain and all(other is action for other, _ in items.steps)


def _taken(items: Items, fields: frozenset[str] | None) -> list[bytes]:
    """Answer each document as one that was taken."""
    if fields is None:
        dumps = orjson.dumps
        return [
            b"%b%b%b" % (action.before_id, dumps(identity), AFTER_ID)
            for (action, _), identity in zip(items.steps, items.identities, strict=True)
        ]
    if fields <= {"status", "error"}:
        part = b'{"%b":{"status":201}}' if "status" in fields else b""
        ready = {action.operation: part for action, _ in items.steps}
        ready = {name: part % name.encode() if part else b"" for name, part in ready.items()}
        return [ready[action.operation] for action, _ in items.steps]
    return [
        _part(action, _only(_result(action, identity), fields))
        for (action, _), identity in zip(items.steps, items.identities, strict=True)
    ]


def _result(action: Action, identity: str) -> dict[str, Any]:
    whole: dict[str, Any] = orjson.loads(action.before_id + orjson.dumps(identity) + AFTER_ID)
    result: dict[str, Any] = whole[action.operation]
    return result


def _failed(action: Action, identity: str, failure: Failure, fields: frozenset[str] | None) -> bytes:
    found = {"_index": action.into, "_id": identity or None, "status": failure.status, "error": failure.cause}
    return _part(action, found if fields is None else _only(found, fields))


def _only(found: Mapping[str, Any], fields: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name in fields}


def _part(action: Action, found: Mapping[str, Any]) -> bytes:
    return orjson.dumps({action.operation: found}) if found else b""


def created(action: Action, identity: str) -> dict[str, Any]:
    """Describe a single document that was taken."""
    return single(_result(action, identity))


def single(found: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a document that stands alone, as it is described among others; some clients need a sequence number."""
    return {**{name: value for name, value in found.items() if name != "status"}, "_seq_no": 0, "_primary_term": 1}


def unchanged(action: Action, identity: str) -> dict[str, Any]:
    """Describe a document that is there already, and is what it was."""
    return {**_result(action, identity), "result": "noop", "status": 200}
