"""OpenTelemetry's OTLP over HTTP at ``POST /v1/logs``: log records as protobuf or JSON.

Source: https://opentelemetry.io/docs/specs/otlp. Its messages come from the package opentelemetry-proto, which is
imported with the first request in protobuf.
"""

import binascii
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from types import ModuleType
from typing import Any, Final, NamedTuple

import orjson

from metronome.errors import Malformed, MetronomeError, PayloadTooLarge, describe_to_client
from metronome.event import Event, derive_event_ids
from metronome.protocol import (
    IngestResult,
    ParsedEvent,
    ParsedRequest,
    Reply,
    Request,
    basic_password,
    bearer_token,
    http_error_headers,
    json_type_name,
    parse_json_object,
)
from metronome.protocols.records import event_from_record
from metronome.times import format_timestamp

RECORD_ID_ATTRIBUTE: Final = "log.record.uid"
"""The semantic conventions' name for the ID of a record: of records with the same ID, one counts."""

_JSON: Final = "application/json"
_PROTOBUF: Final = "application/x-protobuf"
_HEADER_PREFIXES: Final = ("http.request.header.", "http.response.header.")
_SEVERITIES: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_LEVELS_PER_SEVERITY: Final = 4
_NANOSECONDS: Final = 1_000_000_000
_MAX_DIGITS: Final = len(str(-(2**63)))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NESTED_TOO_DEEPLY: Final = "nested too deeply: send simpler attributes"
_GRPC_CODES: Final = {400: 3, 401: 16, 403: 7, 404: 5, 408: 4, 413: 8, 429: 8, 503: 14}
_GRPC_INTERNAL: Final = 13
_LENGTH_DELIMITED: Final = 2
_FIXED_SIZES: Final = {1: 8, 5: 4}


class LogRecord(NamedTuple):
    """A log record, from either encoding.

    Attributes:
        time: in nanoseconds since 1970, of the event, else of its observation; 0 for none.
        severity: a text, or empty.
        severity_number: 0 for none.
        body: a parsed value.
        attributes: parsed values.
        ids: ``trace_id``, ``span_id`` and ``event_name``, where the record has them.

    """

    time: int
    severity: str
    severity_number: int
    body: Any
    attributes: dict[str, Any]
    ids: dict[str, str]


class _Scope(NamedTuple):
    """Records with the attributes of their resource and scope; a record is decoded when it is needed."""

    fields: dict[str, Any]
    records: list[Callable[[], LogRecord]]


def extract_key(request: Request) -> str:
    """Return the bearer token or the password (see `Protocol.extract_key`)."""
    return bearer_token(request.headers) or basic_password(request.headers)


def parse(request: Request) -> ParsedRequest:
    """Parse the records of a request (see `Protocol.parse`)."""
    scopes = _json_scopes(request.body) if _is_json(request) else _protobuf_scopes(request.body)
    count = sum(len(scope.records) for scope in scopes)
    if count > request.max_events:
        raise PayloadTooLarge(f"over {request.max_events} records: send fewer at once, or raise batch_max_events")
    decoded = [(scope.fields, _decode(record)) for scope in scopes for record in scope.records]
    return ParsedRequest(_iter_events(decoded, request), is_batch=True)


def reply(request: Request, _: ParsedRequest, result: IngestResult) -> Reply:
    """Report the number of rejected records and the first reason, if there are any (see `Protocol.reply`)."""
    if not result.rejected:
        return Reply(200, b"{}", _JSON) if _is_json(request) else Reply(200, b"", _PROTOBUF)
    count, reason = len(result.rejected), str(result.rejected[min(result.rejected)])
    if _is_json(request):
        outcome = {"rejectedLogRecords": str(count), "errorMessage": reason}
        return Reply(200, orjson.dumps({"partialSuccess": outcome}), _JSON)
    return Reply(200, _length_delimited(1, _encode_number_and_text(count, reason)), _PROTOBUF)


