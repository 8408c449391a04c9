"""``metronome keys``: create, list and revoke API keys, on the machine of the server."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, TypeVar

import orjson
import typer

from metronome.auth.keys import (
    KEY_KIND,
    Key,
    build_key,
    generate_token,
    key_from_record,
    normalize_origin,
    validate_key_name,
)
from metronome.cli.errors import print_error, reporting_errors
from metronome.cli.options import DataOption, StoreOption
from metronome.cli.output import print_lines, print_note
from metronome.config import Settings, parse_age, read_settings
from metronome.errors import ConfigurationError, Malformed
from metronome.files import LOCK_FILE_NAME, make_new_files_private
from metronome.scopes import Scope
from metronome.server.bootstrap import open_state
from metronome.state.base import State
from metronome.state.sqlite import STATE_FILE_NAME
from metronome.times import format_timestamp

Result = TypeVar("Result")

_COLUMNS: Final = ("name", "scopes", "origins", "created", "expires", "state")
_FIRST_KEY_NOTE: Final = (
    "this is the first key: what clients on this machine could do without one needs one from now on. Queries, errors, "
    "live events and exports need the scope query, imports the scope import: create a key for each client, such as "
    "`metronome keys create reports --scope query`, and set it as METRONOME_KEY"
)
_MINUTE_LENGTH: Final = len("2015-01-22T09:30")

keys_app = typer.Typer(no_args_is_help=True, add_completion=False)


@keys_app.callback()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys_app.command("create")
def create_key(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the key in lists and logs; cannot be used again.")
    ],
    *,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            metavar="SCOPE",
            help="What the key allows: tick, import, tock, query or admin; repeatable. The default allows only "
            "sending events, so it is safe to publish in a web page.",
            show_default="tick",
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(help="Time until the key expires, such as 90d, 12h or 8w.", show_default="never", metavar="AGE"),
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Origin of a site whose pages may use the key, such as https://example.org; repeatable.",
            show_default="any",
            metavar="ORIGIN",
        ),
    ] = None,
    create: Annotated[
        bool, typer.Option("--create", help="Create the data folder, if no server has used it yet.")
    ] = False,
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """Create a key.

    The key is the last line of the output, and is not shown again.
    """
    with reporting_errors("keys create"):
        settings = read_settings({"data": data, "store": store})
        token, now = generate_token(), datetime.now(UTC)
        expires_at = _parse_expiry(expires, now)
        origins = tuple(dict.fromkeys(map(normalize_origin, origin or ())))
        scopes = tuple(dict.fromkeys(scope or (Scope.TICK,)))
        key = build_key(
            validate_key_name(name), scopes, token, format_timestamp(now), origins=origins, expires=expires_at
        )
        if not create:
            _check_data_folder(settings)
        is_first = not (_may_have_keys(settings) and _with_state(settings, _read_all_keys))
        _with_state(settings, lambda state: _add_key(state, key))
        print_lines([*_format_key(key, settings), "", "The key, which is not shown again:", token])
        if is_first:
            print_note(_FIRST_KEY_NOTE)


@keys_app.command("list")
def list_keys(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """List all keys, including expired and revoked ones.

    The keys themselves are not stored, and cannot be shown.
    """
    with reporting_errors("keys list"):
        settings = read_settings({"data": data, "store": store})
        now = format_timestamp(datetime.now(UTC))
        keys = _with_state(settings, _read_all_keys) if _may_have_keys(settings) else []
        if as_json:
            typer.echo(orjson.dumps([_key_to_json(key, now) for key in keys], option=orjson.OPT_INDENT_2))
        elif keys:
            print_lines(_format_table([_key_row(key, now) for key in keys]))
        else:
            print_lines([f"no keys yet in {_key_location(settings)}; create one with `metronome keys create`"])


@keys_app.command("revoke")
def revoke_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key.")],
    *,
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """Revoke a key.

    A running server rejects it within a second. It remains in the list.
    """
    with reporting_errors("keys revoke"):
        settings = read_settings({"data": data, "store": store})
        now = format_timestamp(datetime.now(UTC))
        revoked_at = (
            _with_state(settings, lambda state: _revoke_in_state(state, name, now))
            if _may_have_keys(settings)
            else None
        )
        if revoked_at is None:
            raise Malformed(
                f"unknown key {name!r} in {_key_location(settings)}: see `metronome keys list`, and set the data "
                "folder of the server with --data"
            )
        if revoked_at == now:
            print_lines([f"revoked key {name!r}; a running server rejects it within a second"])
        else:
            print_lines([f"key {name!r} was already revoked on {_format_minute(revoked_at)}"])


def _with_state(settings: Settings, operation: Callable[[State], Coroutine[Any, Any, Result]]) -> Result:
    make_new_files_private(settings.data_group)

    async def run() -> Result:
        state = open_state(settings)
        try:
            return await operation(state)
        finally:
            await state.close()

    return asyncio.run(run())


async def _add_key(state: State, key: Key) -> None:
    if not await state.add(KEY_KIND, key.name, key.to_record()):
        raise Malformed(
            f"the key name {key.name!r} is already in use, or was: choose another one, so that names in logs stay "
            "unambiguous"
        )


async def _read_all_keys(state: State) -> list[Key]:
    keys = []
    for name, record in (await state.get_all(KEY_KIND)).items():
        try:
            keys.append(key_from_record(name, record))
        except Malformed as error:
            print_error("keys list", str(error))
    return keys


async def _revoke_in_state(state: State, name: str, now: str) -> str | None:
    """Revoke a key, and return when it was revoked; None if there is no such key."""
    while (record := await state.get(KEY_KIND, name)) is not None:
        if record.get("revoked"):
            return str(record["revoked"])
        if await state.compare_and_swap(KEY_KIND, name, record, {**record, "revoked": now}):
            return now
    return None


def _parse_expiry(expires: str | None, now: datetime) -> str:
    try:
        age = timedelta(0) if expires is None else parse_age(expires)
    except ValueError:
        age = None
    if not isinstance(age, timedelta) or (expires is not None and not age):
        raise Malformed(
            f"invalid --expires {expires!r}: expected a number and s, m, h, d or w, such as 90d, up to 36500d; "
            "omit it for a key that never expires"
        )
    return format_timestamp(now + age) if age else ""


def _may_have_keys(settings: Settings) -> bool:
    """Return whether there can be keys; reading must not create a data folder."""
    return settings.store != "duckdb" or settings.data.is_dir()


def _check_data_folder(settings: Settings) -> None:
    """Raise `ConfigurationError` if no server has used the data folder: a key in the wrong folder protects nothing."""
    used = any((settings.data / name).exists() for name in (LOCK_FILE_NAME, STATE_FILE_NAME))
    if settings.store == "duckdb" and not used:
        raise ConfigurationError(
            f"no server has used the data folder {settings.data.resolve()}: set the one of the server with --data or "
            "METRONOME_DATA, or create the first key before the first start with --create"
        )


def _key_location(settings: Settings) -> str:
    """Return where keys are stored, without the password that a URL may contain."""
    return str(settings.data.resolve()) if settings.store == "duckdb" else settings.store.rpartition("@")[2]


def _format_key(key: Key, settings: Settings) -> list[str]:
    rows = [
        ("name", key.name),
        ("scopes", ", ".join(key.scopes)),
        ("origins", ", ".join(key.origins) or "any"),
        ("expires", _format_minute(key.expires) or "never"),
        ("stored in", _key_location(settings)),
    ]
    return [f"{name:<11}{value}" for name, value in rows]


def _key_to_json(key: Key, now: str) -> dict[str, Any]:
    return {
        "name": key.name,
        "scopes": key.scopes,
        "origins": key.origins,
        "created": key.created,
        "expires": key.expires or None,
        "revoked": key.revoked or None,
        "state": _key_status(key, now),
    }


def _key_row(key: Key, now: str) -> tuple[str, ...]:
    return (
        key.name,
        ",".join(key.scopes),
        ",".join(key.origins) or "any",
        _format_minute(key.created),
        _format_minute(key.expires) or "never",
        _key_status(key, now),
    )


def _key_status(key: Key, now: str) -> str:
    if key.revoked:
        return "revoked"
    return "active" if key.is_active(now) else "expired"


def _format_table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [_COLUMNS, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _format_minute(timestamp: str) -> str:
    return f"{timestamp[:_MINUTE_LENGTH].replace('T', ' ')} UTC" if timestamp else ""
