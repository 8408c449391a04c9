"""``metronome keys`` creates, lists and revokes keys."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from metronome.auth.keys import KEY_KIND, is_token
from metronome.cli import app
from metronome.files import FolderLock
from metronome.state.base import Record
from metronome.state.sqlite import STATE_FILE_NAME, SQLiteState


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def keys(data: Path, *arguments: str) -> Any:
    created = ["--create"] if arguments[0] == "create" else []
    return CliRunner().invoke(app, ["keys", *arguments, *created, "--data", str(data)], env={"METRONOME_STORE": ""})


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


def test_prints_the_key_in_the_last_line_and_stores_it_nowhere(data: Path) -> None:
    result = keys(data, "create", "dashboard")
    *told, token = result.stdout.splitlines()
    assert result.exit_code == 0
    # What this closes.
    assert result.stderr.startswith("this is the first key: ")
    assert "--scope query" in result.stderr
    assert keys(data, "create", "second").stderr == ""
    assert is_token(token)
    assert result.stdout.endswith(f"{token}\n")
    assert not any(token in line for line in told)
    assert all(token.encode() not in path.read_bytes() for path in data.iterdir())
    assert token not in keys(data, "list").output + keys(data, "list", "--json").output


def test_prints_what_was_created(data: Path) -> None:
    arguments = ["--scope", "query", "--scope", "tick", "--scope", "query", "--expires", "90d"]
    result = keys(data, "create", "dashboard", *arguments, "--origin", "HTTPS://Example.org/")
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines()[:4])
    assert (rows["name"], rows["scopes"], rows["origins"]) == ("dashboard", "query, tick", "https://example.org")
    assert rows["expires"].endswith(" UTC")
    assert f"stored in  {data}" in result.stdout


def test_a_key_by_default_can_only_send_and_never_expires(data: Path) -> None:
    keys(data, "create", "site")
    (found,) = listed(data)
    assert (found["scopes"], found["origins"], found["expires"], found["state"]) == (["tick"], [], None, "active")


def test_names_are_never_reused(data: Path) -> None:
    assert keys(data, "create", "site").exit_code == 0
    before = records(data)
    for _ in range(2):
        result = keys(data, "create", "site", "--scope", "admin")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "the key name 'site' is already in use, or was: choose another one" in result.stderr
        assert records(data) == before
        keys(data, "revoke", "site")
        before = records(data)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", ""], "invalid key name ''"),
        (["create", "a\x1b[2Jb"], "expected 1 to 100 printable characters"),
        (["create", "x" * 101], "invalid key name"),
        (
            ["create", "a", "--expires", "soon"],
            "invalid --expires 'soon': expected a number and s, m, h, d or w",
        ),
        (["create", "a", "--expires", "0"], "omit it for a key that never expires"),
        (["create", "a", "--expires", "0d"], "invalid --expires '0d'"),
        (["create", "a", "--expires", "-1d"], "invalid --expires '-1d'"),
        (["create", "a", "--expires", "36501d"], "up to 36500d"),
        (["create", "a", "--origin", "example.org"], "invalid web origin 'example.org': expected a scheme and a host"),
        (["create", "a", "--origin", "null"], "invalid web origin"),
        (["create", "a", "--scope", "everything"], "'everything' is not one of 'tick'"),
        (["revoke", "a"], "unknown key 'a' in"),
    ],
)
def test_reports_invalid_arguments_and_changes_nothing(data: Path, arguments: list[str], said: str) -> None:
    result = keys(data, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in " ".join(result.stderr.replace("│", "").split())
    assert "\x1b[2J" not in result.stderr
    assert not data.exists()


def test_lists_all_keys_with_their_state(data: Path) -> None:
    keys(data, "create", "b site", "--origin", "https://a.example", "--origin", "https://b.example")
    keys(data, "create", "a dashboard", "--scope", "query", "--scope", "tock")
    keys(data, "revoke", "b site")
    (ended,) = [record for name, record in records(data).items() if name == "a dashboard"]
    put(data, "c ended", {**ended, "expires": "2015-01-22T09:30:00.000Z"})
    lines = keys(data, "list").stdout.splitlines()
    assert lines[0].split() == ["name", "scopes", "origins", "created", "expires", "state"]
    cells = [[cell.strip() for cell in line.split("  ") if cell] for line in lines[1:]]
    assert [(row[0], row[1], row[2], row[4], row[5]) for row in cells] == [
        ("a dashboard", "query,tock", "any", "never", "active"),
        ("b site", "tick", "https://a.example,https://b.example", "never", "revoked"),
        ("c ended", "query,tock", "any", "2015-01-22 09:30 UTC", "expired"),
    ]
    assert [(key["name"], key["state"]) for key in listed(data)] == [(row[0], row[5]) for row in cells]


def test_an_empty_list_names_the_data_folder_and_creates_nothing(data: Path) -> None:
    result = keys(data, "list")
    assert (result.exit_code, result.stdout) == (0, f"no keys yet in {data}; create one with `metronome keys create`\n")
    assert listed(data) == []
    assert not data.exists()


def test_a_revoked_key_remains_in_the_list(data: Path) -> None:
    keys(data, "create", "site")
    assert "revoked key 'site'" in keys(data, "revoke", "site").stdout
    (before,) = listed(data)
    again = keys(data, "revoke", "site")
    assert (again.exit_code, "was already revoked on " in again.stdout) == (0, True)
    assert listed(data) == [before]
    assert before["state"] == "revoked"


def test_replaces_control_characters_and_reports_invalid_records(data: Path) -> None:
    keys(data, "create", "site")
    put(data, "a\x1b[2J\nb", records(data)["site"])
    put(data, "odd", {"scopes": ["everything"]})
    result = keys(data, "list")
    assert result.exit_code == 0
    assert "a\ufffd[2J\ufffdb" in result.stdout
    assert "\x1b" not in result.output
    assert "metronome keys list: the stored key 'odd' cannot be read" in result.stderr
    assert keys(data, "revoke", "odd").exit_code == 0


@pytest.mark.parametrize("arguments", [["create", "a"], ["list"], ["revoke", "a"]])
def test_reports_an_unavailable_state(data: Path, arguments: list[str]) -> None:
    data.mkdir()
    (data / STATE_FILE_NAME).mkdir()
    result = keys(data, *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"metronome keys {arguments[0]}: ")
    away = keys(data, *arguments, "--store", "http://me:secret@127.0.0.1:1")
    assert (away.exit_code, away.stdout) == (1, "")
    assert away.stderr
    assert "secret" not in away.stderr


def test_reports_an_invalid_setting_by_its_name(data: Path) -> None:
    result = keys(data, "list", "--store", "nowhere")
    assert result.exit_code == 2
    assert "invalid METRONOME_STORE: " in result.stderr


def test_a_key_in_a_folder_that_no_server_has_used_needs_the_option_create(data: Path) -> None:
    arguments = ["keys", "create", "site", "--data", str(data)]
    refused = CliRunner().invoke(app, arguments)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"no server has used the data folder {data}" in refused.stderr
    assert "with --create" in refused.stderr
    assert not data.exists()
    assert CliRunner().invoke(app, [*arguments, "--create"]).exit_code == 0
    # The first key makes it a data folder.
    assert CliRunner().invoke(app, ["keys", "create", "page", "--data", str(data)]).exit_code == 0
    assert [key["name"] for key in listed(data)] == ["page", "site"]


def test_a_folder_that_a_server_has_locked_is_a_data_folder(data: Path) -> None:
    FolderLock(data).release()
    assert CliRunner().invoke(app, ["keys", "create", "site", "--data", str(data)]).exit_code == 0