def reply_error(request: Request, error: MetronomeError) -> Reply:
    """Describe the error as a ``google.rpc.Status`` (see `Protocol.reply_error`)."""
    status, message = error.http_status, describe_to_client(error)
    code, headers = _GRPC_CODES.get(status, _GRPC_INTERNAL), http_error_headers(error)
    if _is_json(request) or not request.headers.get("Content-Type", "").startswith(_PROTOBUF):
        return Reply(status, orjson.dumps({"code": code, "message": message}), _JSON, headers)
    return Reply(status, _encode_number_and_text(code, message), _PROTOBUF, headers)


def _is_json(request: Request) -> bool:
    return request.content_type == _JSON or request.body[:1] == b"{"


def _decode(record: Callable[[], LogRecord]) -> LogRecord | Malformed:
    try:
        return record()
    except Malformed as error:
        return error
    except RecursionError:
        return Malformed(_NESTED_TOO_DEEPLY)


def _iter_events(
    records: list[tuple[dict[str, Any], LogRecord | Malformed]], request: Request
) -> Iterator[ParsedEvent]:
    event_ids = derive_event_ids(request.body) if _is_idempotent(records, request) else None
    for scope_fields, record in records:
        # Rejected records take an ID, too, so that the others keep theirs.
        event_id = next(event_ids) if event_ids is not None else None
        if isinstance(record, Malformed):
            yield record
            continue
        try:
            event = _build_event(scope_fields, record, request)
        except (Malformed, RecursionError) as error:
            yield error if isinstance(error, Malformed) else Malformed(_NESTED_TOO_DEEPLY)
            continue
        record_id = record.attributes.get(RECORD_ID_ATTRIBUTE) or event_id
        if record_id and not event.fields.get("event_id"):
            event = Event({**event.fields, "event_id": record_id}, event.original)
        yield event


def _is_idempotent(records: list[tuple[dict[str, Any], LogRecord | Malformed]], request: Request) -> bool:
    """Return whether a resend can be recognized by its content: it has a time that is finer than a second."""
    return "Idempotency-Key" not in request.headers and any(
        isinstance(record, LogRecord) and record.time % _NANOSECONDS for _, record in records
    )


def _build_event(scope_fields: Mapping[str, Any], record: LogRecord, request: Request) -> Event:
    fields: dict[str, Any] = {}
    if isinstance(record.body, dict):
        fields.update(record.body)
    elif record.body is not None:
        fields["message"] = record.body if isinstance(record.body, str) else _to_json(record.body)
    fields |= record.attributes
    fields.pop(RECORD_ID_ATTRIBUTE, None)
    for name, value in scope_fields.items():
        fields.setdefault(name, value)
    severity = record.severity or _severity_name(record.severity_number)
    if severity:
        fields.setdefault("severity", severity)
    if record.severity_number:
        fields.setdefault("severity_number", record.severity_number)
    for name, text in record.ids.items():
        fields.setdefault(name, text)
    for name, value in fields.items():
        if name.startswith(_HEADER_PREFIXES) and isinstance(value, list):
            # The conventions have a list of each header's values.
            fields[name] = ", ".join(map(str, value))
    if record.time:
        fields.setdefault("@timestamp", _format_time(record.time))
    return event_from_record(fields, request.config)


