"""``metronome dashboards``: install Metronome's dashboards in Kibana, or write them to a file.

Uses Kibana's status API (``GET /api/status``) and its saved objects import API, as of Kibana 8.19.
"""

import asyncio
import contextlib
import re
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import aiohttp
import orjson
import typer
from yarl import URL

from metronome.cli.errors import print_error, reporting_errors
from metronome.cli.options import secret_option
from metronome.cli.output import print_lines
from metronome.config import read_settings
from metronome.errors import (
    ConfigurationError,
    DashboardsRejected,
    KibanaAccessDenied,
    KibanaUnavailable,
)
from metronome.retry import Backoff, retry
from metronome.server_client import validate_key

MINIMUM_VERSION: Final = (8, 15)
"""The first version of Kibana that can import these dashboards."""

_DENIED_STATUSES: Final = frozenset({401, 403})
_VERSION_PATTERN: Final = re.compile(r"(\d+)\.(\d+)\.\S+")
_MAX_LISTED_ERRORS: Final = 5
_MAX_REASON_CHARACTERS: Final = 300


class KibanaResponse(NamedTuple):
    """A response of Kibana."""

    status: int
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the JSON object in the body; empty if there is none."""
        try:
            return _as_object(orjson.loads(self.body))
        except ValueError:
            return {}

    def reason(self) -> str:
        """Return the status and Kibana's message."""
        phrase = HTTPStatus(self.status).phrase if self.status in {*HTTPStatus} else ""
        message = self.json().get("message")
        return f"{self.status} {str(message)[:_MAX_REASON_CHARACTERS] if message else phrase}".strip()


def check_denied(kibana: str, response: KibanaResponse) -> None:
    """Raise `KibanaAccessDenied` if Kibana denies access.

    Args:
        kibana: name of the Kibana in messages.
        response: any response.

    """
    if response.status in _DENIED_STATUSES:
        raise KibanaAccessDenied(f"{kibana} denies access: {response.reason()}")


def validate_version(kibana: str, response: KibanaResponse) -> str:
    """Return the version of Kibana; empty if it tells that only to authenticated clients.

    Args:
        kibana: name of the Kibana in messages.
        response: response to ``GET /api/status``.

    Raises:
        KibanaAccessDenied: access is denied.
        DashboardsRejected: the version is too old.
        ConfigurationError: the server is not Kibana.

    """
    check_denied(kibana, response)
    body = response.json()
    if response.status != HTTPStatus.OK or "overall" not in _as_object(body.get("status")):
        reason = "no status" if response.status == HTTPStatus.OK else response.reason()
        raise ConfigurationError(
            f"{kibana} is not Kibana: GET /api/status responds {reason}; expected a URL such as http://host:5601"
        )
    version = str(_as_object(body.get("version")).get("number", ""))
    match = _VERSION_PATTERN.fullmatch(version)
    if match is not None and (int(match[1]), int(match[2])) < MINIMUM_VERSION:
        raise DashboardsRejected(
            f"{kibana} is Kibana {version}; the dashboards need {MINIMUM_VERSION[0]}.{MINIMUM_VERSION[1]} or newer"
        )
    return version


def validate_import(kibana: str, response: KibanaResponse, count: int) -> int:
    """Return the number of imported objects if all were imported.

    Args:
        kibana: name of the Kibana in messages.
        response: response to the import. A status of 200 does not mean that anything was imported.
        count: number of objects that were sent.

    Raises:
        KibanaAccessDenied: access is denied.
        DashboardsRejected: not all objects were imported; the message has the reasons for the first of them.

    """
    check_denied(kibana, response)
    body = response.json()
    if response.status != HTTPStatus.OK or "success" not in body:
        raise DashboardsRejected(f"{kibana} did not import the dashboards: {response.reason()}")
    imported = body.get("successCount", 0)
    if body["success"] is True and imported == count:
        return count
    errors = _as_objects(body.get("errors"))
    more = [f"and {len(errors) - _MAX_LISTED_ERRORS} more"] if len(errors) > _MAX_LISTED_ERRORS else []
    reasons = "; ".join([*map(_format_import_error, errors[:_MAX_LISTED_ERRORS]), *more]) or "no reason given"
    raise DashboardsRejected(f"{kibana} imported {imported} of {count} objects: {reasons}")


