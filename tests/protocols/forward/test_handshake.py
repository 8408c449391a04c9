"""The handshake: HELO, PING and PONG."""

import hashlib
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgpack import packb, unpackb

from metronome.protocols.forward.handshake import ForwardHandshake

KEY: Final = "schlüssel"
NONCE: Final = bytes(range(16))
AUTH: Final = bytes(range(240, 256))
USERS: Final = {"alice": "secret", "bob": "pass:word"}
OPEN: Final = ForwardHandshake(KEY, NONCE, AUTH)
STRICT: Final = ForwardHandshake(KEY, NONCE, AUTH, USERS)
SALT: Final = b"\xff\x00salt of the host"


def digest(*contents: str | bytes) -> str:
    """Return the digest that the specification describes."""
    content = b"".join(part if isinstance(part, bytes) else part.encode() for part in contents)
    return hashlib.sha512(content).hexdigest()


def ping(key: str = KEY, user: str = "", word: str | None = None, host: str = "host") -> list[Any]:
    proof = digest(AUTH, user, word) if word is not None else ""
    return ["PING", host, SALT, digest(SALT, host, NONCE, key), user, proof]


def test_the_helo_holds_the_nonces() -> None:
    assert unpackb(OPEN.encode_helo()) == ["HELO", {"nonce": NONCE, "auth": b"", "keepalive": True}]
    assert unpackb(STRICT.encode_helo()) == ["HELO", {"nonce": NONCE, "auth": AUTH, "keepalive": True}]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("handshake", "message"),
    [
        (OPEN, ping()),
        (OPEN, ping(user="anyone", word="anything")),
        (OPEN, ping(host="")),
        (STRICT, ping(user="alice", word="secret")),
        (STRICT, ping(user="bob", word="pass:word")),
    ],
)
def test_accepts_valid_credentials_and_proves_the_server_s_key(
    handshake: ForwardHandshake, message: list[Any], *, old: bool
) -> None:
    result = handshake.verify_ping(packb(message, use_bin_type=not old))
    assert result.rejection_reason == ""
    assert unpackb(result.pong) == ["PONG", True, "", "metronome", digest(SALT, "metronome", NONCE, KEY)]


@pytest.mark.parametrize(
    ("handshake", "message", "reason"),
    [
        (OPEN, ping("wrong"), "shared_key mismatch"),
        (OPEN, ping(""), "shared_key mismatch"),
        (STRICT, ping("wrong", "alice", "secret"), "shared_key mismatch"),
        (STRICT, ping(), "username/password mismatch"),
        (STRICT, ping(user="alice"), "username/password mismatch"),
        (STRICT, ping(user="alice", word="pass:word"), "username/password mismatch"),
        (STRICT, ping(user="alic", word="esecret"), "username/password mismatch"),
        (STRICT, ping(user="carol", word="secret"), "username/password mismatch"),
        (OPEN, ping()[:5], "invalid ping message"),
        (OPEN, [*ping(), ""], "invalid ping message"),
        (OPEN, ["PONG", *ping()[1:]], "invalid ping message"),
        (OPEN, [*ping()[:3], 7, "", ""], "invalid ping message"),
        (OPEN, [*ping()[:4], None, None], "invalid ping message"),
        (OPEN, ["PING", {"a": 1}, *ping()[2:]], "invalid ping message"),
        (OPEN, ["t", 1421919000, {"id": "a"}], "invalid ping message"),
        (OPEN, "PING", "invalid ping message"),
        (OPEN, None, "invalid ping message"),
    ],
)
def test_rejects_invalid_credentials_with_a_reason(handshake: ForwardHandshake, message: object, reason: str) -> None:
    result = handshake.verify_ping(packb(message))
    assert result.rejection_reason == reason
    assert unpackb(result.pong) == ["PONG", False, reason, "", ""]


def test_rejects_a_ping_from_another_connection() -> None:
    assert ForwardHandshake(KEY, bytes(16), AUTH).verify_ping(packb(ping())).rejection_reason == "shared_key mismatch"
    other = ForwardHandshake(KEY, NONCE, bytes(16), USERS)
    assert other.verify_ping(packb(ping(user="alice", word="secret"))).rejection_reason == "username/password mismatch"


@given(st.binary(max_size=60))
def test_rejects_any_other_bytes(body: bytes) -> None:
    for frame in (body, b"\x96\xa4PING" + body, packb(["PING", body, body, body, body, body])):
        for handshake in (OPEN, STRICT):
            assert handshake.verify_ping(frame).rejection_reason
