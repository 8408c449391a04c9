"""Each line of a growing log becomes an event once, whatever the pieces in which it grows."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from metronome.errors import ConfigurationError
from metronome.importer.batches import ImportConfig, LogBatch, iterate_batches
from metronome.importer.files import LogFile, is_compressed
from metronome.importer.follow import FollowedLog, Position, PositionStore, default_positions_file, list_rotated_logs
from metronome.importer.summary import ImportSummary
from metronome.items import ItemPattern
from metronome.protocols.access_logs.reader import get_format

CONFIG = ImportConfig(ItemPattern(), frozenset(), None, 3)
COMBINED = ImportConfig(ItemPattern(), frozenset(), get_format("combined"), 3)
LINES = [b'192.0.2.1 - - [17/May/2025:10:05:%02d +0000] "GET /a HTTP/1.1" 200 5\n' % second for second in range(30)]
URL = "http://127.0.0.1:8080"


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


def events_of(sent: list[LogBatch]) -> list[dict[str, object]]:
    return [orjson.loads(line) for batch in sent for line in batch.body.splitlines()]


class Growing:
    """A followed log, and the batches sent from it."""

    def __init__(self, folder: Path, config: ImportConfig = CONFIG) -> None:
        self.path = folder / "access.log"
        self.path.touch()
        self.config = config
        self.sent: list[LogBatch] = []
        self.summary = ImportSummary()
        self.log = self.open(0)

    def open(self, offset: int) -> FollowedLog:
        return FollowedLog(self.path, self.config, self.summary, lambda _fingerprint, _inode: offset, self.sent.append)

    def write(self, text: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(text)

    def read(self) -> None:
        while self.log.read():
            pass

    def acknowledge(self) -> int:
        for batch in self.sent:
            batch.on_acknowledged()
        return self.log.position(URL, self.path).offset


PIECE = st.one_of(
    st.sampled_from([*LINES, b"\n", b"\r\n", b" ", b"what\n", b"x" * 70_000, LINES[0][:30], LINES[0][30:]]),
    st.binary(max_size=5),
)


@given(st.lists(PIECE, max_size=15), st.integers(0, 14))
def test_a_growing_log_gives_the_same_events_as_the_whole_log(pieces: list[bytes], restart: int) -> None:
    assume(not is_compressed(b"".join(pieces)))
    with TemporaryDirectory() as name:
        growing = Growing(Path(name), COMBINED)
        for number, piece in enumerate(pieces):
            growing.write(piece)
            growing.read()
            growing.log.flush(is_quiet=number % 2 == 0)
            if number == restart:
                growing.log.flush(is_quiet=True)
                offset = growing.acknowledge()
                growing.log.close()
                growing.log = growing.open(offset)
        growing.read()
        growing.log.finish()
        growing.log.close()
        with LogFile(str(growing.path)) as file:
            whole = events_of(list(iterate_batches(file, COMBINED, ImportSummary())))
    if growing.log.fingerprint is not None:
        assert events_of(growing.sent) == whole


def test_the_position_is_what_was_acknowledged(folder: Path) -> None:
    growing = Growing(folder)
    growing.write(b"".join(LINES[:7]))
    growing.read()
    assert [len(batch.positions) for batch in growing.sent] == [3, 3]
    first, second = growing.sent
    ends = [sum(map(len, LINES[:count])) for count in (3, 6, 7)]

    def offset() -> int:
        return growing.log.position(URL, growing.path).offset

    assert offset() == 0
    first.on_acknowledged()
    assert offset() == ends[0]
    second.on_acknowledged()
    assert offset() == ends[1]
    growing.log.flush(is_quiet=False)
    assert len(growing.sent) == 2
    growing.log.flush(is_quiet=True)
    assert offset() == ends[1]
    growing.sent[-1].on_acknowledged()
    assert offset() == ends[2]


@pytest.mark.parametrize("offset", [-5, 1, 40, 10**9])
def test_starts_at_the_beginning_if_the_position_is_invalid(folder: Path, offset: int) -> None:
    growing = Growing(folder)
    growing.write(b"".join(LINES))
    growing.log = growing.open(offset)
    growing.read()
    growing.log.flush(is_quiet=True)
    assert len(events_of(growing.sent)) == len(LINES)


@pytest.mark.parametrize("regrown", [b"", LINES[9], b"".join(LINES[9:20])])
def test_a_truncated_log_is_a_new_log(folder: Path, regrown: bytes) -> None:
    growing = Growing(folder)
    growing.write(b"".join(LINES[:5]))
    growing.read()
    growing.path.write_bytes(regrown)
    assert not growing.log.read()
    assert growing.log.truncated
    assert len(growing.sent) == 1


def test_gives_up_a_log_of_unknown_format_after_enough_lines(folder: Path) -> None:
    growing = Growing(folder)
    growing.write(b"dear diary\n" * 199)
    growing.read()
    assert growing.log.read_error is None
    growing.write(b"dear diary\n")
    growing.read()
    assert "unknown log format" in str(growing.log.read_error)
    growing.write(LINES[0])
    growing.read()
    assert growing.sent == []


def test_says_soon_that_no_line_can_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Growing(folder)
    growing.write(b"#Fields: date time cs-uri-stem\n")
    growing.read()
    assert growing.log.notice is None
    growing.path.write_bytes(b"")
    growing = Growing(folder)
    growing.write(b"dear diary\n")
    growing.read()
    assert "The first line is 'dear diary'" in str(growing.log.notice)
    assert not growing.log.has_waited
    monkeypatch.setattr("metronome.importer.follow._NOTICE_SECONDS", 0.0)
    assert growing.log.has_waited
    growing.write(LINES[0])
    growing.read()
    assert growing.log.notice is None


def test_waits_for_enough_lines_to_identify_a_log(folder: Path) -> None:
    growing = Growing(folder)
    growing.write(b"#Software: a\n#Fields: date time cs-uri-stem\n")
    growing.read()
    assert growing.log.fingerprint is None
    assert growing.log.position(URL, growing.path).fingerprint == ""
    growing.write(b"2025-05-17 10:05:03 /a\n")
    growing.read()
    growing.log.flush(is_quiet=True)
    assert [event["url"] for event in events_of(growing.sent)] == ["/a"]
    assert growing.summary.skipped == 2


def position(offset: int = 7, changed: int = 4 * 10**18, path: str = "/a", url: str = URL) -> Position:
    return Position(url, path, "00ff", (1, 2), offset, changed)


def test_stores_positions_by_log_and_server(folder: Path) -> None:
    file = folder / "deep" / "positions.json"
    positions = PositionStore(file)
    positions.save([position(), position(path="/b", offset=9), position(url="http://x", offset=11)])
    again = PositionStore(file)
    assert again.for_path(URL, Path("/a")) == [position()]
    assert again.acknowledged_offset(URL, b"\0\xff") == 9
    assert again.acknowledged_offset("http://x", b"\0\xff", (1, 2)) == 11
    assert again.acknowledged_offset("http://x", b"\0\xff", (1, 3)) == 0
    assert again.acknowledged_offset(URL, b"\1") == 0


def test_keeps_the_positions_of_other_processes(folder: Path) -> None:
    file = folder / "positions.json"
    one, other = PositionStore(file), PositionStore(file)
    one.save([position(path="/one")])
    other.save([position(path="/other"), position(path="/old", changed=1)])
    one.save([position(path="/one", offset=8), position(path="/new")])
    assert [len(PositionStore(file).for_path(URL, Path(path))) for path in ("/one", "/other", "/new")] == [1, 1, 1]
    one.save([])
    assert PositionStore(file).for_path(URL, Path("/one")) == []
    dropping = PositionStore(file)
    dropping.remove(position(path="/other"))
    dropping.save([])
    assert PositionStore(file).for_path(URL, Path("/other")) == []
    assert [found.name for found in folder.iterdir()] == ["positions.json"]


def test_reports_a_positions_file_that_cannot_be_written(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot create the folder of --positions"):
        PositionStore(folder / "file" / "x.json")
    (folder / "x.json").mkdir()
    with pytest.raises(ConfigurationError, match="cannot write --positions"):
        PositionStore(folder / "x.json").save([position()])


def test_the_default_positions_file_is_in_the_users_state_folder() -> None:
    assert default_positions_file().parts[-2:] == ("metronome", "positions.json")
    assert default_positions_file().is_absolute()


def test_lists_rotated_logs_oldest_first(folder: Path) -> None:
    log = folder / "access.log"
    names = ["access.log", "access.log.1", "access.log-20250517", "access.log.2.gz", "access.log.2", "x"]
    others = ["access.logs", "access-tls.log", "access.log.d", "access.log.error", "other-20250517.log"]
    for age, name in enumerate([*names, "access-20250516.log.gz", *others]):
        (folder / name).touch()
        os.utime(folder / name, ns=(0, 10**18 - age * 10**9))
    (folder / "access.log.3").mkdir()
    found = (folder / "x").stat()
    since = 10**18 - 4 * 10**9

    def listed(since: int) -> list[str]:
        return [one.path.name for one in list_rotated_logs(log, since, frozenset({(found.st_dev, found.st_ino)}))]

    assert listed(0) == ["access-20250516.log.gz", "x", "access.log.2", "access.log-20250517", "access.log.1"]
    assert listed(since) == ["access.log.2", "access.log-20250517", "access.log.1"]
    assert listed(10**18) == []


def test_lists_the_files_of_other_days_of_a_symbolic_link(folder: Path) -> None:
    folder = folder.resolve()
    names = ["2015/05/16/access.log", "2015/05/15/access.log.gz", "2015/05/17/access.log", "2014/12/31/access.log"]
    others = ["2015/05/16/error.log", "2015/5/1/access.log", "2015/05/16/access.log.bak2", "x/access.log"]
    for number, name in enumerate([*names, *others]):
        file = folder / "logs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
        os.utime(file, (1000 + number, 1000 + number))
    os.utime(folder / "logs" / names[3], (10, 10))
    link = folder / "current"
    link.symlink_to(folder / "logs" / names[2])
    found = [str(file.path.relative_to(folder / "logs")) for file in list_rotated_logs(link, 900 * 10**9)]
    assert found == ["2015/05/16/access.log", "2015/05/15/access.log.gz"]


def test_lists_the_rotated_logs_in_the_folder_of_a_symbolic_links_target(folder: Path) -> None:
    folder = folder.resolve()
    (folder / "data").mkdir()
    for name in ("web.log", "web.log.1", "web.log.2.gz", "api.log.1"):
        (folder / "data" / name).write_bytes(b"x")
    link = folder / "access.log"
    link.symlink_to(folder / "data" / "web.log")
    assert {file.path.name for file in list_rotated_logs(link, 0)} == {"web.log.1", "web.log.2.gz"}
