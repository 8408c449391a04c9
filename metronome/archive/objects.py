"""Archives in S3 and compatible stores, Google Cloud Storage, Azure Blob Storage, and local folders.

Credentials, regions and endpoints are read from the environment variables of the providers' own tools
(``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ``GOOGLE_APPLICATION_CREDENTIALS``, ``AZURE_STORAGE_ACCOUNT_NAME``, …).
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
    # They exist in type stubs only.
    from obstore.store import ClientConfig, RetryConfig


T = TypeVar("T")


async def run_in_daemon_thread(function: Callable[[], T]) -> T:
    """Return the result of *function*, which runs in a daemon thread of its own.

    The threads of `asyncio.to_thread` are few and shared, and the process waits for them at exit: a request to a server
    that does not respond would block other work and the exit for half a minute. This thread is abandoned once the
    caller is cancelled.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]  # without an error, it is the result of the function
        else:
            future.set_exception(error)

    def run() -> None:
        result, caught = None, None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001  # it is raised where the result is awaited
            caught = error
        # The loop may be closed if the caller was cancelled.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, caught)

    threading.Thread(target=run, name="archive", daemon=True).start()
    return await future


ListPage = Sequence[Any]
"""Objects as obstore lists them, each with ``path`` and ``size``."""

SCHEMES: Final = ("s3", "gs", "az", "file")
_STATUS_PATTERN: Final = re.compile(r"status code: (\d{3})")
_ERROR_CODE_PATTERN: Final = re.compile(r"<Code>(\w+)</Code>")
_BUCKET_MISSING_PATTERN: Final = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist")
_DENIED_STATUSES: Final = frozenset({"401", "403"})
_NOT_FOUND_STATUS: Final = "404"
_MESSAGE_MAX_CHARACTERS: Final = 300
_PAGE_SIZE: Final = 1000
# The caller retries with backoff, and logs it.
_NO_RETRIES: "Final[RetryConfig]" = {"max_retries": 0, "retry_timeout": timedelta(seconds=30)}
# The URL of an endpoint says whether to use TLS.
_CLIENT_OPTIONS: "Final[ClientConfig]" = {"connect_timeout": "5s", "timeout": "30s", "allow_http": True}


def open_archive(url: str, *, create: bool = False) -> Archive:
    """Open the archive at a URL; no request is sent yet.

    Args:
        url: ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://container/prefix`` or ``file:///folder``.
        create: whether to create a folder that does not exist.

    Raises:
        ConfigurationError: the URL is invalid, or the environment lacks a setting for it.
        ArchiveAccessDenied: the folder does not exist, or cannot be created.

    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ConfigurationError(
            f"invalid archive {url!r}: expected s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or "
            "file:///folder"
        )
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise ConfigurationError(f"invalid archive {url!r}: expected file:///folder, with three slashes")
        return _FolderArchive(Path(unquote(parts.path)), create=create)
    if not parts.netloc:
        raise ConfigurationError(f"invalid archive {url!r}: expected {parts.scheme}://bucket/prefix")
    try:
        return ObjectStoreArchive(from_url(url, retry_config=_NO_RETRIES, client_options=_CLIENT_OPTIONS), url)
    except (BaseError, ValueError) as error:
        raise ConfigurationError(f"invalid archive {url!r}: {_first_line(error)}") from None


class ObjectStoreArchive(Archive):
    """An archive in an object store.

    obstore's blocking functions are called in threads. Its asynchronous ones call back from threads that Python does
    not know, which aborts the process if it happens at exit.

    Args:
        store: the object store.
        name: name of the archive in messages.

    """

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self._name = name

    async def put(self, path: str, body: bytes) -> None:
        """Store an object (see `Archive.put`)."""
        await run_in_daemon_thread(partial(self._put, path, body))

    async def get(self, path: str) -> bytes:
        """Return an object (see `Archive.get`)."""
        return await run_in_daemon_thread(partial(self._get, path))

    async def delete(self, path: str) -> None:
        """Delete an object (see `Archive.delete`)."""
        await run_in_daemon_thread(partial(self._delete, path))

    async def iterate_objects(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield objects (see `Archive.iterate_objects`)."""
        pages = await run_in_daemon_thread(partial(self._open_listing, prefix))
        while (page := await run_in_daemon_thread(partial(self._next_page, pages))) is not None:
            for entry in page:
                yield entry

    async def ping(self) -> None:
        """List one object (see `Archive.ping`)."""
        await run_in_daemon_thread(lambda: self._next_page(self._open_listing("manifests", 1)))

    def _put(self, path: str, body: bytes) -> None:
        with self._translate_errors():
            obstore.put(self._store, path, body, use_multipart=False)

    def _get(self, path: str) -> bytes:
        with self._translate_errors(path):
            return bytes(obstore.get(self._store, path).bytes())

    def _delete(self, path: str) -> None:
        # Some object stores report a missing object.
        with suppress(ArchiveDamaged), self._translate_errors(path):
            obstore.delete(self._store, path)

    def _open_listing(self, prefix: str, size: int = _PAGE_SIZE) -> Iterator[ListPage]:
        with self._translate_errors():
            return iter(obstore.list(self._store, prefix or None, chunk_size=size))

    def _next_page(self, pages: Iterator[ListPage]) -> list[ObjectInfo] | None:
        with self._translate_errors():
            page = next(pages, None)
        return None if page is None else [ObjectInfo(entry["path"], entry["size"]) for entry in page]

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
            reason = _ERROR_CODE_PATTERN.search(text)
            return ArchiveAccessDenied(f"{self._name} denies access: {reason[1] if reason else _first_line(error)}")
        if _BUCKET_MISSING_PATTERN.search(text):
            return ArchiveAccessDenied(f"the bucket of {self._name} does not exist")
        if isinstance(error, FileNotFoundError) or code == _NOT_FOUND_STATUS:
            return (
                ArchiveDamaged(f"{path} is missing in {self._name}")
                if path
                else ArchiveAccessDenied(f"{self._name} does not exist")
            )
        return ArchiveUnavailable(f"{self._name} is not available: {_first_line(error)}")


class _FolderArchive(ObjectStoreArchive):
    """An archive in a folder, whose files are synchronized to the disk."""

    def __init__(self, folder: Path, *, create: bool) -> None:
        if not create and not folder.is_dir():
            raise ArchiveAccessDenied(f"the folder {folder} does not exist")
        try:
            store = LocalStore(folder, mkdir=create)
        except (BaseError, OSError) as error:
            raise ArchiveAccessDenied(f"cannot use the folder {folder}: {_first_line(error)}") from None
        super().__init__(store, f"the folder {folder}")
        self._folder = folder
        self._synced_folders: set[Path] = set()

    def _put(self, path: str, body: bytes) -> None:
        super()._put(path, body)
        with self._translate_errors():
            self._sync_to_disk(self._folder / path)

    def _delete(self, path: str) -> None:
        super()._delete(path)
        with self._translate_errors():
            folder = (self._folder / path).parent
            if folder.is_dir():
                fsync_path(folder)

    def _sync_to_disk(self, file: Path) -> None:
        """Synchronize a file, and the folders above it that may be new."""
        fsync_path(file)
        fsync_path(file.parent)
        folder = file.parent
        while folder != self._folder and folder not in self._synced_folders:
            fsync_path(folder.parent)
            self._synced_folders.add(folder)
            folder = folder.parent


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:_MESSAGE_MAX_CHARACTERS]
