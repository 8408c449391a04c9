"""Bodies are decompressed within limits of memory and time."""

import gzip
import io
import time
import tracemalloc
import zlib
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from aiohttp import ClientSession, web
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import Malformed, MetronomeError, PayloadTooLarge, UnsupportedEncoding
from metronome.protocol import parse_form
from metronome.server.app import build_app, build_runner
from metronome.web.bodies import decompress, flatten_multipart_form, read_body
from metronome.web.problems import problem_response

LIMIT = 2**20
Encode = Callable[[bytes], bytes]


def raw_deflate(body: bytes) -> bytes:
    """Encode as clients that take ``deflate`` literally."""
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return encoder.compress(body) + encoder.flush()


def streamed(body: bytes) -> bytes:
    """Encode without knowing the length in advance."""
    encoder = zstd.ZstdCompressor()
    return b"".join([encoder.compress(body[:10]), encoder.compress(body[10:]), encoder.flush()])


ENCODERS: list[tuple[str, Encode]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("zstd", zstd.compress),
    ("zstd", streamed),
]
each_encoder = pytest.mark.parametrize(("name", "encode"), ENCODERS)


@each_encoder
@given(body=st.binary(max_size=200), times=st.sampled_from([1, 1, 2, 1000]))
def test_decompresses_what_was_compressed(name: str, encode: Encode, body: bytes, times: int) -> None:
    assert decompress(encode(body * times), name, LIMIT) == body * times


@each_encoder
def test_a_body_may_have_several_members(name: str, encode: Encode) -> None:
    parts = [b"", b"one\n", b"", b"two\n" * 10_000, b"three\n"]
    assert decompress(b"".join(map(encode, parts)), name, LIMIT) == b"".join(parts)


@each_encoder
def test_rejects_a_body_over_the_limit(name: str, encode: Encode) -> None:
    assert len(decompress(encode(b"x" * LIMIT), name, LIMIT)) == LIMIT
    for parts in ([LIMIT + 1], [LIMIT, 1], [1, LIMIT]):
        with pytest.raises(PayloadTooLarge, match=r"over body_max_bytes \(1048576 bytes, decompressed\)"):
            decompress(b"".join(encode(b"x" * size) for size in parts), name, LIMIT)


