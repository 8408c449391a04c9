"""Speaks to a Kibana: waits for it, asks what it is, and has it import saved objects."""

import asyncio
import contextlib
import re
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp
from yarl import URL

from metronome.cli.kibana_answers import Answer, check_denied, checked_import, checked_version
from metronome.cli.sender import checked_key
from metronome.errors import KibanaAway, KibanaRefused, Misconfigured

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
