"""Who may do what, with real keys in a real state that comes and goes."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from metronome.auth.authorizer import Authorizer, Permissions
from metronome.auth.key_cache import KeyCache
from metronome.auth.keys import KEY_KIND, Key, build_key, generate_token
from metronome.errors import Forbidden, MetronomeError, StoreUnavailable, Unauthorized
from metronome.scopes import Scope
from metronome.state.base import Record, State
from metronome.state.elasticsearch import ElasticsearchState
from metronome.state.sqlite import STATE_FILE_NAME, SQLiteState
from metronome.stores.elasticsearch.connection import ElasticsearchConfig

NOW, CREATED = 1_772_366_400.0, "2026-03-01T12:00:00.000Z"
TICK, IMPORT, TOCK, QUERY, ADMIN = Scope
PUBLIC = frozenset({TICK, TOCK})
NOTHING: frozenset[Scope] = frozenset()
HERE = "127.0.0.1"


class Kept:
    """A state with keys, and a guard that knows them."""

    def __init__(self, state: State, public: frozenset[Scope], *, on_loopback: bool) -> None:
        self.now = NOW
        self.state = state
        self.keyring = KeyCache(state)
        self.guard = Authorizer(self.keyring, public, lambda: self.now, on_loopback=on_loopback)

    async def make(self, name: str, *scopes: Scope, **more: Any) -> str:
        token = generate_token()
        assert await self.state.add(KEY_KIND, name, build_key(name, scopes, token, CREATED, **more).to_record())
        return token

    async def revoke(self, name: str) -> None:
        record = await self.state.get(KEY_KIND, name)
        assert record is not None
        assert await self.state.compare_and_swap(KEY_KIND, name, record, {**record, "revoked": CREATED})
        await self.keyring.refresh()


@asynccontextmanager
async def kept(
    folder: Path,
    public: frozenset[Scope] = PUBLIC,
    open_state: Callable[[Path], State] = SQLiteState,
    *,
    on_loopback: bool = False,
) -> AsyncIterator[Kept]:
    state = open_state(folder)
    kept = Kept(state, public, on_loopback=on_loopback)
    await kept.keyring.refresh()
    async with kept.keyring.keep_refreshed():
        yield kept
    await state.close()


async def allowed(guard: Authorizer, token: str, origin: str = "") -> set[Scope]:
    """Return all scopes that a request is admitted to."""
    found = set()
    for scope in Scope:
        try:
            await guard.authorize(scope, token, origin)
        except Forbidden:
            continue
        found.add(scope)
    return found


async def test_without_keys_local_clients_have_all_scopes_and_others_the_public_ones(tmp_path: Path) -> None:
    async with kept(tmp_path, on_loopback=True) as here, kept(tmp_path) as everywhere:
        for scope in Scope:
            assert await here.guard.authorize(scope, "", is_local=True) == Permissions(frozenset(Scope))
            # Keys that come along are not looked at.
            assert await here.guard.authorize(scope, generate_token(), is_local=True) == Permissions(frozenset(Scope))
        assert everywhere.guard.anonymous_permissions() == Permissions(PUBLIC)
        for scope in (IMPORT, QUERY, ADMIN):
            with pytest.raises(Unauthorized, match=f"a key with the scope {scope} is needed"):
                await everywhere.guard.authorize(scope, "", is_local=True)


async def test_clients_that_are_not_local_have_the_public_scopes(tmp_path: Path) -> None:
    async with kept(tmp_path, on_loopback=True) as there:
        assert there.guard.anonymous_permissions() == Permissions(PUBLIC)
        assert await there.guard.authorize(TICK, "") == Permissions(PUBLIC)
        with pytest.raises(Unauthorized):
            await there.guard.authorize(QUERY, "")


async def test_the_first_key_restricts_local_clients_even_after_the_state_is_lost(tmp_path: Path) -> None:
    async with kept(tmp_path, on_loopback=True) as there:
        assert there.guard.is_unrestricted
        await there.make("a", TICK)
        await there.keyring.refresh()
        assert there.guard.anonymous_permissions(is_local=True) == Permissions(PUBLIC)
        await there.state.remove(KEY_KIND, "a")
        await there.keyring.refresh()
        assert not there.guard.is_unrestricted
        with pytest.raises(Unauthorized):
            await there.guard.authorize(QUERY, "", is_local=True)


@pytest.mark.parametrize(
    ("scopes", "public", "expected"),
    [
        ((TICK,), NOTHING, {TICK}),
        ((IMPORT,), NOTHING, {TICK, IMPORT}),
        ((TOCK,), NOTHING, {TOCK}),
        ((QUERY,), NOTHING, {QUERY, TOCK}),
        ((ADMIN,), NOTHING, set(Scope)),
        ((QUERY,), PUBLIC, {QUERY, TOCK, TICK}),
        ((TICK,), frozenset({QUERY}), {TICK, QUERY, TOCK}),
        ((), NOTHING, set()),
    ],
)
async def test_a_key_allows_its_scopes_and_the_public_ones(
    tmp_path: Path, scopes: Sequence[Scope], public: frozenset[Scope], expected: set[Scope]
) -> None:
    async with kept(tmp_path, public, on_loopback=True) as there:
        token = await there.make("a", *scopes)
        await there.keyring.refresh()
        assert await allowed(there.guard, token) == expected


async def test_an_expired_revoked_or_unknown_key_allows_nothing_not_even_public_scopes(tmp_path: Path) -> None:
    async with kept(tmp_path) as there:
        ended = await there.make("ended", ADMIN, expires=CREATED)
        revoked = await there.make("revoked", ADMIN)
        await there.revoke("revoked")
        for token, why in (
            (ended, "'ended' expired on 2026"),
            (revoked, "'revoked' was revoked"),
            (generate_token(), "unknown"),
            ("x", "unknown"),
        ):
            for scope in (TICK, QUERY):
                with pytest.raises(Unauthorized, match=why):
                    await there.guard.authorize(scope, token)


async def test_a_key_expires_by_the_clock(tmp_path: Path) -> None:
    async with kept(tmp_path) as there:
        token = await there.make("a", QUERY, expires="2026-03-01T12:00:01.000Z")
        await there.guard.authorize(QUERY, token)
        key = await there.guard.find_key(token)
        assert key is not None
        assert there.guard.is_key_active(key)
        there.now += 1
        assert not there.guard.is_key_active(key)
        with pytest.raises(Unauthorized, match="expired"):
            await there.guard.authorize(QUERY, token)


async def test_an_invalid_key_can_be_ignored_if_requests_carry_keys_of_other_systems(tmp_path: Path) -> None:
    async with kept(tmp_path) as there:
        right = await there.make("right", IMPORT)
        revoked = await there.make("revoked", IMPORT)
        bound = await there.make("bound", IMPORT, origins=("https://example.org",))
        await there.revoke("revoked")
        for token in ("anonymous", generate_token(), revoked):
            assert await there.guard.authorize(TICK, token, ignore_invalid_key=True) == Permissions(PUBLIC)
            with pytest.raises(Unauthorized, match="a key with the scope import is needed"):
                await there.guard.authorize(IMPORT, token, ignore_invalid_key=True)
        assert (await there.guard.authorize(TICK, right, ignore_invalid_key=True)).key_name == "right"
        with pytest.raises(Forbidden):
            await there.guard.authorize(TICK, bound, ignore_invalid_key=True)


@pytest.mark.parametrize(
    ("origin", "error"),
    [
        ("https://example.org", None),
        ("http://localhost:3000", None),
        ("", Forbidden),
        ("null", Forbidden),
        ("http://example.org", Forbidden),
        ("https://example.org:8443", Forbidden),
        ("https://www.example.org", Forbidden),
        ("https://example.org.evil.example", Forbidden),
    ],
)
async def test_a_key_with_origins_is_rejected_from_others(
    tmp_path: Path, origin: str, error: type[MetronomeError] | None
) -> None:
    async with kept(tmp_path) as there:
        token = await there.make("a", QUERY, origins=("https://example.org", "http://localhost:3000"))
        if error is None:
            assert (await there.guard.authorize(QUERY, token, origin)).key_name == "a"
        else:
            with pytest.raises(error, match=r"only for requests from https://example\.org, http://localhost:3000"):
                await there.guard.authorize(QUERY, token, origin)


@pytest.mark.slow
async def test_a_new_key_is_accepted_by_the_next_request(tmp_path: Path) -> None:
    async with kept(tmp_path) as there, kept(tmp_path) as command:
        for number in range(5):
            token = await command.make(str(number), QUERY)
            assert (await there.guard.authorize(QUERY, token)).key_name == str(number)


class Slow(SQLiteState):
    """A state that says what it has read only when it is let."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reads = 0
        self.has_looked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def get_all(self, kind: str) -> dict[str, Record]:
        self.reads += 1
        records = await super().get_all(kind)
        self.has_looked.set()
        await self.may_answer.wait()
        return records


