"""The fields that Metronome knows: the one table that ingest, enrichment, both stores, queries and Kibana derive from.

An event may have any other fields, too. A known field differs from those in that its type is fixed before the first
event arrives, and it can be queried while no document has it.
"""

import codecs
import re
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote

VALUE_MAX_CHARACTERS: Final = 1024
"""Longer texts are stored, but neither searched nor counted."""
NAME_MAX_BYTES: Final = 1024
"""The limit of ``id``, ``event``, ``format`` and ``bot``: Elasticsearch does not count longer ones."""
EVENT_ID_MAX_BYTES: Final = 512
"""Elasticsearch's limit for an ``_id``."""
PARAM_NAME_MAX_CHARACTERS: Final = 256

_TOP_LEVEL_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
_NUL_REPLACEMENT: Final = "\ufffd"
_UNDECODED_BYTES: Final = re.compile("[\udc80-\udcff]+")
"""What the error handler ``surrogateescape`` makes of bytes that are not UTF-8."""

_PERCENT_ENCODED: Final = {0xDC00 + byte: f"%{byte:02X}" for byte in range(0x80, 0x100)}
_BACKSLASH_ESCAPED: Final = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}
_UTF8_NAMES: Final = frozenset({"utf-8", "utf8"})
PERCENT_ERRORS: Final = "metronome.percent"
"""Bytes that are not UTF-8 become ``%HH``, as clients write them: different bytes are different items."""


