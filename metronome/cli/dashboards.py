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

from metronome.cli.output import note
from metronome.config import read_settings
from metronome.dashboards import bundle, dashboard_ids, ndjson
from metronome.errors import KibanaAway, KibanaDenied, KibanaRefused, MetronomeError, Misconfigured
from metronome.server_client import checked_key

OLDEST: Final = (8, 15)
"""The first Kibana that knows the form of dashboards that these have."""

_DENIED: Final = frozenset({401, 403})
_VERSION: Final = re.compile(r"(\d+)\.(\d+)\.\S+")
_SHOWN: Final = 5
_SHOWN_CHARACTERS: Final = 300


class Answer(NamedTuple):
    """What Kibana answered."""

    status: int
    body: bytes

    def read(self) -> dict[str, Any]:
        """Return its JSON, or nothing where it is none."""
        try:
            return _object(orjson.loads(self.body))
        except ValueError:
            return {}

    def reason(self) -> str:
        """Tell it in a few words."""
        known = HTTPStatus(self.status).phrase if self.status in {*HTTPStatus} else ""
        said = self.read().get("message")
        return f"{self.status} {str(said)[:_SHOWN_CHARACTERS] if said else known}".strip()


def check_denied(shown: str, answer: Answer) -> None:
    """Raise `KibanaDenied` if an answer says that this is not allowed.

    Args:
        shown: the Kibana's address, as messages show it.
        answer: what it answered.

    """
    if answer.status in _DENIED:
        raise KibanaDenied(f"{shown} does not allow this: {answer.reason()}")


def checked_version(shown: str, answer: Answer) -> str:
    """Return a Kibana's version, from its status; nothing where it tells that only to those it knows.

    Args:
        shown: the Kibana's address, as messages show it.
        answer: to ``GET /api/status``.

    Raises:
        KibanaDenied: this is not allowed.
        KibanaRefused: it is too old.
        Misconfigured: it is no Kibana.

    """
    check_denied(shown, answer)
    body = answer.read()
    if answer.status != HTTPStatus.OK or "overall" not in _object(body.get("status")):
        said = "something else" if answer.status == HTTPStatus.OK else answer.reason()
        raise Misconfigured(
            f"{shown} is no Kibana: GET /api/status answers {said}; name its address, as http://host:5601"
        )
    version = str(_object(body.get("version")).get("number", ""))
    match = _VERSION.fullmatch(version)
    if match is not None and (int(match[1]), int(match[2])) < OLDEST:
        raise KibanaRefused(f"{shown} is Kibana {version}, and these dashboards need {OLDEST[0]}.{OLDEST[1]} or newer")
    return version


def checked_import(shown: str, answer: Answer, count: int) -> int:
    """Return how many objects were imported: all of them.

    Args:
        shown: the Kibana's address, as messages show it.
        answer: to the import. A 200 does not say that anything was imported.
        count: how many there were to be imported.

    Raises:
        KibanaDenied: this is not allowed.
        KibanaRefused: not all were; the message names the first of them, and why.

    """
    check_denied(shown, answer)
    body = answer.read()
    if answer.status != HTTPStatus.OK or "success" not in body:
        raise KibanaRefused(f"{shown} does not import the dashboards: {answer.reason()}")
    taken = body.get("successCount", 0)
    if body["success"] is True and taken == count:
        return count
    errors = _objects(body.get("errors"))
    more = [f"and {len(errors) - _SHOWN} more"] if len(errors) > _SHOWN else []
    reasons = "; ".join([*map(_told, errors[:_SHOWN]), *more]) or "it does not say why"
    raise KibanaRefused(f"{shown} took {taken} of {count} objects: {reasons}")


def _told(error: Mapping[str, Any]) -> str:
    """Tell why an object was not imported."""
    title = _object(error.get("meta")).get("title") or error.get("title")
    name = f"{error.get('type')} {error.get('id')}{f' ({title})' if title else ''}"
    why = _object(error.get("error"))
    match why.get("type"):
        case "conflict":
            reason = "is there already, and may not be replaced without --overwrite"
        case "ambiguous_conflict":
            reason = "could take the place of several that are there already: delete all but one"
        case "missing_references":
            needed = [f"{one.get('type')} {one.get('id')}" for one in _objects(why.get("references"))]
            reason = f"needs {', '.join(needed)}"
        case "unsupported_type":
            reason = "is of a type that this Kibana does not have"
        case kind:
            reason = str(why.get("message") or kind or "it does not say why")
    return f"{name}: {reason}"[:_SHOWN_CHARACTERS]


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [_object(one) for one in value] if isinstance(value, list) else []


DEFAULT_SPACE: Final = "default"

_FILE_NAME: Final = "metronome.ndjson"
_REQUEST_SECONDS: Final = 60.0
_FIRST_PAUSE_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 5.0
_BUSY: Final = frozenset({429, 502, 503, 504})
_SPACE: Final = re.compile(r"[a-z0-9_-]+")