async def test_a_read_that_started_before_a_key_was_created_does_not_reject_it(tmp_path: Path) -> None:
    async with kept(tmp_path, open_state=Slow) as there:
        assert isinstance(there.state, Slow)
        there.state.may_answer.clear()
        there.state.has_looked.clear()
        early = asyncio.create_task(there.guard.find_key(generate_token()))
        await there.state.has_looked.wait()
        token = await there.make("a", QUERY)
        late = asyncio.create_task(there.guard.find_key(token))
        await asyncio.sleep(0)
        there.state.may_answer.set()
        assert await early is None
        found = await late
        assert found is not None
        assert found.name == "a"


async def test_unknown_keys_cause_few_reads_of_the_state(tmp_path: Path) -> None:
    async with kept(tmp_path, open_state=Slow) as there:
        assert isinstance(there.state, Slow)
        before = there.state.reads
        for _ in range(1000):
            assert await there.guard.find_key("the key of another system") is None
        assert there.state.reads == before
        assert await asyncio.gather(*(there.guard.find_key(generate_token()) for _ in range(1000))) == [None] * 1000
        # One for all of them, and one that is due each second.
        assert there.state.reads <= before + 2
        assert len(there.keyring._refresh_tasks) == 0, "what was read is forgotten"


@asynccontextmanager
async def away(folder: Path) -> AsyncIterator[None]:
    """Have the keys out of reach while the block runs."""
    with sqlite3.connect(folder / STATE_FILE_NAME) as database:
        database.execute("ALTER TABLE records RENAME TO elsewhere")
    yield
    with sqlite3.connect(folder / STATE_FILE_NAME) as database:
        database.execute("ALTER TABLE elsewhere RENAME TO records")
    database.close()