def _to_json(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        raise Malformed(_NESTED_TOO_DEEPLY) from None


def _severity_name(number: int) -> str:
    index = (number - 1) // _LEVELS_PER_SEVERITY
    return _SEVERITIES[index] if 0 <= index < len(_SEVERITIES) else ""


def _format_time(nanoseconds: int) -> str:
    # 64 bits do not reach beyond the years that a date can hold.
    return format_timestamp(_EPOCH + timedelta(microseconds=nanoseconds // 1000))


def _scope_fields(resource: dict[str, Any], scope: dict[str, Any], name: str, version: str) -> dict[str, Any]:
    named = {"otel.scope.name": name, "otel.scope.version": version}
    return {**resource, **scope, **{field: text for field, text in named.items() if text}}


# JSON


def _json_scopes(body: bytes) -> list[_Scope]:
    try:
        return list(_iter_json_scopes(parse_json_object(body)))
    except RecursionError:
        raise Malformed(_NESTED_TOO_DEEPLY) from None


def _iter_json_scopes(request: Mapping[str, Any]) -> Iterator[_Scope]:
    for resource_logs in _objects(request, "resourceLogs"):
        resource = _json_attributes(_object(resource_logs, "resource"))
        for scope_logs in _objects(resource_logs, "scopeLogs"):
            scope = _object(scope_logs, "scope")
            fields = _scope_fields(
                resource, _json_attributes(scope), _text(scope, "name", "scope"), _text(scope, "version", "scope")
            )
            records = _list(scope_logs, "logRecords")
            yield _Scope(fields, [partial(_json_record, record) for record in records])


def _json_record(record: object) -> LogRecord:
    if not isinstance(record, dict):
        raise Malformed(f"expected an object as log record, got {json_type_name(record)}")
    names = {"trace_id": "traceId", "span_id": "spanId", "event_name": "eventName"}
    number = record.get("severityNumber", 0)
    return LogRecord(
        _json_integer(record, "timeUnixNano") or _json_integer(record, "observedTimeUnixNano"),
        _text(record, "severityText"),
        number if isinstance(number, int) else 0,
        _json_value(record.get("body")),
        _json_attributes(record),
        {name: text for name, key in names.items() if (text := _text(record, key))},
    )


def _json_attributes(group: Mapping[str, Any]) -> dict[str, Any]:
    return {_text(pair, "key"): _json_value(pair.get("value")) for pair in _objects(group, "attributes")}


def _json_value(value: object) -> Any:
    """Return an ``AnyValue``, such as ``{"intValue":"5"}``."""
    if value is None or value == {}:
        return None
    if not isinstance(value, dict) or len(value) != 1:
        raise Malformed(f'expected a value such as {{"stringValue":"…"}}, got {json_type_name(value)}')
    ((kind, content),) = value.items()
    if kind == "intValue":
        return _json_integer(value, kind)
    if kind == "arrayValue":
        return [_json_value(element) for element in _list(_object(value, kind), "values")]
    if kind == "kvlistValue":
        pairs = _objects(_object(value, kind), "values")
        return {_text(pair, "key"): _json_value(pair.get("value")) for pair in pairs}
    return _json_scalar(kind, content)


def _json_scalar(kind: str, content: object) -> Any:
    match kind, content:
        case ("stringValue", str()) | ("boolValue", bool()):
            return content
        case "doubleValue", int() | float() | str():
            return _json_double(content)
        case "bytesValue", str():
            return _bytes_text(_decode_base64(content))
    raise Malformed(f"invalid {kind[:40]}: {json_type_name(content)}")


def _json_double(content: float | str) -> float:
    try:
        return float(content)
    except (ValueError, OverflowError):
        raise Malformed(f"invalid doubleValue {str(content)[:40]!r}") from None


def _json_integer(group: Mapping[str, Any], name: str) -> int:
    value = group.get(name)
    if value is None or value == "":
        return 0
    if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdecimal() and len(value) <= _MAX_DIGITS:
        value = int(value)
    if type(value) is int and -(2**63) <= value < 2**64:
        return value
    raise Malformed(f"invalid {name} {str(value)[:40]!r}: expected a whole number, as text or number")


def _decode_base64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("invalid bytesValue: expected base64") from None


def _object(group: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = group.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed(f"invalid {name}: expected an object, got {json_type_name(value)}")
    return value


def _list(group: Mapping[str, Any], name: str) -> list[Any]:
    value = group.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Malformed(f"invalid {name}: expected an array, got {json_type_name(value)}")
    return value


def _objects(group: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    for element in _list(group, name):
        if not isinstance(element, dict):
            raise Malformed(f"invalid {name}: expected objects, got {json_type_name(element)}")
        yield element


def _text(group: Mapping[str, Any], name: str, where: str = "log record") -> str:
    value = group.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"invalid {name} of a {where}: expected text, got {json_type_name(value)}")
    return value


# Protobuf


@cache
def _messages() -> ModuleType:
    from opentelemetry.proto.logs.v1 import logs_pb2  # noqa: PLC0415  # takes 0.1 s, and most servers do not need it

    return logs_pb2


def _protobuf_scopes(body: bytes) -> list[_Scope]:
    """Split a request into its records, so that one that is invalid does not affect the others."""
    scopes: list[_Scope] = []
    for resource_logs in _submessages(body, 1):
        resource: dict[str, Any] = {}
        for text in _submessages(resource_logs, 1):
            parsed = _parse_message("ResourceLogs", _length_delimited(1, text))
            resource |= _protobuf_attributes(parsed.resource.attributes)
        for scope_logs in _submessages(resource_logs, 2):
            fields = dict(resource)
            for text in _submessages(scope_logs, 1):
                scope = _parse_message("ScopeLogs", _length_delimited(1, text)).scope
                fields = _scope_fields(resource, _protobuf_attributes(scope.attributes), scope.name, scope.version)
            scopes.append(_Scope(fields, [partial(_protobuf_record, record) for record in _submessages(scope_logs, 2)]))
    return scopes


def _parse_message(kind: str, body: bytes) -> Any:
    message_type = getattr(_messages(), kind)
    from google.protobuf.message import DecodeError  # noqa: PLC0415  # as above

    try:
        return message_type.FromString(body)
    except DecodeError:
        raise Malformed(f"invalid protobuf {kind}: expected that of OTLP, with text in UTF-8") from None


def _protobuf_record(body: bytes) -> LogRecord:
    record = _parse_message("LogRecord", body)
    ids = {"trace_id": record.trace_id.hex(), "span_id": record.span_id.hex(), "event_name": record.event_name}
    return LogRecord(
        record.time_unix_nano or record.observed_time_unix_nano,
        record.severity_text,
        record.severity_number,
        _protobuf_value(record.body),
        _protobuf_attributes(record.attributes),
        {name: text for name, text in ids.items() if text},
    )


def _protobuf_attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    return {pair.key: _protobuf_value(pair.value) for pair in pairs}


def _protobuf_value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    content = getattr(value, kind)
    if kind == "array_value":
        return [_protobuf_value(element) for element in content.values]
    if kind == "kvlist_value":
        return _protobuf_attributes(content.values)
    return _bytes_text(content) if kind == "bytes_value" else content


def _bytes_text(content: bytes) -> str:
    """Return bytes as text where they are UTF-8, otherwise in hexadecimal."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.hex()


def _submessages(message: bytes, number: int) -> Iterator[bytes]:
    """Yield the contents of a message's fields with a number; other fields are skipped.

    Raises:
        Malformed: it is not a protobuf message.

    """
    position, end = 0, len(message)
    while position < end:
        tag, position = _read_varint(message, position)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            size, position = _read_varint(message, position)
            if position + size > end:
                break
            if tag >> 3 == number:
                yield message[position : position + size]
            position += size
        elif kind == 0:
            _, position = _read_varint(message, position)
        elif kind in _FIXED_SIZES:
            position += _FIXED_SIZES[kind]
        else:
            position = end + 1
    if position != end:
        raise Malformed("invalid protobuf: send an ExportLogsServiceRequest of OTLP, or JSON as application/json")


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    """Return a number and the position after it."""
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:  # noqa: PLR2004  # the highest bit says that more bytes follow
            return value, position
    raise Malformed("invalid protobuf: a number is incomplete")


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:  # noqa: PLR2004  # seven bits a byte
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def _length_delimited(number: int, content: bytes) -> bytes:
    return _encode_varint(number << 3 | _LENGTH_DELIMITED) + _encode_varint(len(content)) + content


def _encode_number_and_text(number: int, text: str) -> bytes:
    """Encode an ``ExportLogsPartialSuccess`` or a ``google.rpc.Status``: both have a number and a text."""
    return b"\x08" + _encode_varint(number) + _length_delimited(2, text.encode())
