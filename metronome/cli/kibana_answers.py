"""What Kibana's answers mean: whether it is a Kibana, and whether it has taken what it was given.

Formats: Kibana's status API (``GET /api/status``) and saved objects import API, as of Kibana 8.19.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import orjson

from metronome.errors import KibanaDenied, KibanaRefused, Misconfigured

OLDEST: Final = (8, 15)
"""The first Kibana that knows the form of dashboards that these have."""

_DENIED: Final = frozenset({401, 403})
_VERSION: Final = re.compile(r"(\d+)\.(\d+)\.\S+")
_SHOWN: Final = 5
_SHOWN_CHARACTERS: Final = 300


class Answer(NamedTuple):
    """What Kibana answered."""

    status: int
    body: bytes

    def read(self) -> dict[str, Any]:
        """Return its JSON, or nothing where it is none."""
        try:
            return _object(orjson.loads(self.body))
        except ValueError:
            return {}

    def reason(self) -> str:
        """Tell it in a few words."""
        known = HTTPStatus(self.status).phrase if self.status in {*HTTPStatus} else ""
        said = self.read().get("message")
        return f"{self.status} {str(said)[:_SHOWN_CHARACTERS] if said else known}".strip()


def check_denied(shown: str, answer: Answer) -> None:
    """Raise `KibanaDenied` if an answer says that this is not allowed.

    Args:
        shown: the Kibana's address, as messages show it.
        answer: what it answered.

    """
    if answer.status in _DENIED:
        raise KibanaDenied(f"{shown} does not allow this: {answer.reason()}")


def checked_version(shown: str, answer: Answer) -> str:
    """Return a Kibana's version, from its status; nothing where it tells that only to those it knows.

    Args:
        shown: the Kibana's address, as messages show it.
        answer: to ``GET /api/status``.

    Raises:
        KibanaDenied: this is not allowed.
        KibanaRefused: it is too old.
        Misconfigured: it is no Kibana.

    """
    check_denied(shown, answer)
    body = answer.read()
    if answer.status != HTTPStatus.OK or "overall" not in _object(body.get("status")):
        said = "something else" if answer.status == HTTPStatus.OK else answer.reason()
        raise Misconfigured(
            f"{shown} is no Kibana: GET /api/status answers {said}; name its address, as http://host:5601"
        )
    version = str(_object(body.get("version")).get("number", ""))
    match = _VERSION.fullmatch(version)
    if match is not None and (int(match[1]), int(match[2])) < OLDEST:
        raise KibanaRefused(f"{shown} is Kibana {version}, and these dashboards need {OLDEST[0]}.{OLDEST[1]} or newer")
    return version


def checked_import(shown: str, answer: Answer, count: int) -> int:
    """Return how many objects were imported: all of them.

    Args:
        shown: the Kibana's address, as messages show it.
        answer: to the import. A 200 does not say that anything was imported.
        count: how many there were to be imported.

    Raises:
        KibanaDenied: this is not allowed.
        KibanaRefused: not all were; the message names the first of them, and why.

    """
    check_denied(shown, answer)
    body = answer.read()
    if answer.status != HTTPStatus.OK or "success" not in body:
        raise KibanaRefused(f"{shown} does not import the dashboards: {answer.reason()}")
    taken = body.get("successCount", 0)
    if body["success"] is True and taken == count:
        return count
    errors = _objects(body.get("errors"))
    more = [f"and {len(errors) - _SHOWN} more"] if len(errors) > _SHOWN else []
    reasons = "; ".join([*map(_told, errors[:_SHOWN]), *more]) or "it does not say why"
    raise KibanaRefused(f"{shown} took {taken} of {count} objects: {reasons}")


def _told(error: Mapping[str, Any]) -> str:
    """Tell why an object was not imported."""
    title = _object(error.get("meta")).get("title") or error.get("title")
    name = f"{error.get('type')} {error.get('id')}{f' ({title})' if title else ''}"
    why = _object(error.get("error"))
    match why.get("type"):
        case "conflict":
            reason = "is there already, and may not be replaced without --overwrite"
        case "ambiguous_conflict":
            reason = "could take the place of several that are there already: delete all but one"
        case "missing_references":
            needed = [f"{one.get('type')} {one.get('id')}" for one in _objects(why.get("references"))]
            reason = f"needs {', '.join(needed)}"
        case "unsupported_type":
            reason = "is of a type that this Kibana does not have"
        case kind:
            reason = str(why.get("message") or kind or "it does not say why")
    return f"{name}: {reason}"[:_SHOWN_CHARACTERS]


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [_object(one) for one in value] if isinstance(value, list) else []