def _percent_encode(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    if error.encoding not in _UTF8_NAMES:
        return "".join(f"%{byte:02X}" for byte in error.object[error.start : error.end]), error.end
    # All the rest at once: a call for each byte would take 20 times as long.
    return restore_bytes(error.object[error.start :].decode(errors="surrogateescape")), len(error.object)


codecs.register_error(PERCENT_ERRORS, _percent_encode)

BACKSLASH_ERRORS: Final = "metronome.backslash"
r"""The same as Python's ``backslashreplace`` (``\xHH``), in a tenth of the time where many bytes are not UTF-8."""


def _backslash_escape(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeDecodeError) or error.encoding not in _UTF8_NAMES:
        return codecs.backslashreplace_errors(error)
    text = error.object[error.start :].decode(errors="surrogateescape")
    return text.translate(_BACKSLASH_ESCAPED), len(error.object)


codecs.register_error(BACKSLASH_ERRORS, _backslash_escape)


class FieldType(StrEnum):
    """How a field is stored and searched."""

    TEXT = "text"
    NUMBER = "number"
    TIMESTAMP = "timestamp"
    IP_ADDRESS = "ip_address"
    STORED_ONLY = "stored_only"
    """Neither searched nor counted."""
    CONSTANT = "constant"
    """A text that is the same in every document."""
    PARAMS = "params"
    """An object of texts."""


class Unit(StrEnum):
    """What a field's numbers count."""

    MILLISECONDS = "ms"
    SCORE = "score"
    BYTES = "bytes"


class Timing(StrEnum):
    """Where a timing comes from. The report of times lists timings in this order."""

    MATOMO = "matomo"
    """Matomo's page performance."""
    WEB_VITAL = "web_vital"
    SENDER = "sender"
    """Whatever the sender measured."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field that Metronome knows.

    Attributes:
        name: its name in documents and queries.
        type: None where the store takes it from the first value, as of a field that is not known.
        aliases: other names that senders use for it, by falling precedence.
        max_bytes: an event with a longer value is rejected.
        column: whether it has a column of its own in the embedded store, so that querying it reads no documents.
            Each column costs about 70 ns per event, even when empty.
        rollup: whether the embedded store counts events by it in advance. Implies a limited length.
        total: whether the embedded store counts the events of all items by it in advance.
        convert: whether values are converted to its type on ingest: numbers to texts, or texts to numbers.
        enriched: whether enrichment may add it.
        input: whether enrichment derives something from it.
        core: whether it is exempt from the limit of fields that a sender may add to a document's top level.
        queryable: whether queries may name it while no document has it.
        unit: of its numbers; None for a field without numbers, or without a fixed unit.
        timing: where it comes from, for a field that the report of times includes.
        label: what Kibana calls it; empty to keep its name.

    """

    name: str
    type: FieldType | None = None
    aliases: tuple[str, ...] = ()
    max_bytes: int | None = None
    column: bool = False
    rollup: bool = False
    total: bool = False
    convert: bool = False
    enriched: bool = False
    input: bool = False
    core: bool = False
    queryable: bool = True
    unit: Unit | None = None
    timing: Timing | None = None
    label: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Its name and its aliases."""
        return (self.name, *self.aliases)

    @property
    def is_numeric(self) -> bool:
        """Whether its values are numbers."""
        return self.type is FieldType.NUMBER or self.unit is not None


def _timing(name: str, timing: Timing, label: str = "", unit: Unit = Unit.MILLISECONDS) -> Field:
    return Field(name, FieldType.NUMBER, column=True, unit=unit, timing=timing, label=label)


FIELDS: Final = (
    # Written by Metronome at the head of each document, or around what a sender's event does not fit into.
    Field("@timestamp", FieldType.TIMESTAMP, aliases=("timestamp", "ts", "time"), core=True, queryable=False),
    Field("event_id", FieldType.STORED_ONLY, max_bytes=EVENT_ID_MAX_BYTES, convert=True, core=True),
    Field("@version", FieldType.CONSTANT, queryable=False),
    Field("params", FieldType.PARAMS, queryable=False),
    Field("event.original", FieldType.STORED_ONLY, queryable=False),
    # What happened, to which item, and who did it.
    Field("id", FieldType.TEXT, max_bytes=NAME_MAX_BYTES, column=True, rollup=True, convert=True, core=True),
    Field("event", FieldType.TEXT, max_bytes=NAME_MAX_BYTES, column=True, rollup=True, convert=True, core=True),
    Field(
        "format",
        FieldType.TEXT,
        max_bytes=NAME_MAX_BYTES,
        column=True,
        rollup=True,
        total=True,
        convert=True,
        core=True,
    ),
    Field("referer", FieldType.TEXT, ("referrer", "urlref"), column=True, rollup=True, input=True, core=True),
    Field(
        name="bot",
        type=FieldType.TEXT,
        max_bytes=NAME_MAX_BYTES,
        column=True,
        rollup=True,
        total=True,
        convert=True,
        enriched=True,
        core=True,
    ),
    Field("visitor", FieldType.TEXT, column=True, convert=True, core=True),
    Field("session", FieldType.TEXT, column=True, convert=True, core=True),
    # Added by enrichment.
    Field("channel", FieldType.TEXT, column=True, total=True, enriched=True, core=True),
    Field("referer_group", FieldType.TEXT, column=True, total=True, enriched=True, core=True),
    Field("country", FieldType.TEXT, column=True, total=True, enriched=True, core=True),
    Field("browser", FieldType.TEXT, column=True, total=True, enriched=True, core=True),
    Field("browser_version", FieldType.TEXT, column=True, enriched=True, core=True),
    Field("os", FieldType.TEXT, column=True, total=True, enriched=True, core=True),
    Field("os_version", FieldType.TEXT, enriched=True, core=True),
    Field("device", FieldType.TEXT, column=True, total=True, enriched=True, core=True),
    Field("bot_kind", FieldType.TEXT, enriched=True, core=True),
    Field("utm_source", FieldType.TEXT, column=True, total=True, enriched=True, core=True),
    Field("utm_medium", FieldType.TEXT, enriched=True, core=True),
    Field("utm_campaign", FieldType.TEXT, column=True, total=True, enriched=True, core=True),
    Field("utm_term", FieldType.TEXT, enriched=True, core=True),
    Field("utm_content", FieldType.TEXT, enriched=True, core=True),
    Field("status", FieldType.NUMBER, column=True, input=True),
    Field("error_group", FieldType.TEXT, column=True, total=True, enriched=True, core=True),
    Field("enrich_version", FieldType.NUMBER, core=True),
    Field("enrich_kept", core=True, queryable=False),
    # Timings.
    Field(
        name="duration",
        type=FieldType.NUMBER,
        column=True,
        convert=True,
        unit=Unit.MILLISECONDS,
        timing=Timing.SENDER,
    ),
    _timing("TTFB", Timing.WEB_VITAL, "Time to first byte"),
    _timing("FCP", Timing.WEB_VITAL, "First contentful paint"),
    _timing("LCP", Timing.WEB_VITAL, "Largest contentful paint"),
    _timing("CLS", Timing.WEB_VITAL, "Cumulative layout shift", Unit.SCORE),
    _timing("INP", Timing.WEB_VITAL, "Interaction to next paint"),
    _timing("pf_net", Timing.MATOMO, "Network"),
    _timing("pf_srv", Timing.MATOMO, "Server"),
    _timing("pf_tfr", Timing.MATOMO, "Transfer"),
    _timing("pf_dm1", Timing.MATOMO, "DOM processing"),
    _timing("pf_dm2", Timing.MATOMO, "DOM completion"),
    _timing("pf_onl", Timing.MATOMO, "On load"),
    # The rest.
    Field("value", FieldType.NUMBER, convert=True),
    Field("bytes", unit=Unit.BYTES),
    Field("message", FieldType.TEXT, input=True),
    Field("method", FieldType.TEXT),
    Field("user", FieldType.TEXT),
    Field("clientip", FieldType.IP_ADDRESS, input=True),
    # Kept under the name that the sender gave it.
    Field("agent", aliases=("user_agent", "ua"), input=True),
    Field("url", input=True),
    Field("referer_url", input=True, core=True),
    Field("title"),
    # A request for a further part of a file, which is not counted again.
    Field("part"),
    # The identity of the log that the event was imported from.
    Field("import", FieldType.TEXT, core=True),
)
"""Stores, reports and Kibana list fields in this order."""

FIELDS_BY_NAME: Final = MappingProxyType({field.name: field for field in FIELDS})

TIMESTAMP_FIELDS: Final = FIELDS_BY_NAME["@timestamp"].names
REFERRER_FIELDS: Final = FIELDS_BY_NAME["referer"].names
USER_AGENT_FIELDS: Final = FIELDS_BY_NAME["agent"].names

COLUMN_FIELDS: Final = tuple(field.name for field in FIELDS if field.column)
ROLLUP_FIELDS: Final = tuple(field.name for field in FIELDS if field.rollup)
TOTAL_FIELDS: Final = tuple(field.name for field in FIELDS if field.total)
TIMING_FIELDS: Final = tuple(field.name for timing in Timing for field in FIELDS if field.timing is timing)
"""In the order of the report of times."""
LENGTH_LIMITS: Final = tuple((field.name, field.max_bytes) for field in FIELDS if field.max_bytes is not None)
ENRICHED_FIELDS: Final = frozenset(field.name for field in FIELDS if field.enriched)
INPUT_FIELDS: Final = frozenset(name for field in FIELDS if field.input for name in field.names)
CORE_FIELDS: Final = frozenset(name for field in FIELDS if field.core for name in field.names)
QUERYABLE_FIELDS: Final = frozenset(field.name for field in FIELDS if field.queryable)
NUMERIC_FIELDS: Final = frozenset(field.name for field in FIELDS if field.is_numeric)
CONVERTED_NUMBERS: Final = tuple(field.name for field in FIELDS if field.convert and field.is_numeric)
CONVERTED_TEXTS: Final = frozenset(field.name for field in FIELDS if field.convert and not field.is_numeric)
RESERVED_FIELDS: Final = frozenset({"@timestamp", "@version", "params", "event.original"})
"""Fields of a document that a sender's field of the same name cannot be, at the top level."""


def is_top_level_name(name: str) -> bool:
    """Return whether a sender's field of that name may be at a document's top level; otherwise it is in ``params``."""
    return _TOP_LEVEL_NAME.fullmatch(name) is not None and name not in RESERVED_FIELDS


def param_name(name: str) -> str:
    """Return the name that a field has in ``params``."""
    short = name.replace("\0", _NUL_REPLACEMENT)[:PARAM_NAME_MAX_CHARACTERS]
    return short if short.strip() else f"_{short}"


def decode_percent(text: str) -> str:
    """Decode the percent-encoding of a path or a query's value; bytes that are not UTF-8 stay encoded, as in ``%E9``.

    So two addresses in another charset stay two items, each of which is found by its own address.
    """
    return restore_bytes(unquote(text, errors=PERCENT_ERRORS) if "%" in text else text)


def restore_bytes(text: str, charset: str = "") -> str:
    """Replace what ``surrogateescape`` made of bytes that are not UTF-8.

    Args:
        text: decoded from UTF-8 with that error handler.
        charset: what to decode the text from instead, if it is not UTF-8; empty for an unknown one, then such bytes are
            percent-encoded.

    """
    if _UNDECODED_BYTES.search(text) is None:
        return text
    if charset:
        try:
            return text.encode(errors="surrogateescape").decode(charset)
        except UnicodeError:
            pass
    return text.translate(_PERCENT_ENCODED)


def param_value(text: str) -> str:
    """Return a field's text as ``params`` holds it: truncated to `VALUE_MAX_CHARACTERS`."""
    return text.replace("\0", _NUL_REPLACEMENT)[:VALUE_MAX_CHARACTERS]
