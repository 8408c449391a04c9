"""What programs that collect lines write around them: syslog, Docker, Compose, Kubernetes and journald."""

import re
from typing import Any, Final

import orjson

MAX_LAYERS: Final = 3
"""How many layers are removed at most, such as Docker's around a line with the prefix of syslog."""

_ISO_TIME: Final = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?: ?(?:Z|[+-]\d\d:?\d\d))?"
_BSD_TIME: Final = r"(?:\d{4} )?[A-Z][a-z]{2} [ \d]\d(?: \d{4})? \d\d:\d\d:\d\d(?:\.\d{1,9})?"
_JOURNAL_TIME: Final = r"[A-Z][a-z]{2} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,9})? [A-Z0-9+-]{1,6}"
"""What ``journalctl -o short-full`` writes."""
_TAG: Final = r"[^\s:\[\]\"]{1,128}(?:\[[^\]\s]{0,64}\])?:"
_DATA: Final = r'(?:-|(?:\[[^\s\]"]{1,64}(?: [^\s=\]"]{1,64}="(?:[^"\\]|\\.){0,512}")*\])+)(?: \ufeff?|\Z)'
_PREFIX_PATTERN: Final = re.compile(
    "|".join(
        (
            # syslog (RFC 5424): the priority may be missing.
            rf"(?:<\d{{1,3}}>)?1 (?:-|{_ISO_TIME}) \S{{1,255}} \S{{1,128}} \S{{1,128}} \S{{1,128}} {_DATA}",
            # syslog (RFC 3164, and rsyslog's form with an ISO time), and journalctl.
            rf"(?:<\d{{1,3}}>)?(?:{_BSD_TIME}|{_ISO_TIME}|{_JOURNAL_TIME}) (?:\S{{1,255}}(?<!:) )?{_TAG} ",
            # Kubernetes (CRI).
            rf"{_ISO_TIME} (?:stdout|stderr) [FP](?::\S{{1,32}})? ",
            # Compose, with or without colours.
            r"(?:\x1b\[[\d;]*m)*[\w./-]{1,128} *\| ?(?:\x1b\[[\d;]*m)*",
            # kubectl logs --prefix
            r"\[(?:pod|deployment)/[^\]\s]{1,255}\] ",
            # docker logs --timestamps
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}(?:Z|[+-]\d\d:\d\d) (?=\S)",
            r"<\d{1,3}>",
            rf"{_TAG} ",
        )
    ),
    re.ASCII,
)
_INNER_LINE_FIELDS: Final = ("log", "MESSAGE", "message", "msg", "line", "textPayload", "short_message")
"""Fields with the line in JSON objects of Docker, journald, Filebeat, Loki, Google Cloud and GELF."""


def strip_layer(line: str) -> str | None:
    """Return a line without one layer around it; None if there is none."""
    if line.startswith("{"):
        return _inner_line(line)
    match = _PREFIX_PATTERN.match(line)
    return line[match.end() :].lstrip() if match is not None and match.end() else None


def _inner_line(line: str) -> str | None:
    try:
        record: Any = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if type(record) is not dict:
        return None
    for name in _INNER_LINE_FIELDS:
        inner = record.get(name)
        if type(inner) is str and inner.strip():
            return inner.strip()
    return None
