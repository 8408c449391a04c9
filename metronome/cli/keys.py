"""``metronome keys``: makes keys, lists and revokes them, beside the server that asks for them."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
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
from metronome.config import Settings, parse_age, read_settings
from metronome.errors import Malformed, MetronomeError, Unavailable
from metronome.importer.summary import sanitize_for_terminal
from metronome.scopes import Scope
from metronome.server.bootstrap import open_state
from metronome.state.base import State
from metronome.times import format_timestamp

DataOption = Annotated[
    Path | None, typer.Option(envvar="METRONOME_DATA", help="The server's data folder.", show_default="data")
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        envvar="METRONOME_STORE", help="The server's store: keys are kept beside its events.", show_default="duckdb"
    ),
]
Result = TypeVar("Result")

_COLUMNS: Final = ("name", "scopes", "origins", "created", "expires", "state")
_MINUTE_LENGTH: Final = len("2015-01-22T09:30")

keys_app = typer.Typer(no_args_is_help=True)


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What people and logs call it; no two keys ever have the same name.")],
    *,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            help="What it allows; may be given again. The default is the least: who finds it in a page or a "
            "configuration can send events with it, and ask nothing.",
            show_default="tick",
        ),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it ends: 90d, 12h, 30m, 8w.", show_default="never", metavar="AGE")
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            help="The site whose pages may use it, as https://example.org; may be given again.",
            show_default="anywhere",
            metavar="ORIGIN",
        ),
    ] = None,
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """Make a key and show it, this once: it is the last line of the output."""

    def create(settings: Settings) -> str:
        token, now = generate_token(), datetime.now(UTC)
        ends = _parse_expiry(expires, now)
        origins = tuple(dict.fromkeys(map(normalize_origin, origin or ())))
        scopes = tuple(dict.fromkeys(scope or (Scope.TICK,)))
        key = build_key(validate_key_name(name), scopes, token, format_timestamp(now), origins=origins, expires=ends)
        _with_state(settings, lambda state: _add_key(state, key))
        return "\n".join([*_format_key(key, settings), "", "The key itself, shown only now:", token])

    _run_command("create", data, store, create)


@keys_app.command("list")
def list_keys(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")] = False,
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """List all keys that were ever made; what they are is known to their holders only."""

    def list_them(settings: Settings) -> str:
        now = format_timestamp(datetime.now(UTC))
        found = _with_state(settings, _read_all_keys) if _may_have_keys(settings) else []
        if as_json:
            return orjson.dumps([_key_to_json(key, now) for key in found], option=orjson.OPT_INDENT_2).decode()
        if not found:
            return f"no keys yet in {_key_location(settings)}; make one with metronome keys create"
        return "\n".join(_format_table([_key_row(key, now) for key in found]))

    _run_command("list", data, store, list_them)


@keys_app.command("revoke")
def revoke_key(
    name: Annotated[str, typer.Argument(help="What it is called.")],
    *,
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """Revoke a key for good, within a second; it stays listed."""

    def revoke(settings: Settings) -> str:
        now = format_timestamp(datetime.now(UTC))
        if not _may_have_keys(settings):
            raise Malformed(_unknown_key_message(name, settings))
        revoked = _with_state(settings, lambda state: _revoke_in_state(state, name, now))
        if revoked is None:
            raise Malformed(_unknown_key_message(name, settings))
        if revoked != now:
            return f"the key {name!r} was revoked already, on {_format_minute(revoked)}"
        return f"the key {name!r} is revoked: running servers reject it within a second"

    _run_command("revoke", data, store, revoke)


def _run_command(command: str, data: Path | None, store: str | None, operation: Callable[[Settings], str]) -> None:
    try:
        typer.echo(operation(read_settings({"data": data, "store": store})))
    except MetronomeError as error:
        typer.echo(f"metronome keys {command}: {error}{_advice(error)}", err=True)
        raise typer.Exit(2) from None


def _advice(error: MetronomeError) -> str:
    if isinstance(error, Unavailable):
        return "; see that --data and --store are the server's, and that this user can reach and write what they name"
    return f"; {error.advice}" if error.advice else ""


def _with_state(settings: Settings, operation: Callable[[State], Coroutine[Any, Any, Result]]) -> Result:
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
            f"there is a key {key.name!r} already, or was one: names are never used again, so that logs stay clear. "
            "Choose another, and revoke the old key if the new one takes its place"
        )


async def _read_all_keys(state: State) -> list[Key]:
    found = []
    for name, record in (await state.get_all(KEY_KIND)).items():
        try:
            found.append(key_from_record(name, record))
        except Malformed as error:
            typer.echo(f"metronome keys list: {error}", err=True)
    return found


async def _revoke_in_state(state: State, name: str, now: str) -> str | None:
    """Revoke a key; returns since when it is, or None if there is no such key."""
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
            f"--expires is {expires!r}: write a number and s, m, h, d or w, as 90d, up to 36500d; "
            "leave it out for a key that never ends"
        )
    return format_timestamp(now + age) if age else ""


def _may_have_keys(settings: Settings) -> bool:
    """Tell whether there can be keys; reading must not make a data folder where there is none."""
    return settings.store != "duckdb" or settings.data.is_dir()


def _key_location(settings: Settings) -> str:
    """Return where keys are kept; an address may hold a password."""
    return str(settings.data.resolve()) if settings.store == "duckdb" else settings.store.rpartition("@")[2]


def _unknown_key_message(name: str, settings: Settings) -> str:
    return (
        f"there is no key {name!r} in {_key_location(settings)}: see metronome keys list, and name the server's "
        f"data folder "
        "with --data"
    )


def _format_key(key: Key, settings: Settings) -> list[str]:
    rows = [
        ("key", key.name),
        ("allows", ", ".join(key.scopes)),
        ("from", ", ".join(key.origins) or "anywhere"),
        ("ends", _format_minute(key.expires) or "never"),
        ("kept in", _key_location(settings)),
    ]
    return [f"{name:<8}{sanitize_for_terminal(value)}" for name, value in rows]


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
        sanitize_for_terminal(key.name),
        ",".join(key.scopes),
        sanitize_for_terminal(",".join(key.origins)) or "anywhere",
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