def _format_import_error(error: Mapping[str, Any]) -> str:
    """Return why an object was not imported."""
    title = _as_object(error.get("meta")).get("title") or error.get("title")
    name = f"{error.get('type')} {error.get('id')}{f' ({title})' if title else ''}"
    details = _as_object(error.get("error"))
    match details.get("type"):
        case "conflict":
            reason = "it exists already; use --overwrite to replace it"
        case "ambiguous_conflict":
            reason = "it conflicts with several existing objects: delete all but one"
        case "missing_references":
            missing = [f"{ref.get('type')} {ref.get('id')}" for ref in _as_objects(details.get("references"))]
            reason = f"it needs {', '.join(missing)}"
        case "unsupported_type":
            reason = "this Kibana does not support its type"
        case other:
            reason = str(details.get("message") or other or "no reason given")
    return f"{name}: {reason}"[:_MAX_REASON_CHARACTERS]


def _as_object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _as_objects(value: Any) -> list[dict[str, Any]]:
    return [_as_object(item) for item in value] if isinstance(value, list) else []


DEFAULT_SPACE: Final = "default"
_DEFAULT_KIBANA_URL: Final = "http://127.0.0.1:5601"
_DEFAULT_PREFIX: Final = "metronome"

_FILE_NAME: Final = "metronome.ndjson"
_REQUEST_TIMEOUT_SECONDS: Final = 60.0
_BACKOFF: Final = Backoff(0.25, 5.0)
_RETRYABLE_STATUSES: Final = frozenset({429, 502, 503, 504})
_SPACE_PATTERN: Final = re.compile(r"[a-z0-9_-]+")


class KibanaCredentials(NamedTuple):
    """Credentials for Kibana.

    Attributes:
        key: API key, encoded as Kibana shows it; takes precedence over a user.
        user: user name.
        password: password of the user.

    """

    key: str = ""
    user: str = ""
    password: str = ""

    def headers(self) -> dict[str, str]:
        """Return the HTTP headers for them.

        Raises:
            ConfigurationError: they are incomplete, or cannot be sent in a header.

        """
        if self.key:
            return {"Authorization": f"ApiKey {validate_key(self.key)}"}
        if bool(self.user) != bool(self.password):
            raise ConfigurationError("incomplete credentials for Kibana: set both --user and METRONOME_KIBANA_PASSWORD")
        if not self.user:
            return {}
        return {"Authorization": f"Basic {b64encode(f'{self.user}:{self.password}'.encode()).decode()}"}


class InstallResult(NamedTuple):
    """Result of an import.

    Attributes:
        objects: number of imported objects.
        version: version of Kibana; empty if unknown.

    """

    objects: int
    version: str


class KibanaClient(NamedTuple):
    """A Kibana server.

    Attributes:
        url: URL of the server.
        credentials: credentials for it.
        space: space to import into; empty for the default one.
        ca: file with the CA certificate of the server; None for those of the system.
        retry_timeout: seconds to keep retrying while the server is unavailable.

    """

    url: str
    credentials: KibanaCredentials = KibanaCredentials()
    space: str = ""
    ca: Path | None = None
    retry_timeout: float = 60.0

    async def install(
        self, objects: bytes, count: int, on_wait: Callable[[str], None], *, overwrite: bool
    ) -> InstallResult:
        """Import saved objects.

        Args:
            objects: the objects as NDJSON.
            count: number of objects.
            on_wait: called once, with the reason, if Kibana is unavailable.
            overwrite: whether to replace objects with the same IDs.

        Raises:
            KibanaUnavailable: Kibana does not respond, or is still starting.
            KibanaAccessDenied: Kibana rejects the credentials, or they lack a privilege.
            DashboardsRejected: Kibana is too old, or did not import all objects.
            ConfigurationError: the URL is not that of Kibana, or the space does not exist.

        """
        self._validate()
        async with self._session() as session:
            kibana = _KibanaSession(session, self.retry_timeout, on_wait, self.display_name)
            version = validate_version(self.display_name, await kibana.request("GET", f"{self._root}/api/status"))
            await self._check_space(kibana)
            form = {"overwrite": "true" if overwrite else "false"}
            path = f"{self._root}{self._space_path}/api/saved_objects/_import"
            response = await kibana.request("POST", str(URL(path).with_query(form)), objects)
            return InstallResult(validate_import(self.display_name, response, count), version)

    def dashboard_url(self, dashboard_id: str) -> str:
        """Return the URL of a dashboard."""
        return f"{self._root}{self._space_path}/app/dashboards#/view/{dashboard_id}"

    @property
    def display_name(self) -> str:
        """Name of the Kibana in messages."""
        return f"--kibana {self.url}"

    @property
    def _root(self) -> str:
        return self.url.rstrip("/")

    @property
    def _space_path(self) -> str:
        return f"/s/{self.space}" if self.space not in {"", DEFAULT_SPACE} else ""

    def _validate(self) -> None:
        # Checked first: other messages show the URL, which must not contain a password.
        if "@" in self.url:
            raise ConfigurationError(
                "invalid --kibana: the URL contains credentials; use --user and METRONOME_KIBANA_PASSWORD instead"
            )
        try:
            url = URL(self.url)
        except ValueError:
            url = URL()
        if url.scheme not in {"http", "https"} or not url.host or url.query_string or url.fragment:
            raise ConfigurationError(f"invalid {self.display_name}: expected http://host:5601")
        if self.space and _SPACE_PATTERN.fullmatch(self.space) is None:
            raise ConfigurationError(f"invalid --space {self.space!r}: expected a-z, 0-9, _ and -")

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        # Kibana requires this header, which pages of other sites cannot send.
        headers = {"kbn-xsrf": "true", "Accept": "application/json", **self.credentials.headers()}
        connector = aiohttp.TCPConnector(ssl=_create_ssl_context(self.ca))
        timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
            yield session

    async def _check_space(self, session: "_KibanaSession") -> None:
        """Check that the space exists: Kibana would import into one that cannot be opened."""
        if not self._space_path:
            return
        response = await session.request("GET", f"{self._root}/api/spaces/space/{self.space}")
        if response.status == HTTPStatus.NOT_FOUND:
            raise ConfigurationError(f"unknown --space {self.space}: create it in Kibana first")
        check_denied(self.display_name, response)
        if response.status != HTTPStatus.OK:
            raise DashboardsRejected(f"{self.display_name} cannot look up the space {self.space}: {response.reason()}")


