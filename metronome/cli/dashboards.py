"""``metronome dashboards``: brings Kibana's dashboards into a Kibana, or writes them into a folder.

What Kibana's answers mean: whether it is a Kibana, and whether it has taken what it was given.

Formats: Kibana's status API (``GET /api/status``) and saved objects import API, as of Kibana 8.19.

Speaks to a Kibana: waits for it, asks what it is, and has it import saved objects.
"""

import asyncio
import contextlib
import re
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import aiohttp
import orjson
import typer
from yarl import URL

from metronome.cli.output import print_note
from metronome.config import read_settings
from metronome.dashboards import build_saved_objects, dashboard_ids, encode_ndjson
from metronome.errors import (
    ConfigurationError,
    DashboardsRejected,
    KibanaAccessDenied,
    KibanaUnavailable,
    MetronomeError,
    describe,
)
from metronome.server_client import validate_key

MINIMUM_VERSION: Final = (8, 15)
"""The first Kibana that knows the form of dashboards that these have."""

_DENIED_STATUSES: Final = frozenset({401, 403})
_VERSION_PATTERN: Final = re.compile(r"(\d+)\.(\d+)\.\S+")
_MAX_LISTED_ERRORS: Final = 5
_MAX_REASON_CHARACTERS: Final = 300


class KibanaResponse(NamedTuple):
    """What Kibana answered."""

    status: int
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return its JSON, or nothing where it is none."""
        try:
            return _as_object(orjson.loads(self.body))
        except ValueError:
            return {}

    def reason(self) -> str:
        """Tell it in a few words."""
        known = HTTPStatus(self.status).phrase if self.status in {*HTTPStatus} else ""
        said = self.json().get("message")
        return f"{self.status} {str(said)[:_MAX_REASON_CHARACTERS] if said else known}".strip()


def check_denied(kibana: str, response: KibanaResponse) -> None:
    """Raise `KibanaAccessDenied` if an answer says that this is not allowed.

    Args:
        kibana: the Kibana's address, as messages show it.
        response: what it answered.

    """
    if response.status in _DENIED_STATUSES:
        raise KibanaAccessDenied(f"{kibana} does not allow this: {response.reason()}")


def validate_version(kibana: str, response: KibanaResponse) -> str:
    """Return a Kibana's version, from its status; nothing where it tells that only to those it knows.

    Args:
        kibana: the Kibana's address, as messages show it.
        response: to ``GET /api/status``.

    Raises:
        KibanaAccessDenied: this is not allowed.
        DashboardsRejected: it is too old.
        ConfigurationError: it is no Kibana.

    """
    check_denied(kibana, response)
    body = response.json()
    if response.status != HTTPStatus.OK or "overall" not in _as_object(body.get("status")):
        said = "something else" if response.status == HTTPStatus.OK else response.reason()
        raise ConfigurationError(
            f"{kibana} is no Kibana: GET /api/status answers {said}; name its address, as http://host:5601"
        )
    version = str(_as_object(body.get("version")).get("number", ""))
    match = _VERSION_PATTERN.fullmatch(version)
    if match is not None and (int(match[1]), int(match[2])) < MINIMUM_VERSION:
        raise DashboardsRejected(
            f"{kibana} is Kibana {version}, and these dashboards need {MINIMUM_VERSION[0]}.{MINIMUM_VERSION[1]} "
            f"or newer"
        )
    return version


def validate_import(kibana: str, response: KibanaResponse, count: int) -> int:
    """Return how many objects were imported: all of them.

    Args:
        kibana: the Kibana's address, as messages show it.
        response: to the import. A 200 does not say that anything was imported.
        count: how many there were to be imported.

    Raises:
        KibanaAccessDenied: this is not allowed.
        DashboardsRejected: not all were; the message names the first of them, and why.

    """
    check_denied(kibana, response)
    body = response.json()
    if response.status != HTTPStatus.OK or "success" not in body:
        raise DashboardsRejected(f"{kibana} does not import the dashboards: {response.reason()}")
    taken = body.get("successCount", 0)
    if body["success"] is True and taken == count:
        return count
    errors = _as_objects(body.get("errors"))
    more = [f"and {len(errors) - _MAX_LISTED_ERRORS} more"] if len(errors) > _MAX_LISTED_ERRORS else []
    reasons = "; ".join([*map(_format_import_error, errors[:_MAX_LISTED_ERRORS]), *more]) or "it does not say why"
    raise DashboardsRejected(f"{kibana} took {taken} of {count} objects: {reasons}")


def _format_import_error(error: Mapping[str, Any]) -> str:
    """Tell why an object was not imported."""
    title = _as_object(error.get("meta")).get("title") or error.get("title")
    name = f"{error.get('type')} {error.get('id')}{f' ({title})' if title else ''}"
    why = _as_object(error.get("error"))
    match why.get("type"):
        case "conflict":
            reason = "is there already, and may not be replaced without --overwrite"
        case "ambiguous_conflict":
            reason = "could take the place of several that are there already: delete all but one"
        case "missing_references":
            needed = [f"{one.get('type')} {one.get('id')}" for one in _as_objects(why.get("references"))]
            reason = f"needs {', '.join(needed)}"
        case "unsupported_type":
            reason = "is of a type that this Kibana does not have"
        case kind:
            reason = str(why.get("message") or kind or "it does not say why")
    return f"{name}: {reason}"[:_MAX_REASON_CHARACTERS]


def _as_object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _as_objects(value: Any) -> list[dict[str, Any]]:
    return [_as_object(one) for one in value] if isinstance(value, list) else []


DEFAULT_SPACE: Final = "default"

_FILE_NAME: Final = "metronome.ndjson"
_REQUEST_TIMEOUT_SECONDS: Final = 60.0
_FIRST_BACKOFF_SECONDS: Final = 0.25
_MAX_BACKOFF_SECONDS: Final = 5.0
_RETRYABLE_STATUSES: Final = frozenset({429, 502, 503, 504})
_SPACE_PATTERN: Final = re.compile(r"[a-z0-9_-]+")


class KibanaCredentials(NamedTuple):
    """As whom to come.

    Attributes:
        key: an API key, as Kibana shows it (encoded); it goes before a user.
        user: or a user's name.
        password: and password.

    """

    key: str = ""
    user: str = ""
    password: str = ""

    def headers(self) -> dict[str, str]:
        """Return the headers that show them.

        Raises:
            ConfigurationError: there is only half of them, or they cannot be sent.

        """
        if self.key:
            return {"Authorization": f"ApiKey {validate_key(self.key)}"}
        if bool(self.user) != bool(self.password):
            raise ConfigurationError(
                "a user of Kibana's needs a name and a password: --user and METRONOME_KIBANA_PASSWORD"
            )
        if not self.user:
            return {}
        return {"Authorization": f"Basic {b64encode(f'{self.user}:{self.password}'.encode()).decode()}"}


class InstallResult(NamedTuple):
    """What came of an import.

    Attributes:
        objects: how many objects Kibana has taken.
        version: which Kibana it is, or nothing where it does not say.

    """

    objects: int
    version: str


class KibanaClient(NamedTuple):
    """The Kibana that is spoken to.

    Attributes:
        url: its address.
        credentials: as whom.
        space: the space that objects belong to; empty for the default one.
        ca: the file with the certificate that signed Kibana's own; None for those that the machine knows.
        patience: for how many seconds to wait for it.

    """

    url: str
    credentials: KibanaCredentials = KibanaCredentials()
    space: str = ""
    ca: Path | None = None
    retry_timeout: float = 60.0

    async def install(
        self, objects: bytes, count: int, on_wait: Callable[[str], None], *, overwrite: bool
    ) -> InstallResult:
        """Have Kibana import objects.

        Args:
            objects: as NDJSON.
            count: how many they are.
            on_wait: is called once, with the reason, if Kibana has to be waited for.
            overwrite: whether they take the place of those of the same ids.

        Raises:
            KibanaUnavailable: it does not answer, or is starting still.
            KibanaAccessDenied: it does not accept the credentials, or they lack a right.
            DashboardsRejected: it is too old, or did not take each object; the message names them.
            ConfigurationError: there is no Kibana at this address, or no such space.

        """
        self._validate()
        async with self._session() as session:
            line = _KibanaSession(session, self.retry_timeout, on_wait, self.display_name)
            version = validate_version(self.display_name, await line.request("GET", f"{self._root}/api/status"))
            await self._check_space(line)
            form = {"overwrite": "true" if overwrite else "false"}
            path = f"{self._root}{self._space_path}/api/saved_objects/_import"
            answer = await line.request("POST", str(URL(path).with_query(form)), objects)
            return InstallResult(validate_import(self.display_name, answer, count), version)

    def dashboard_url(self, dashboard_id: str) -> str:
        """Return the address of a dashboard."""
        return f"{self._root}{self._space_path}/app/dashboards#/view/{dashboard_id}"

    @property
    def display_name(self) -> str:
        """Its address as messages may show it."""
        return f"--kibana {self.url}"

    @property
    def _root(self) -> str:
        return self.url.rstrip("/")

    @property
    def _space_path(self) -> str:
        return f"/s/{self.space}" if self.space not in {"", DEFAULT_SPACE} else ""

    def _validate(self) -> None:
        # Whatever else is wrong with such an address: it is not to be shown.
        if "@" in self.url:
            raise ConfigurationError(
                "the address of --kibana holds a user: name it with --user, and its password as "
                "METRONOME_KIBANA_PASSWORD"
            )
        try:
            url = URL(self.url)
        except ValueError:
            url = URL()
        if url.scheme not in {"http", "https"} or not url.host or url.query_string or url.fragment:
            raise ConfigurationError(f"{self.display_name} is no web address: write it as http://host:5601")
        if self.space and _SPACE_PATTERN.fullmatch(self.space) is None:
            raise ConfigurationError(f"--space {self.space!r} is no space: they are named with a-z, 0-9, _ and -")

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        # Kibana takes no changes without this header: no page of another site can send it.
        headers = {"kbn-xsrf": "true", "Accept": "application/json", **self.credentials.headers()}
        connector = aiohttp.TCPConnector(ssl=_create_ssl_context(self.ca))
        timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
            yield session

    async def _check_space(self, session: "_KibanaSession") -> None:
        """Look whether there is the space: Kibana would import into one that nobody can open."""
        if not self._space_path:
            return
        answer = await session.request("GET", f"{self._root}/api/spaces/space/{self.space}")
        if answer.status == HTTPStatus.NOT_FOUND:
            raise ConfigurationError(
                f"--space {self.space}: this Kibana has no such space; make it first, or name another"
            )
        check_denied(self.display_name, answer)
        if answer.status != HTTPStatus.OK:
            raise DashboardsRejected(
                f"{self.display_name} cannot tell whether it has the space {self.space}: {answer.reason()}"
            )


class _KibanaSession:
    """A line to a Kibana, on which is asked again while it is away, for as long as there is patience."""

    def __init__(
        self, session: aiohttp.ClientSession, retry_timeout: float, on_wait: Callable[[str], None], display_name: str
    ) -> None:
        self._session = session
        self._retry_timeout = retry_timeout
        self._deadline = asyncio.get_running_loop().time() + retry_timeout
        self._on_wait = on_wait
        self._display_name = display_name
        self._has_notified = False

    async def request(self, method: str, url: str, objects: bytes | None = None) -> KibanaResponse:
        """Return what it answers, once it does; raises `KibanaUnavailable` and `ConfigurationError`."""
        pause = _FIRST_BACKOFF_SECONDS
        while isinstance(answer := await self._request_once(method, url, objects), str):
            left = self._deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise KibanaUnavailable(f"{self._display_name} does not answer: {answer}")
            if not self._has_notified:
                self._on_wait(
                    f"{self._display_name} does not answer yet: {answer}; waiting for up to {self._retry_timeout:g} s"
                )
                self._has_notified = True
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 2, _MAX_BACKOFF_SECONDS)
        return answer

    async def _request_once(self, method: str, url: str, objects: bytes | None) -> KibanaResponse | str:
        """Return what it answers, or why it does not."""
        try:
            async with self._session.request(
                method, url, data=None if objects is None else _build_form(objects), allow_redirects=False
            ) as response:
                answer = KibanaResponse(response.status, await response.read())
        except aiohttp.ClientConnectorCertificateError as error:
            reason = error.certificate_error
            raise ConfigurationError(
                f"{self._display_name}: its certificate is not to be trusted ({reason}); name the file with the "
                f"certificate "
                "that signed it with --ca"
            ) from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise ConfigurationError(f"{self._display_name} is no web address: write it as http://host:5601") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return str(error) or type(error).__name__
        return answer.reason() if answer.status in _RETRYABLE_STATUSES else answer


def _build_form(objects: bytes) -> aiohttp.FormData:
    form = aiohttp.FormData()
    # Kibana looks at the end of the name.
    form.add_field("file", objects, filename=_FILE_NAME, content_type="application/ndjson")
    return form


def _create_ssl_context(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError):
        raise ConfigurationError(f"--ca {ca} is no file with certificates, in PEM") from None


EXIT_FAILED: Final = 2
EXIT_INTERRUPTED: Final = 130

_DEFAULT_KIBANA_URL: Final = "http://127.0.0.1:5601"

IndexPrefixOption = Annotated[
    str | None,
    typer.Option(
        envvar="METRONOME_INDEX_PREFIX",
        help="What the names of the events' indices begin with, as the server's setting says.",
        show_default="metronome",
    ),
]

dashboards_app = typer.Typer(no_args_is_help=True)


@dashboards_app.command("install")
def install_dashboards(  # noqa: PLR0913  # one argument for each option
    *,
    kibana: Annotated[str, typer.Option(envvar="METRONOME_KIBANA", help="The Kibana's address.")] = _DEFAULT_KIBANA_URL,
    space: Annotated[
        str, typer.Option(metavar="NAME", help="The space that gets them.", show_default="the default one")
    ] = "",
    index_prefix: IndexPrefixOption = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite/--no-overwrite", help="Whether they take the place of those that were installed before."
        ),
    ] = True,
    key: Annotated[
        str, typer.Option(envvar="METRONOME_KIBANA_KEY", help="An API key, encoded.", show_default="none")
    ] = "",
    user: Annotated[
        str, typer.Option(envvar="METRONOME_KIBANA_USER", help="Or a user's name.", show_default="none")
    ] = "",
    password: Annotated[
        str, typer.Option(envvar="METRONOME_KIBANA_PASSWORD", help="The user's password.", show_default="none")
    ] = "",
    ca: Annotated[
        Path | None,
        typer.Option(
            envvar="METRONOME_KIBANA_CA",
            help="File with the certificate that signed Kibana's own.",
            show_default="those that the machine knows",
        ),
    ] = None,
    retry_timeout: Annotated[
        float, typer.Option(min=0, help="For how many seconds to wait for a Kibana that is away, or starting.")
    ] = 60,
) -> None:
    """Install the data view and the dashboards in a Kibana; again, to bring them up to date."""
    try:
        prefix = _validate_index_prefix(index_prefix)
        objects = build_saved_objects(prefix)
        there = KibanaClient(kibana, KibanaCredentials(key, user, password), space, ca, retry_timeout)
        work = there.install(encode_ndjson(objects), len(objects), _print_error, overwrite=overwrite)
        installed = asyncio.run(work)
    except KeyboardInterrupt:
        _print_error("interrupted; run it again to have all of it installed")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except MetronomeError as error:
        raise _exit_with_error(error) from None
    typer.echo(_dashboards_told(installed, there, prefix))


@dashboards_app.command("write")
def write_dashboards(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Is made if it is not there.")],
    *,
    index_prefix: IndexPrefixOption = None,
) -> None:
    """Write the data view and the dashboards into a folder, as a file that Kibana imports."""
    try:
        prefix = _validate_index_prefix(index_prefix)
        objects = build_saved_objects(prefix)
        file = folder / f"{prefix}.ndjson"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode_ndjson(objects))
        except OSError as error:
            raise ConfigurationError(f"{file} cannot be written: {error.strerror}; name another folder") from None
    except MetronomeError as error:
        raise _exit_with_error(error) from None
    typer.echo(f"{len(objects)} objects are in {file}: import it in Kibana, under Stack Management, Saved Objects")


def _validate_index_prefix(prefix: str | None) -> str:
    return read_settings({"index_prefix": prefix}).index_prefix


def _dashboards_told(installed: InstallResult, kibana: KibanaClient, prefix: str) -> str:
    version = f"Kibana {installed.version}" if installed.version else "Kibana"
    return "\n".join(
        [
            f"{installed.objects} objects are in {version}: a data view of {prefix}-*, its panels, and the dashboards",
            *(f"  {kibana.dashboard_url(dashboard)}" for dashboard in dashboard_ids(prefix)),
        ]
    )


def _exit_with_error(error: MetronomeError) -> typer.Exit:
    _print_error(describe(error))
    return typer.Exit(EXIT_FAILED)


def _print_error(sentence: str) -> None:
    print_note(f"metronome dashboards: {sentence}")