class Credentials(NamedTuple):
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
            Misconfigured: there is only half of them, or they cannot be sent.

        """
        if self.key:
            return {"Authorization": f"ApiKey {checked_key(self.key)}"}
        if bool(self.user) != bool(self.password):
            raise Misconfigured("a user of Kibana's needs a name and a password: --user and METRONOME_KIBANA_PASSWORD")
        if not self.user:
            return {}
        return {"Authorization": f"Basic {b64encode(f'{self.user}:{self.password}'.encode()).decode()}"}


class Installed(NamedTuple):
    """What came of an import.

    Attributes:
        objects: how many objects Kibana has taken.
        version: which Kibana it is, or nothing where it does not say.

    """

    objects: int
    version: str


class Kibana(NamedTuple):
    """The Kibana that is spoken to.

    Attributes:
        url: its address.
        credentials: as whom.
        space: the space that objects belong to; empty for the default one.
        ca: the file with the certificate that signed Kibana's own; None for those that the machine knows.
        patience: for how many seconds to wait for it.

    """

    url: str
    credentials: Credentials = Credentials()
    space: str = ""
    ca: Path | None = None
    patience: float = 60.0

    async def install(
        self, objects: bytes, count: int, waiting: Callable[[str], None], *, overwrite: bool
    ) -> Installed:
        """Have Kibana import objects.

        Args:
            objects: as NDJSON.
            count: how many they are.
            waiting: is called once, with the reason, if Kibana has to be waited for.
            overwrite: whether they take the place of those of the same ids.

        Raises:
            KibanaAway: it does not answer, or is starting still.
            KibanaDenied: it does not accept the credentials, or they lack a right.
            KibanaRefused: it is too old, or did not take each object; the message names them.
            Misconfigured: there is no Kibana at this address, or no such space.

        """
        self._check()
        async with self._session() as session:
            line = _Line(session, self.patience, waiting, self.shown)
            version = checked_version(self.shown, await line.ask("GET", f"{self._root}/api/status"))
            await self._look_for_space(line)
            form = {"overwrite": "true" if overwrite else "false"}
            path = f"{self._root}{self._space_path}/api/saved_objects/_import"
            answer = await line.ask("POST", str(URL(path).with_query(form)), objects)
            return Installed(checked_import(self.shown, answer, count), version)

    def address_of(self, dashboard: str) -> str:
        """Return the address of a dashboard."""
        return f"{self._root}{self._space_path}/app/dashboards#/view/{dashboard}"

    @property
    def shown(self) -> str:
        """Its address as messages may show it."""
        return f"--kibana {self.url}"

    @property
    def _root(self) -> str:
        return self.url.rstrip("/")

    @property
    def _space_path(self) -> str:
        return f"/s/{self.space}" if self.space not in {"", DEFAULT_SPACE} else ""

    def _check(self) -> None:
        # Whatever else is wrong with such an address: it is not to be shown.
        if "@" in self.url:
            raise Misconfigured(
                "the address of --kibana holds a user: name it with --user, and its password as "
                "METRONOME_KIBANA_PASSWORD"
            )
        try:
            url = URL(self.url)
        except ValueError:
            url = URL()
        if url.scheme not in {"http", "https"} or not url.host or url.query_string or url.fragment:
            raise Misconfigured(f"{self.shown} is no web address: write it as http://host:5601")
        if self.space and _SPACE.fullmatch(self.space) is None:
            raise Misconfigured(f"--space {self.space!r} is no space: they are named with a-z, 0-9, _ and -")

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        # Kibana takes no changes without this header: no page of another site can send it.
        headers = {"kbn-xsrf": "true", "Accept": "application/json", **self.credentials.headers()}
        connector = aiohttp.TCPConnector(ssl=_trust(self.ca))
        timeout = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
            yield session

    async def _look_for_space(self, line: "_Line") -> None:
        """Look whether there is the space: Kibana would import into one that nobody can open."""
        if not self._space_path:
            return
        answer = await line.ask("GET", f"{self._root}/api/spaces/space/{self.space}")
        if answer.status == HTTPStatus.NOT_FOUND:
            raise Misconfigured(f"--space {self.space}: this Kibana has no such space; make it first, or name another")
        check_denied(self.shown, answer)
        if answer.status != HTTPStatus.OK:
            raise KibanaRefused(f"{self.shown} cannot tell whether it has the space {self.space}: {answer.reason()}")


class _Line:
    """A line to a Kibana, on which is asked again while it is away, for as long as there is patience."""

    def __init__(
        self, session: aiohttp.ClientSession, patience: float, waiting: Callable[[str], None], shown: str
    ) -> None:
        self._session = session
        self._patience = patience
        self._deadline = asyncio.get_running_loop().time() + patience
        self._waiting = waiting
        self._shown = shown
        self._is_told = False

    async def ask(self, method: str, address: str, objects: bytes | None = None) -> Answer:
        """Return what it answers, once it does; raises `KibanaAway` and `Misconfigured`."""
        pause = _FIRST_PAUSE_SECONDS
        while isinstance(answer := await self._once(method, address, objects), str):
            left = self._deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise KibanaAway(f"{self._shown} does not answer: {answer}")
            if not self._is_told:
                self._waiting(f"{self._shown} does not answer yet: {answer}; waiting for up to {self._patience:g} s")
                self._is_told = True
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        return answer

    async def _once(self, method: str, address: str, objects: bytes | None) -> Answer | str:
        """Return what it answers, or why it does not."""
        try:
            async with self._session.request(
                method, address, data=None if objects is None else _form(objects), allow_redirects=False
            ) as response:
                answer = Answer(response.status, await response.read())
        except aiohttp.ClientConnectorCertificateError as error:
            reason = error.certificate_error
            raise Misconfigured(
                f"{self._shown}: its certificate is not to be trusted ({reason}); name the file with the certificate "
                "that signed it with --ca"
            ) from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise Misconfigured(f"{self._shown} is no web address: write it as http://host:5601") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return str(error) or type(error).__name__
        return answer.reason() if answer.status in _BUSY else answer


def _form(objects: bytes) -> aiohttp.FormData:
    form = aiohttp.FormData()
    # Kibana looks at the end of the name.
    form.add_field("file", objects, filename=_FILE_NAME, content_type="application/ndjson")
    return form


def _trust(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError):
        raise Misconfigured(f"--ca {ca} is no file with certificates, in PEM") from None


EXIT_FAILED: Final = 2
EXIT_INTERRUPTED: Final = 130

_USUAL_URL: Final = "http://127.0.0.1:5601"

Prefix = Annotated[
    str | None,
    typer.Option(
        envvar="METRONOME_INDEX_PREFIX",
        help="What the names of the events' indices begin with, as the server's setting says.",
        show_default="metronome",
    ),
]

dashboard_commands = typer.Typer(no_args_is_help=True)


@dashboard_commands.command("install")
def install(  # noqa: PLR0913  # one argument for each option
    *,
    kibana: Annotated[str, typer.Option(envvar="METRONOME_KIBANA", help="The Kibana's address.")] = _USUAL_URL,
    space: Annotated[
        str, typer.Option(metavar="NAME", help="The space that gets them.", show_default="the default one")
    ] = "",
    index_prefix: Prefix = None,
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
    patience: Annotated[
        float, typer.Option(min=0, help="For how many seconds to wait for a Kibana that is away, or starting.")
    ] = 60,
) -> None:
    """Install the data view and the dashboards in a Kibana; again, to bring them up to date."""
    try:
        prefix = _checked_prefix(index_prefix)
        objects = bundle(prefix)
        there = Kibana(kibana, Credentials(key, user, password), space, ca, patience)
        work = there.install(ndjson(objects), len(objects), _say, overwrite=overwrite)
        installed = asyncio.run(work)
    except KeyboardInterrupt:
        _say("interrupted; run it again to have all of it installed")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except MetronomeError as error:
        raise _failed(error) from None
    typer.echo(_dashboards_told(installed, there, prefix))


@dashboard_commands.command("write")
def write(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Is made if it is not there.")],
    *,
    index_prefix: Prefix = None,
) -> None:
    """Write the data view and the dashboards into a folder, as a file that Kibana imports."""
    try:
        prefix = _checked_prefix(index_prefix)
        objects = bundle(prefix)
        file = folder / f"{prefix}.ndjson"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_bytes(ndjson(objects))
        except OSError as error:
            raise Misconfigured(f"{file} cannot be written: {error.strerror}; name another folder") from None
    except MetronomeError as error:
        raise _failed(error) from None
    typer.echo(f"{len(objects)} objects are in {file}: import it in Kibana, under Stack Management, Saved Objects")


def _checked_prefix(prefix: str | None) -> str:
    return read_settings({"index_prefix": prefix}).index_prefix


def _dashboards_told(installed: Installed, kibana: Kibana, prefix: str) -> str:
    version = f"Kibana {installed.version}" if installed.version else "Kibana"
    return "\n".join(
        [
            f"{installed.objects} objects are in {version}: a data view of {prefix}-*, its panels, and the dashboards",
            *(f"  {kibana.address_of(dashboard)}" for dashboard in dashboard_ids(prefix)),
        ]
    )


def _failed(error: MetronomeError) -> typer.Exit:
    _say(f"{error}; {error.advice}")
    return typer.Exit(EXIT_FAILED)


def _say(sentence: str) -> None:
    note(f"metronome dashboards: {sentence}")
