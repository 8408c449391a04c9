"""``metronome keys`` makes keys that nobody sees twice, lists what there is of them, and revokes them."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from metronome.auth.keys import KEY_KIND, is_token
from metronome.cli import app
from metronome.state.base import Record
from metronome.state.sqlite import STATE_FILE_NAME, SQLiteState


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def keys(data: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["keys", *arguments, "--data", str(data)], env={"METRONOME_STORE": ""})


def listed(data: Path) -> list[dict[str, Any]]:
    result = keys(data, "list", "--json")
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = orjson.loads(result.stdout)
    return found


def records(data: Path) -> dict[str, Record]:
    async def read() -> dict[str, Record]:
        state = SQLiteState(data)
        found = await state.get_all(KEY_KIND)
        await state.close()
        return found

    return asyncio.run(read())


def put(data: Path, name: str, record: Record) -> None:
    async def add() -> None:
        state = SQLiteState(data)
        assert await state.add(KEY_KIND, name, record)
        await state.close()

    asyncio.run(add())


def test_a_key_is_the_last_line_and_stands_nowhere_else(data: Path) -> None:
    result = keys(data, "create", "dashboard")
    *told, token = result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (0, "")
    assert is_token(token)
    assert result.stdout.endswith(f"{token}\n")
    assert not any(token in line for line in told)
    assert all(token.encode() not in path.read_bytes() for path in data.iterdir())
    assert token not in keys(data, "list").output + keys(data, "list", "--json").output


def test_what_was_made_is_told(data: Path) -> None:
    arguments = ["--scope", "query", "--scope", "tick", "--scope", "query", "--expires", "90d"]
    result = keys(data, "create", "dashboard", *arguments, "--origin", "HTTPS://Example.org/")
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines()[:4])
    assert (rows["key"], rows["allows"], rows["from"]) == ("dashboard", "query, tick", "https://example.org")
    assert rows["ends"].endswith(" UTC")
    assert f"kept in {data}" in result.stdout


def test_without_more_a_key_may_send_and_nothing_else_and_never_ends(data: Path) -> None:
    keys(data, "create", "site")
    (found,) = listed(data)
    assert (found["scopes"], found["origins"], found["expires"], found["state"]) == (["tick"], [], None, "active")


def test_a_name_is_taken_for_ever(data: Path) -> None:
    assert keys(data, "create", "site").exit_code == 0
    before = records(data)
    for _ in range(2):
        result = keys(data, "create", "site", "--scope", "admin")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "there is a key 'site' already, or was one" in result.stderr
        assert "Choose another" in result.stderr
        assert records(data) == before
        keys(data, "revoke", "site")
        before = records(data)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", ""], "'' cannot name a key"),
        (["create", "a\x1b[2Jb"], "cannot name a key: write up to 100 printable characters"),
        (["create", "x" * 101], "cannot name a key"),
        (["create", "a", "--expires", "soon"], "--expires is 'soon': write a number and s, m, h, d or w, as 90d"),
        (["create", "a", "--expires", "0"], "leave it out for a key that never ends"),
        (["create", "a", "--expires", "0d"], "--expires is '0d'"),
        (["create", "a", "--expires", "-1d"], "--expires is '-1d'"),
        (["create", "a", "--expires", "36501d"], "up to 36500d"),
        (["create", "a", "--origin", "example.org"], "'example.org' is no web origin: write a scheme and a host"),
        (["create", "a", "--origin", "null"], "is no web origin"),
        (["create", "a", "--scope", "everything"], "'everything' is not one of 'tick'"),
        (["revoke", "a"], "there is no key 'a' in"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence_and_changes_nothing(
    data: Path, arguments: list[str], said: str
) -> None:
    result = keys(data, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in " ".join(result.stderr.replace("│", "").split())
    assert "\x1b[2J" not in result.stderr
    assert not data.exists()


def test_a_list_shows_each_key_and_how_it_is(data: Path) -> None:
    keys(data, "create", "b site", "--origin", "https://a.example", "--origin", "https://b.example")
    keys(data, "create", "a dashboard", "--scope", "query", "--scope", "tock")
    keys(data, "revoke", "b site")
    (ended,) = [record for name, record in records(data).items() if name == "a dashboard"]
    put(data, "c ended", {**ended, "expires": "2015-01-22T09:30:00.000Z"})
    lines = keys(data, "list").stdout.splitlines()
    assert lines[0].split() == ["name", "scopes", "origins", "created", "expires", "state"]
    cells = [[cell.strip() for cell in line.split("  ") if cell] for line in lines[1:]]
    assert [(row[0], row[1], row[2], row[4], row[5]) for row in cells] == [
        ("a dashboard", "query,tock", "anywhere", "never", "active"),
        ("b site", "tick", "https://a.example,https://b.example", "never", "revoked"),
        ("c ended", "query,tock", "anywhere", "2015-01-22 09:30 UTC", "expired"),
    ]
    assert [(key["name"], key["state"]) for key in listed(data)] == [(row[0], row[5]) for row in cells]


def test_where_there_are_no_keys_the_list_says_where_it_looked_and_makes_nothing(data: Path) -> None:
    result = keys(data, "list")
    assert (result.exit_code, result.stdout) == (0, f"no keys yet in {data}; make one with metronome keys create\n")
    assert listed(data) == []
    assert not data.exists()


def test_a_revoked_key_stays_listed_with_the_time_of_the_first_revocation(data: Path) -> None:
    keys(data, "create", "site")
    assert "the key 'site' is revoked" in keys(data, "revoke", "site").stdout
    (before,) = listed(data)
    again = keys(data, "revoke", "site")
    assert (again.exit_code, "was revoked already, on " in again.stdout) == (0, True)
    assert listed(data) == [before]
    assert before["state"] == "revoked"


def test_names_and_records_that_others_wrote_do_not_steer_a_terminal(data: Path) -> None:
    keys(data, "create", "site")
    put(data, "a\x1b[2J\nb", records(data)["site"])
    put(data, "odd", {"scopes": ["everything"]})
    result = keys(data, "list")
    assert result.exit_code == 0
    assert "a\ufffd[2J\ufffdb" in result.stdout
    assert "\x1b" not in result.output
    assert "metronome keys list: the record of the key 'odd' cannot be read" in result.stderr
    assert keys(data, "revoke", "odd").exit_code == 0


@pytest.mark.parametrize("arguments", [["create", "a"], ["list"], ["revoke", "a"]])
def test_a_state_that_cannot_be_reached_is_told_with_what_to_do(data: Path, arguments: list[str]) -> None:
    data.mkdir()
    (data / STATE_FILE_NAME).mkdir()
    result = keys(data, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"metronome keys {arguments[0]}: ")
    assert "see that --data and --store are the server's, and that this user can reach and write" in result.stderr
    away = keys(data, *arguments, "--store", "http://me:secret@127.0.0.1:1")
    assert (away.exit_code, away.stdout) == (2, "")
    assert "does not answer" in away.stderr
    assert "secret" not in away.stderr


def test_a_wrong_setting_is_told_by_its_name(data: Path) -> None:
    result = keys(data, "list", "--store", "nowhere")
    assert result.exit_code == 2
    assert "METRONOME_STORE is not right" in result.stderr