async def test_while_the_state_is_unavailable_known_keys_stay_valid_and_others_are_rejected(tmp_path: Path) -> None:
    async with kept(tmp_path, on_loopback=True) as there:
        query, ended = await there.make("query", QUERY), await there.make("ended", QUERY, expires=CREATED)
        await there.keyring.refresh()
        late = await there.make("late", QUERY)
        async with away(tmp_path):
            assert not await there.keyring.refresh()
            assert (await there.guard.authorize(QUERY, query)).key_name == "query"
            assert there.guard.anonymous_permissions() == Permissions(PUBLIC)
            with pytest.raises(Unauthorized, match="expired"):
                await there.guard.authorize(TICK, ended)
            # It may be a right one: whoever sends it shall come again.
            with pytest.raises(StoreUnavailable, match="cannot be read at the moment"):
                await there.guard.authorize(QUERY, late)
            with pytest.raises(Unauthorized, match="unknown"):
                await there.guard.authorize(QUERY, "what cannot be a key")
            assert await there.guard.authorize(TICK, late, ignore_invalid_key=True) == Permissions(PUBLIC)
            with pytest.raises(StoreUnavailable):
                await there.guard.authorize(QUERY, late, ignore_invalid_key=True)
        assert (await there.guard.authorize(QUERY, late)).key_name == "late"


async def test_if_the_state_is_unavailable_from_the_start_only_public_scopes_are_allowed(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.write_text("in the way")
    async with kept(folder, on_loopback=True) as there:
        assert there.guard.anonymous_permissions() == Permissions(PUBLIC)
        assert await there.guard.authorize(TICK, "") == Permissions(PUBLIC)
        with pytest.raises(Unauthorized):
            await there.guard.authorize(QUERY, "")
        with pytest.raises(StoreUnavailable):
            await there.guard.authorize(TICK, generate_token())
        folder.unlink()
        await there.keyring.refresh()
        assert there.guard.is_unrestricted


@pytest.mark.slow
async def test_a_state_that_does_not_respond_does_not_block_requests() -> None:
    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(be_silent, HERE, 0)
    state = ElasticsearchState(ElasticsearchConfig(f"http://{HERE}:{server.sockets[0].getsockname()[1]}"))
    keyring = KeyCache(state)
    async with keyring.keep_refreshed(first_timeout_seconds=0.1):
        guard = Authorizer(keyring, PUBLIC, lambda: NOW, on_loopback=True)
        assert guard.anonymous_permissions() == Permissions(PUBLIC)
        with pytest.raises(StoreUnavailable):
            await guard.authorize(TICK, generate_token())
    await state.close()
    server.close()
    await server.wait_closed()


async def test_an_invalid_record_allows_nothing_and_does_not_affect_other_keys(tmp_path: Path) -> None:
    async with kept(tmp_path, on_loopback=True) as there:
        assert await there.state.add(KEY_KIND, "odd", {"scopes": ["everything"]})
        await there.keyring.refresh()
        assert not there.guard.is_unrestricted
        token = await there.make("a", QUERY)
        assert (await there.guard.authorize(QUERY, token)).key_name == "a"


@pytest.mark.slow
async def test_a_revoked_key_is_rejected_without_a_cache_miss(tmp_path: Path) -> None:
    async with kept(tmp_path) as there, kept(tmp_path) as command:
        token = await there.make("a", QUERY)
        await there.guard.authorize(QUERY, token)
        await command.revoke("a")
        key: Key | None = None
        while key is None or there.guard.is_key_active(key):
            key = await there.guard.find_key(token)
            await asyncio.sleep(0.01)
        with pytest.raises(Unauthorized, match="'a' was revoked"):
            await there.guard.authorize(QUERY, token)