class _KibanaSession:
    """Sends requests to Kibana, and retries them while it is unavailable."""

    def __init__(
        self, session: aiohttp.ClientSession, retry_timeout: float, on_wait: Callable[[str], None], display_name: str
    ) -> None:
        self._session = session
        self._retry_timeout = retry_timeout
        self._on_wait = on_wait
        self._display_name = display_name
        self._has_notified = False

    async def request(self, method: str, url: str, objects: bytes | None = None) -> KibanaResponse:
        """Return the response to a request; raises `KibanaUnavailable` and `ConfigurationError`."""
        return await retry(
            lambda: self._request_once(method, url, objects),
            _BACKOFF,
            on_retry=self._notify,
            timeout_seconds=self._retry_timeout,
        )

    def _notify(self, error: KibanaUnavailable, _delay_seconds: float) -> None:
        if not self._has_notified:
            self._on_wait(f"{error}; retrying for up to {self._retry_timeout:g} s")
            self._has_notified = True

    async def _request_once(self, method: str, url: str, objects: bytes | None) -> KibanaResponse:
        try:
            async with self._session.request(
                method, url, data=None if objects is None else _build_form(objects), allow_redirects=False
            ) as reply:
                response = KibanaResponse(reply.status, await reply.read())
        except aiohttp.ClientConnectorCertificateError as error:
            raise ConfigurationError(
                f"{self._display_name} has an untrusted certificate ({error.certificate_error}); set the file of its "
                "CA certificate with --ca"
            ) from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise ConfigurationError(f"invalid {self._display_name}: expected http://host:5601") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise KibanaUnavailable(f"{self._display_name} is unavailable: {reason}") from None
        if response.status in _RETRYABLE_STATUSES:
            raise KibanaUnavailable(f"{self._display_name} is unavailable: {response.reason()}")
        return response


def _build_form(objects: bytes) -> aiohttp.FormData:
    form = aiohttp.FormData()
    # Kibana checks the extension of the file name.
    form.add_field("file", objects, filename=_FILE_NAME, content_type="application/ndjson")
    return form


def _create_ssl_context(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError):
        raise ConfigurationError(f"invalid --ca {ca}: expected a file with certificates in PEM format") from None


