"""Archives in S3 and what is compatible with it, in Google Cloud Storage, in Azure, and in folders.

Credentials, regions and endpoints are those that the providers' own tools read from the environment
(``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ``GOOGLE_APPLICATION_CREDENTIALS``, ``AZURE_STORAGE_ACCOUNT_NAME``, …).

Work that blocks, in threads that nobody has to wait for.
"""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, ObjectStore, from_url

from metronome.archive.base import Archive, ObjectInfo
from metronome.errors import ArchiveAccessDenied, ArchiveDamaged, ArchiveUnavailable, ConfigurationError, MetronomeError
from metronome.files import fsync_path

if TYPE_CHECKING:
    # These are there for types only.
    from obstore.store import ClientConfig, RetryConfig


T = TypeVar("T")


async def run_in_daemon_thread(function: Callable[[], T]) -> T:
    """Return what *function* does, in a thread of its own.

    Those of `asyncio.to_thread` are few and shared, and a process waits for them as it ends: a call that a silent
    server keeps for half a minute would hold up both. This one is left alone once nobody waits for it.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(result)  # type: ignore[arg-type]  # without an error it is what work returned
        else:
            done.set_exception(error)

    def run() -> None:
        result, problem = None, None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001  # it is raised where the result is waited for
            problem = error
        # The loop is closed already where nobody waits any more.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=run, name="archive", daemon=True).start()
    return await done


ListPage = Sequence[Any]
"""Objects as the library lists them, each with ``path`` and ``size``."""

SCHEMES: Final = ("s3", "gs", "az", "file")
_STATUS_PATTERN: Final = re.compile(r"status code: (\d{3})")
_ERROR_CODE_PATTERN: Final = re.compile(r"<Code>(\w+)</Code>")
_BUCKET_MISSING_PATTERN: Final = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist")
_DENIED_STATUSES: Final = frozenset({"401", "403"})
_NOT_FOUND_STATUS: Final = "404"
_MESSAGE_MAX_CHARACTERS: Final = 300
_PAGE_SIZE: Final = 1000
# Whoever calls tries again at growing pauses, and says so in the log.
_NO_RETRIES: "Final[RetryConfig]" = {"max_retries": 0, "retry_timeout": timedelta(seconds=30)}
# Whether an endpoint is spoken to in plain text is said by its address.
_CLIENT_OPTIONS: "Final[ClientConfig]" = {"connect_timeout": "5s", "timeout": "30s", "allow_http": True}


def open_archive(url: str, *, create: bool = False) -> Archive:
    """Open the archive that an address names; nothing is asked of a bucket yet.

    Args:
        url: ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://container/prefix`` or ``file:///folder``.
        create: whether a folder that is not there is made.

    Raises:
        ConfigurationError: it is none of these, or what it needs beside it is not in the environment.
        ArchiveAccessDenied: there is no such folder, or it cannot be made.

    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ConfigurationError(
            f"{url!r} names no archive: write s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or "
            "file:///folder"
        )
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise ConfigurationError(f"{url!r} names no folder: write it as file:///folder, with three slashes")
        return _FolderArchive(Path(unquote(parts.path)), create=create)
    if not parts.netloc:
        raise ConfigurationError(f"{url!r} names no bucket: write {parts.scheme}://bucket/prefix")
    try:
        return ObjectStoreArchive(from_url(url, retry_config=_NO_RETRIES, client_options=_CLIENT_OPTIONS), url)
    except (BaseError, ValueError) as error:
        raise ConfigurationError(f"{url!r} cannot be used as an archive: {_first_line(error)}") from None


class ObjectStoreArchive(Archive):
    """An archive of objects.

    The library is asked in threads, and not in its own event loop: that calls back from threads that Python knows
    nothing of, and one that does so as the process ends would abort it.

    Args:
        store: where they are.
        name: what messages call it.

    """

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self._name = name

    async def put(self, path: str, body: bytes) -> None:
        """Put an object (see `Archive.put`)."""
        await run_in_daemon_thread(partial(self._put, path, body))

    async def get(self, path: str) -> bytes:
        """Return an object (see `Archive.get`)."""
        return await run_in_daemon_thread(partial(self._get, path))

    async def iterate_objects(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield objects (see `Archive.entries`)."""
        pages = await run_in_daemon_thread(partial(self._open_listing, prefix))
        while (page := await run_in_daemon_thread(partial(self._next_page, pages))) is not None:
            for entry in page:
                yield entry

    async def ping(self) -> None:
        """Ask for the first objects (see `Archive.ping`)."""
        await run_in_daemon_thread(lambda: self._next_page(self._open_listing("manifests", 1)))

    def _put(self, path: str, body: bytes) -> None:
        with self._translate_errors():
            obstore.put(self._store, path, body, use_multipart=False)

    def _get(self, path: str) -> bytes:
        with self._translate_errors(path):
            return bytes(obstore.get(self._store, path).bytes())

    def _open_listing(self, prefix: str, size: int = _PAGE_SIZE) -> Iterator[ListPage]:
        with self._translate_errors():
            return iter(obstore.list(self._store, prefix or None, chunk_size=size))

    def _next_page(self, pages: Iterator[ListPage]) -> list[ObjectInfo] | None:
        with self._translate_errors():
            page = next(pages, None)
        return None if page is None else [ObjectInfo(one["path"], one["size"]) for one in page]

    @contextmanager
    def _translate_errors(self, path: str = "") -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            raise self._translate_error(error, path) from None

    def _translate_error(self, error: Exception, path: str) -> MetronomeError:
        text = str(error)
        status = _STATUS_PATTERN.search(text)
        code = status[1] if status else ""
        if (
            isinstance(error, (PermissionDeniedError, PermissionError, UnauthenticatedError))
            or code in _DENIED_STATUSES
        ):
            said = _ERROR_CODE_PATTERN.search(text)
            return ArchiveAccessDenied(f"{self._name} denies access: {said[1] if said else _first_line(error)}")
        if _BUCKET_MISSING_PATTERN.search(text):
            return ArchiveAccessDenied(f"there is no bucket for {self._name}")
        if isinstance(error, FileNotFoundError) or code == _NOT_FOUND_STATUS:
            return (
                ArchiveDamaged(f"{path} is missing in {self._name}")
                if path
                else ArchiveAccessDenied(f"there is no {self._name}")
            )
        return ArchiveUnavailable(f"{self._name} is not available: {_first_line(error)}")


class _FolderArchive(ObjectStoreArchive):
    """An archive in a folder, whose files are brought to the disk before they count."""

    def __init__(self, folder: Path, *, create: bool) -> None:
        if not create and not folder.is_dir():
            raise ArchiveAccessDenied(f"there is no folder {folder}")
        try:
            store = LocalStore(folder, mkdir=create)
        except (BaseError, OSError) as error:
            raise ArchiveAccessDenied(f"the folder {folder} cannot be used: {_first_line(error)}") from None
        super().__init__(store, f"the folder {folder}")
        self._folder = folder
        self._synced_folders: set[Path] = set()

    def _put(self, path: str, body: bytes) -> None:
        super()._put(path, body)
        with self._translate_errors():
            self._sync_to_disk(self._folder / path)

    def _sync_to_disk(self, file: Path) -> None:
        """Synchronise a file, and the lists of files that lead to it, as far as they may be new."""
        fsync_path(file)
        fsync_path(file.parent)
        folder = file.parent
        while folder != self._folder and folder not in self._synced_folders:
            fsync_path(folder.parent)
            self._synced_folders.add(folder)
            folder = folder.parent


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:_MESSAGE_MAX_CHARACTERS]
