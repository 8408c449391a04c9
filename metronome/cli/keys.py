"""``metronome keys``: makes keys, lists and revokes them, beside the server that asks for them."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import orjson
import typer

from metronome.auth.keys import KIND, Key, checked_name, key_of, make_key, make_token, read_origin
from metronome.config import Settings, read_age, read_settings
from metronome.errors import Away, CallerError, Malformed, MetronomeError
from metronome.importer.summary import printable
from metronome.scopes import Scope
from metronome.server.bootstrap import open_state
from metronome.state.base import State
from metronome.times import stamp_of

Data = Annotated[
    Path | None, typer.Option(envvar="METRONOME_DATA", help="The server's data folder.", show_default="data")
]
Store = Annotated[
    str | None,
    typer.Option(
        envvar="METRONOME_STORE", help="The server's store: keys are kept beside its events.", show_default="duckdb"
    ),
]
Result = TypeVar("Result")

_COLUMNS: Final = ("name", "scopes", "origins", "created", "expires", "state")
_MINUTE: Final = len("2015-01-22T09:30")

key_commands = typer.Typer(no_args_is_help=True)


@key_commands.command("create")
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
    data: Data = None,
    store: Store = None,
) -> None:
    """Make a key and show it, this once: it is the last line of the output."""

    def create(settings: Settings) -> str:
        token, now = make_token(), datetime.now(UTC)
        ends = _read_end(expires, now)
        origins = tuple(dict.fromkeys(map(read_origin, origin or ())))
        scopes = tuple(dict.fromkeys(scope or (Scope.TICK,)))
        key = make_key(checked_name(name), scopes, token, stamp_of(now), origins=origins, expires=ends)
        _with_state(settings, lambda state: _add(state, key))
        return "\n".join([*_told(key, settings), "", "The key itself, shown only now:", token])

    _run("create", data, store, create)


@key_commands.command("list")
def list_keys(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")] = False,
    data: Data = None,
    store: Store = None,
) -> None:
    """List all keys that were ever made; what they are is known to their holders only."""

    def list_them(settings: Settings) -> str:
        now = stamp_of(datetime.now(UTC))
        found = _with_state(settings, _all) if _is_anything_there(settings) else []
        if as_json:
            return orjson.dumps([_described(key, now) for key in found], option=orjson.OPT_INDENT_2).decode()
        if not found:
            return f"no keys yet in {_place(settings)}; make one with metronome keys create"
        return "\n".join(_table([_row(key, now) for key in found]))

    _run("list", data, store, list_them)


@key_commands.command("revoke")
def revoke_key(
    name: Annotated[str, typer.Argument(help="What it is called.")], *, data: Data = None, store: Store = None
) -> None:
    """Revoke a key for good, within a second; it stays listed."""

    def revoke(settings: Settings) -> str:
        now = stamp_of(datetime.now(UTC))
        if not _is_anything_there(settings):
            raise Malformed(_unknown(name, settings))
        revoked = _with_state(settings, lambda state: _revoke(state, name, now))
        if revoked is None:
            raise Malformed(_unknown(name, settings))
        if revoked != now:
            return f"the key {name!r} was revoked already, on {_minute(revoked)}"
        return f"the key {name!r} is revoked: a server that runs turns it away within a second"

    _run("revoke", data, store, revoke)


def _run(command: str, data: Path | None, store: str | None, work: Callable[[Settings], str]) -> None:
    try:
        typer.echo(work(read_settings({"data": data, "store": store})))
    except MetronomeError as error:
        typer.echo(f"metronome keys {command}: {error}{_advice(error)}", err=True)
        raise typer.Exit(2) from None


def _advice(error: MetronomeError) -> str:
    if isinstance(error, CallerError):
        return ""
    if isinstance(error, Away):
        return "; see that --data and --store are the server's, and that this user can reach and write what they name"
    return f"; {error.advice}"


def _with_state(settings: Settings, work: Callable[[State], Coroutine[Any, Any, Result]]) -> Result:
    async def run() -> Result:
        state = open_state(settings)
        try:
            return await work(state)
        finally:
            await state.close()

    return asyncio.run(run())


async def _add(state: State, key: Key) -> None:
    if not await state.add(KIND, key.name, key.record()):
        raise Malformed(
            f"there is a key {key.name!r} already, or was one: names are never used again, so that logs stay clear. "
            "Choose another, and revoke the old key if the new one takes its place"
        )


async def _all(state: State) -> list[Key]:
    found = []
    for name, record in (await state.all(KIND)).items():
        try:
            found.append(key_of(name, record))
        except Malformed as error:
            typer.echo(f"metronome keys list: {error}", err=True)
    return found


async def _revoke(state: State, name: str, now: str) -> str | None:
    """Revoke a key; returns since when it is, or None if there is no such key."""
    while (record := await state.get(KIND, name)) is not None:
        if record.get("revoked"):
            return str(record["revoked"])
        if await state.swap(KIND, name, record, {**record, "revoked": now}):
            return now
    return None


def _read_end(expires: str | None, now: datetime) -> str:
    try:
        age = timedelta(0) if expires is None else read_age(expires)
    except ValueError:
        age = None
    if not isinstance(age, timedelta) or (expires is not None and not age):
        raise Malformed(
            f"--expires is {expires!r}: write a number and s, m, h, d or w, as 90d, up to 36500d; "
            "leave it out for a key that never ends"
        )
    return stamp_of(now + age) if age else ""


def _is_anything_there(settings: Settings) -> bool:
    """Tell whether there can be keys; reading must not make a data folder where there is none."""
    return settings.store != "duckdb" or settings.data.is_dir()


def _place(settings: Settings) -> str:
    """Return where keys are kept; an address may hold a password."""
    return str(settings.data.resolve()) if settings.store == "duckdb" else settings.store.rpartition("@")[2]


def _unknown(name: str, settings: Settings) -> str:
    return (
        f"there is no key {name!r} in {_place(settings)}: see metronome keys list, and name the server's data folder "
        "with --data"
    )


def _told(key: Key, settings: Settings) -> list[str]:
    rows = [
        ("key", key.name),
        ("allows", ", ".join(key.scopes)),
        ("from", ", ".join(key.origins) or "anywhere"),
        ("ends", _minute(key.expires) or "never"),
        ("kept in", _place(settings)),
    ]
    return [f"{name:<8}{printable(value)}" for name, value in rows]


def _described(key: Key, now: str) -> dict[str, Any]:
    return {
        "name": key.name,
        "scopes": key.scopes,
        "origins": key.origins,
        "created": key.created,
        "expires": key.expires or None,
        "revoked": key.revoked or None,
        "state": _state_of(key, now),
    }


def _row(key: Key, now: str) -> tuple[str, ...]:
    return (
        printable(key.name),
        ",".join(key.scopes),
        printable(",".join(key.origins)) or "anywhere",
        _minute(key.created),
        _minute(key.expires) or "never",
        _state_of(key, now),
    )


def _state_of(key: Key, now: str) -> str:
    if key.revoked:
        return "revoked"
    return "active" if key.is_active(now) else "expired"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [_COLUMNS, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _minute(stamp: str) -> str:
    return f"{stamp[:_MINUTE].replace('T', ' ')} UTC" if stamp else ""
