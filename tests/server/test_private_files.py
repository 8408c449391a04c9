"""Who can read the data folder, secrets, and what a server runs."""

import grp
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from metronome.errors import ConfigurationError
from metronome.files import protect_data_folder
from tests.attacks import exchange_bytes
from tests.servers import run_metronome, running_server


@pytest.fixture(autouse=True)
def _keep_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    """Return the modes of a folder and of all that is in it."""
    paths = (folder, *folder.rglob("*"))
    return {str(path.relative_to(folder)): oct(stat.S_IMODE(path.stat().st_mode)) for path in paths}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_only_the_servers_user_can_read_its_data(tmp_path: Path, workers: int) -> None:
    data = tmp_path / "data"
    # As an earlier version left it.
    (data / "spool" / "0").mkdir(parents=True)
    (data / "dead").mkdir()
    (data / "dead" / "2015-01-22.ndjson").write_text("")
    with running_server(data, workers=workers) as server:
        assert run_metronome("keys", "create", "a", data=data).exit_code == 0
        exchange_bytes(server.port, b'POST /tick HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"id":"a"}')
        found = modes(data)
        assert {"metronome.duckdb", "spool/0/spool.sqlite", "state.sqlite"} <= set(found)
        assert {name: mode for name, mode in found.items() if mode not in {"0o600", "0o700"}} == {}


def test_a_group_can_read_the_data_folder_and_not_change_it(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getegid()).gr_name
    (tmp_path / "dead").mkdir()
    (tmp_path / "state.sqlite").touch()
    assert protect_data_folder(tmp_path, group) == []
    (tmp_path / "new").touch()
    assert modes(tmp_path) == {".": "0o750", "dead": "0o750", "state.sqlite": "0o640", "new": "0o640"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to a group that it is not in")
def test_new_files_belong_to_the_group(tmp_path: Path) -> None:
    group = next(each for each in grp.getgrall() if each.gr_gid != os.getegid())
    protect_data_folder(tmp_path, group.gr_name)
    (tmp_path / "new").touch()
    assert (tmp_path / "new").stat().st_gid == group.gr_gid


def test_leaves_files_of_others_in_the_data_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "run.sh").touch(0o755)
    (tmp_path / "elsewhere").touch(0o644)
    (tmp_path / "dead").symlink_to(tmp_path / "elsewhere")
    protect_data_folder(tmp_path)
    assert modes(tmp_path) == {".": "0o700", "run.sh": "0o755", "elsewhere": "0o644", "dead": "0o644"}


def test_rejects_a_group_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="invalid METRONOME_DATA_GROUP 'nobody-knows-it': no such group"):
        protect_data_folder(tmp_path, "nobody-knows-it")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("store-api-key", "c2VjcmV0"),
        ("store", "https://elastic:c2VjcmV0@localhost:9200"),
        ("forward-shared-key", "c2VjcmV0"),
        ("forward-users", "alice:c2VjcmV0"),
        ("microticks-key", "c2VjcmV0"),
    ],
)
def test_says_where_a_secret_on_the_command_line_belongs(tmp_path: Path, option: str, value: str) -> None:
    result = run_metronome("serve", f"--{option}", value, data=tmp_path)
    variable = f"METRONOME_{option.upper().replace('-', '_')}"
    assert result.exit_code == 2
    assert f"set {variable} in the environment, or {variable}_FILE to the path of a file" in result.stderr
    assert "c2VjcmV0" not in result.stderr


def test_responses_do_not_tell_the_versions_that_run(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        for request_head in (b"GET /health/live HTTP/1.1\r\nHost: x", b"NONSENSE", b"GET /unknown HTTP/1.1\r\nHost: x"):
            with socket.create_connection(("127.0.0.1", server.port), 30) as client:
                client.sendall(request_head + b"\r\n\r\n")
                head = client.recv(65536).partition(b"\r\n\r\n")[0].lower() + b"\r\n"
            assert b"server: metronome\r\n" in head
            assert b"aiohttp" not in head
            assert b"python" not in head
