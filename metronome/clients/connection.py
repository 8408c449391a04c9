"""The line to a target: one that is kept open, over which batches are posted."""

import ssl
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

from metronome.clients.verdicts import Answer

FAILURES: Final = (OSError, HTTPException, ValueError)
"""What may go wrong on a line; a `ValueError` is of an answer that is no HTTP."""

_BODY_MAX_BYTES: Final = 1_048_576
_AT_ONCE: Final = 65_536


class Connection:
    """Posts to one address, and opens the line anew where it was closed.

    Proxies that the environment names are not asked: what is reported stays between host and target.

    Args:
        url: the address.
        timeout_seconds: how long the target may be silent, and how long an answer's body may take.

    """

    def __init__(self, url: str, timeout_seconds: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        self._path = parts.path + (f"?{parts.query}" if parts.query else "")
        self._secure = parts.scheme == "https"
        self._timeout = timeout_seconds
        self._line: HTTPConnection | None = None

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post a body and return what is answered.

        Raises:
            OSError: the target is away, or did not answer in time. It may have taken the body all the same.
            HTTPException: what it answered is no HTTP.
            ValueError: likewise.

        """
        line, self._line = self._line, None
        if line is not None:
            try:
                return self._post(line, body, headers)
            except ConnectionError:
                # Nobody was at fault: targets close lines over which nothing comes for a while.
                pass
        return self._post(self._open(), body, headers)

    def _post(self, line: HTTPConnection, body: bytes, headers: Mapping[str, str]) -> Answer:
        try:
            line.request("POST", self._path, body, dict(headers))
            response = line.getresponse()
            found = bytearray()
            deadline = monotonic() + self._timeout
            while part := response.read1(_AT_ONCE):
                found += part
                if len(found) > _BODY_MAX_BYTES or monotonic() > deadline:
                    raise TimeoutError("the answer does not end")
            answered = {name.lower(): value for name, value in response.getheaders()}
            if response.will_close or not response.isclosed():
                line.close()
            else:
                self._line = line
            return Answer(response.status, answered, bytes(found))
        except BaseException:
            line.close()
            raise

    def close(self) -> None:
        """Close the line, if one is open."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _open(self) -> HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)
        return HTTPConnection(self._host, self._port, timeout=self._timeout)
