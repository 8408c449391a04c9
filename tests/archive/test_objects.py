"""Archives in S3 and in folders keep what every archive promises, and say what is wrong and what to do."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metronome.archive.base import Archive
from metronome.archive.objects import open_archive
from metronome.errors import ArchiveAccessDenied, ArchiveUnavailable, ConfigurationError, MetronomeError
from tests.contracts.archive_contract import ArchiveContractTests
from tests.s3_server import S3Server, running_s3_server
from tests.servers import free_port


class TestFolder(ArchiveContractTests):
    @pytest.fixture
    def archive(self, tmp_path: Path) -> Archive:
        return open_archive(f"file://{tmp_path}/long term/archive", create=True)


@pytest.mark.usefixtures("s3_environment")
class TestS3(ArchiveContractTests):
    @pytest.fixture
    def archive(self, s3: S3Server) -> Archive:
        return open_archive(f"s3://{s3.create_unique_bucket()}/some/prefix")


@pytest.mark.usefixtures("s3_environment")
class TestS3WithoutPrefix(ArchiveContractTests):
    @pytest.fixture
    def archive(self, s3: S3Server) -> Archive:
        return open_archive(f"s3://{s3.create_unique_bucket()}")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "invalid archive '': expected s3://bucket/prefix"),
        ("bucket/prefix", "invalid archive"),
        ("ftp://host/x", "invalid archive"),
        ("memory:///", "invalid archive"),
        ("s3:///prefix", "expected s3://bucket/prefix"),
        ("file://folder", "with three slashes"),
        ("file:folder", "with three slashes"),
        ("az://container/x", "invalid archive .*Account must be specified"),
    ],
)
def test_rejects_an_invalid_url_with_the_expected_form(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        open_archive(url)


@pytest.mark.usefixtures("s3_environment")
async def test_distinguishes_a_missing_bucket_from_a_missing_object() -> None:
    archive = open_archive("s3://no-such-bucket/x")
    for attempt in (archive.put("a", b"x"), archive.ping(), archive.get("a")):
        with pytest.raises(ArchiveAccessDenied, match="the bucket of s3://no-such-bucket/x does not exist"):
            await attempt
    with pytest.raises(ArchiveAccessDenied, match=r"the bucket of .* does not exist"):
        [one async for one in archive.iterate_objects()]


@pytest.mark.usefixtures("s3_environment")
async def test_an_unreachable_server_can_be_retried(s3: S3Server) -> None:
    port, bucket = free_port(), s3.create_unique_bucket()
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    archive = open_archive(f"s3://{bucket}/x")
    with pytest.raises(ArchiveUnavailable, match=f"s3://{bucket}/x is not available") as raised:
        await archive.put("a", b"x")
    assert "\n" not in str(raised.value)
    assert raised.value.retry
    with running_s3_server(port), pytest.raises(ArchiveAccessDenied, match=r"the bucket of .* does not exist"):
        await archive.put("a", b"x")


async def test_reports_a_folder_that_cannot_be_created_or_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveAccessDenied, match="cannot use the folder"):
        open_archive(f"file://{tmp_path}/file/archive", create=True)
    with pytest.raises(ArchiveAccessDenied, match=f"the folder {tmp_path}/archive does not exist"):
        open_archive(f"file://{tmp_path}/archive")
    archive = open_archive(f"file://{tmp_path}/archive", create=True)
    (tmp_path / "archive" / "2015").write_text("in the way")
    with pytest.raises(MetronomeError, match="the folder") as raised:
        await archive.put("2015/01/a", b"x")
    assert raised.value.retry


KILLED = """
import asyncio, sys
from metronome.archive.objects import open_archive
async def main():
    archive = open_archive(sys.argv[1], create=True)
    for number in range(10**6):
        await archive.put(f"{number}", b"x" * 3_000_000)
        print(number, flush=True)
asyncio.run(main())
"""


def count_objects_of_killed_process(url: str) -> int:
    """Store objects in a process that is killed, and return how many it has stored at least."""
    with subprocess.Popen([sys.executable, "-c", KILLED, url], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)
        process.kill()
        return process.stdout.read().count(b"\n") + 1


async def test_a_killed_process_leaves_only_complete_objects(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/archive"
    put = await asyncio.to_thread(count_objects_of_killed_process, url)
    archive = open_archive(url)
    listed = [one async for one in archive.iterate_objects()]
    assert {one.size for one in listed} == {3_000_000}
    assert put <= len(listed) <= put + 1
    await asyncio.gather(*(archive.put(f"{number}", b"again") for number in range(put + 2)))
    assert {one.size async for one in archive.iterate_objects()} == {5}