@pytest.mark.slow
@each_encoder
def test_a_decompression_bomb_takes_no_more_memory_than_the_limit(name: str, encode: Encode) -> None:
    bomb = encode(b"\0" * 200 * LIMIT)
    assert len(bomb) < LIMIT
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge):
            decompress(bomb, name, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 8 * LIMIT
    finally:
        tracemalloc.stop()


@each_encoder
def test_rejects_a_body_of_too_many_members_quickly(name: str, encode: Encode) -> None:
    assert decompress(encode(b"") * 1000, name, LIMIT) == b""
    began = time.process_time()
    with pytest.raises(Malformed, match="compress it as one"):
        decompress(encode(b"") * 500_000, name, LIMIT)
    assert time.process_time() - began < 5


@each_encoder
def test_rejects_an_incomplete_body(name: str, encode: Encode) -> None:
    body = encode(b"one two three " * 3)
    for end in range(1, len(body)):
        with pytest.raises(Malformed, match=r"incomplete|is not valid"):
            decompress(body[:end], name, LIMIT)


@each_encoder
@given(garbage=st.binary(min_size=1))
def test_any_bytes_are_decompressed_or_rejected(name: str, encode: Encode, garbage: bytes) -> None:
    for body in (garbage, encode(b"one") + garbage):
        try:
            decompress(body, name, LIMIT)
        except (Malformed, PayloadTooLarge):
            continue


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
def test_an_empty_body_is_empty_in_any_encoding(name: str) -> None:
    assert decompress(b"", name, LIMIT) == b""


@pytest.mark.parametrize("name", ["br", "compress", "GZIP", "chunked", "x" * 10_000])
def test_rejects_another_encoding_and_lists_the_supported_ones(name: str) -> None:
    with pytest.raises(UnsupportedEncoding, match="expected one of gzip, deflate, zstd") as caught:
        decompress(b"x", name, LIMIT)
    assert len(str(caught.value)) < 150


@pytest.fixture
async def echo() -> AsyncIterator[Callable[[bytes, str], Awaitable[tuple[int, bytes]]]]:
    """Provide a real server that responds with the body that it read."""

    async def handle(request: web.Request) -> web.Response:
        try:
            return web.Response(body=await read_body(request, LIMIT))
        except MetronomeError as error:
            return problem_response(error)

    runner = build_runner(build_app([web.post("/", handle)], LIMIT), 1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with ClientSession() as session:

        async def send(body: bytes, encoding: str) -> tuple[int, bytes]:
            headers = {"Content-Encoding": encoding} if encoding else {}
            async with session.post(url, data=io.BytesIO(body), headers=headers) as answer:
                return answer.status, await answer.read()

        yield send
    await runner.cleanup()


BODY = b"one two three\n" * 1000


@pytest.mark.parametrize(
    ("encoding", "encoded"),
    [
        ("", BODY),
        ("identity", BODY),
        ("gzip", gzip.compress(BODY)),
        ("GZip", gzip.compress(BODY)),
        ("zstd", zstd.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
        ("gzip, zstd", zstd.compress(gzip.compress(BODY))),
        (" deflate ,identity,, zstd", zstd.compress(zlib.compress(BODY))),
    ],
)
async def test_decodes_several_encodings_from_the_last_to_the_first(
    echo: Callable[[bytes, str], Awaitable[tuple[int, bytes]]], encoding: str, encoded: bytes
) -> None:
    assert await echo(encoded, encoding) == (200, BODY)


@pytest.mark.parametrize("encoding", ["", "gzip"])
async def test_a_byte_order_mark_is_ignored(
    echo: Callable[[bytes, str], Awaitable[tuple[int, bytes]]], encoding: str
) -> None:
    body = BOM_UTF8 + BODY
    assert await echo(gzip.compress(body) if encoding else body, encoding) == (200, BODY)


@pytest.mark.parametrize(
    ("encoding", "encoded", "status"),
    [
        ("br", BODY, 415),
        ("gzip, br", BODY, 415),
        (", ".join(["gzip"] * 5), BODY, 415),
        ("gzip", BODY, 400),
        ("gzip", gzip.compress(BODY)[:-1], 400),
        ("zstd, gzip", zstd.compress(gzip.compress(BODY)), 400),
        ("", b"x" * (LIMIT + 1), 413),
        ("gzip", gzip.compress(b"x" * (LIMIT + 1)), 413),
        ("gzip, gzip", gzip.compress(gzip.compress(b"x" * 100 * LIMIT)), 413),
    ],
)
async def test_rejects_undecodable_bodies_with_their_status(
    echo: Callable[[bytes, str], Awaitable[tuple[int, bytes]]], encoding: str, encoded: bytes, status: int
) -> None:
    assert (await echo(encoded, encoding))[0] == status


@pytest.mark.parametrize(
    ("charset", "body", "expected"),
    [
        ("iso-8859-1", '{"a":"é"}'.encode("latin-1"), '{"a":"é"}'),
        ("iso-8859-1", '{"a":"é"}'.encode(), '{"a":"é"}'),
        ("utf-16", '{"a":"é"}'.encode("utf-16"), '{"a":"é"}'),
        ("utf-16le", '{"a":"é"}'.encode("utf-16-le"), '{"a":"é"}'),
        ("zip", b"abc", "abc"),
    ],
)
async def test_a_body_in_another_charset_is_recoded(charset: str, body: bytes, expected: str) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=await read_body(request, LIMIT))

    runner = build_runner(build_app([web.post("/", handle)], LIMIT), 1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    headers = {"Content-Type": f"application/json; charset={charset}"}
    async with ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
        assert (await answer.read()).decode() == expected
    await runner.cleanup()


def multipart(*parts: bytes, end: bytes = b"--x--\r\n") -> bytes:
    return b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + end


def part(name: str, value: bytes, rest: str = "") -> bytes:
    return f'Content-Disposition: form-data; name="{name}"{rest}\r\n\r\n'.encode() + value


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=x", 'multipart/form-data; a=b; Boundary="x"'])
def test_a_multipart_form_becomes_a_form(content_type: str) -> None:
    body = multipart(
        part("a", b"1&2"),
        part("b", b"\r\n--y\r\n"),
        part("c%22d", "é".encode()),
        part("f", b"\xff", '; filename="a.txt"\r\nContent-Type: text/plain'),
        b"content-type: text/plain\r\nCONTENT-DISPOSITION:form-data;name=g\r\n\r\n",
    )
    assert parse_form(flatten_multipart_form(b"preamble\r\n" + body, content_type)) == [
        ("a", "1&2"),
        ("b", "\r\n--y\r\n"),
        ('c"d', "é"),
        ("f", "%FF"),
        ("g", ""),
    ]
    assert flatten_multipart_form(b"--x--\r\n", content_type) == b""


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (multipart(part("a", b"1")), "multipart/form-data"),
        (multipart(part("a", b"1")), "multipart/form-data; boundary=z"),
        (multipart(part("a", b"1"), end=b""), "multipart/form-data; boundary=x"),
        (multipart(b"no headers"), "multipart/form-data; boundary=x"),
        (multipart(b"Content-Type: a/b\r\n\r\n1"), "multipart/form-data; boundary=x"),
        (b"", "multipart/form-data; boundary=x"),
        (multipart(*[part("a", b"1")] * 1001), "multipart/form-data; boundary=x"),
    ],
)
def test_an_invalid_multipart_form_is_rejected(body: bytes, content_type: str) -> None:
    with pytest.raises((Malformed, PayloadTooLarge)):
        flatten_multipart_form(body, content_type)


@given(st.binary(max_size=60) | st.lists(st.sampled_from([b"--x", b"\r\n", b"--", b"; name=", b"a"])).map(b"".join))
def test_any_bytes_are_a_multipart_form_or_rejected(body: bytes) -> None:
    with suppress(Malformed, PayloadTooLarge):
        flatten_multipart_form(body, "multipart/form-data; boundary=x")