def load_saved_objects(prefix: str) -> list[dict[str, Any]]:
    """Return the saved objects of the dashboards, with another index prefix than the one they were generated with."""
    text = resources.files("metronome.cli").joinpath("dashboards.ndjson").read_bytes()
    saved_objects = [orjson.loads(line) for line in text.splitlines()]
    for saved_object in saved_objects:
        saved_object["id"] = _replace_prefix(saved_object["id"], prefix)
        for reference in saved_object["references"]:
            reference["id"] = _replace_prefix(reference["id"], prefix)
        attributes = saved_object["attributes"]
        for name in attributes.keys() & {"title", "name"}:
            attributes[name] = _replace_prefix(attributes[name], prefix)
    return saved_objects


def _replace_prefix(text: str, prefix: str) -> str:
    """Replace the default index prefix at the beginning of an ID, an index pattern or a title."""
    for default, replacement in ((_DEFAULT_PREFIX, prefix), (_DEFAULT_PREFIX.capitalize(), prefix.capitalize())):
        if text.startswith(default):
            return replacement + text.removeprefix(default)
    return text


def encode_saved_objects(saved_objects: list[dict[str, Any]]) -> bytes:
    """Return saved objects as NDJSON, with sorted keys."""
    option = orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    return b"".join(orjson.dumps(saved_object, option=option) for saved_object in saved_objects)


IndexPrefixOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        envvar="METRONOME_INDEX_PREFIX",
        help="Prefix of the events' indices, same as the setting of the server.",
        show_default="metronome",
    ),
]

dashboards_app = typer.Typer(no_args_is_help=True, add_completion=False)


@dashboards_app.callback()
def dashboards() -> None:
    """Install Metronome's dashboards in Kibana."""


@dashboards_app.command("install")
def install_dashboards(  # noqa: PLR0913  # one argument for each option
    *,
    kibana: Annotated[
        str, typer.Option(metavar="URL", envvar="METRONOME_KIBANA", help="URL of Kibana.")
    ] = _DEFAULT_KIBANA_URL,
    space: Annotated[
        str, typer.Option(metavar="NAME", help="Space to install in.", show_default="the default space")
    ] = "",
    index_prefix: IndexPrefixOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite/--no-overwrite", help="Whether to replace dashboards installed before.")
    ] = True,
    key: Annotated[
        str | None, secret_option("--key-file", "METRONOME_KIBANA_KEY", "File with an API key, encoded.")
    ] = None,
    user: Annotated[
        str,
        typer.Option(
            metavar="NAME", envvar="METRONOME_KIBANA_USER", help="User name, instead of a key.", show_default="none"
        ),
    ] = "",
    password: Annotated[
        str | None, secret_option("--password-file", "METRONOME_KIBANA_PASSWORD", "File with the user's password.")
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="METRONOME_KIBANA_CA",
            help="File with the CA certificate of Kibana.",
            show_default="those of the system",
        ),
    ] = None,
    retry_timeout: Annotated[
        float,
        typer.Option(min=0, metavar="N", help="Seconds to keep retrying while Kibana is unavailable or starting."),
    ] = 60,
) -> None:
    """Install the data view and the dashboards in Kibana, or update them."""
    with reporting_errors("dashboards"):
        prefix = read_settings({"index_prefix": index_prefix}).index_prefix
        saved_objects = load_saved_objects(prefix)
        client = KibanaClient(kibana, KibanaCredentials(key or "", user, password or ""), space, ca, retry_timeout)
        result = asyncio.run(
            client.install(
                encode_saved_objects(saved_objects),
                len(saved_objects),
                lambda message: print_error("dashboards", message),
                overwrite=overwrite,
            )
        )
    ids = [saved_object["id"] for saved_object in saved_objects if saved_object["type"] == "dashboard"]
    version = f"Kibana {result.version}" if result.version else "Kibana"
    print_lines([f"installed {result.objects} objects for {prefix}-* in {version}, with these dashboards:"])
    print_lines(f"  {client.dashboard_url(dashboard_id)}" for dashboard_id in ids)


@dashboards_app.command("write")
def write_dashboards(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write to; created if it does not exist.")],
    *,
    index_prefix: IndexPrefixOption = None,
) -> None:
    """Write the data view and the dashboards to a file that Kibana can import."""
    with reporting_errors("dashboards"):
        prefix = read_settings({"index_prefix": index_prefix}).index_prefix
        saved_objects = load_saved_objects(prefix)
        file = folder / f"{prefix}.ndjson"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode_saved_objects(saved_objects))
        except OSError as error:
            raise ConfigurationError(f"cannot write {file}: {error.strerror}") from None
    print_lines(
        [f"wrote {len(saved_objects)} objects to {file}: import it in Kibana, under Stack Management, Saved Objects"]
    )
