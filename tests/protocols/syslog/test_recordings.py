"""Recordings of real syslog senders, with their versions."""

from typing import Any, Final, Literal, NamedTuple

import pytest

from metronome.event import Event, IngestConfig
from metronome.protocols.syslog.frames import SyslogFrameReader, strip_frame
from metronome.protocols.syslog.messages import parse_messages

RECEIVED_AT: Final = "2026-11-22T19:00:00.000Z"
CLIENT_IP: Final = "192.0.2.1"
AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
MAX_BYTES: Final = 65536


class Recording(NamedTuple):
    """The bytes of one TCP connection, or datagrams, and the events that they become."""

    transport: Literal["tcp", "udp"]
    pieces: list[bytes]
    events: list[dict[str, Any]]


RECORDINGS: Final = {
    # rsyslogd 8.2302.0, with ingest/rsyslog/syslog.conf
    "rsyslog": Recording(
        "tcp",
        [
            (
                b"214 <133>1 2026-11-22T19:02:34.067366+00:00 h1 nginx - - - 203.0.113.1 - - "
                b'[22/Nov/2026:19:02:34 +0000] "GET /data/a.csv?x=1 HTTP/1.1" 200 1 "-" '
                b'"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"\n'
                b"209 <133>1 2026-11-22T19:02:34.067436+00:00 h1 nginx - - - 203.0.113.2 - - "
                b'[22/Nov/2026:19:02:34 +0000] "GET /missing/b HTTP/1.1" 404 2 "-" '
                b'"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"\n'
            ),
        ],
        [
            {
                "facility": "local0",
                "severity": "notice",
                "host": "h1",
                "program": "nginx",
                "@timestamp": "2026-11-22T19:02:34.000Z",
                "clientip": "203.0.113.1",
                "method": "GET",
                "url": "/data/a.csv?x=1",
                "status": 200,
                "bytes": 1,
                "agent": AGENT,
                "event": "download",
                "id": "/data/a.csv",
                "format": "csv",
            },
            {
                "facility": "local0",
                "severity": "notice",
                "host": "h1",
                "program": "nginx",
                "@timestamp": "2026-11-22T19:02:34.000Z",
                "clientip": "203.0.113.2",
                "method": "GET",
                "url": "/missing/b",
                "status": 404,
                "bytes": 2,
                "agent": AGENT,
                "event": "error",
                "id": "/missing/b",
            },
        ],
    ),
    # syslog-ng 3.38.1, with ingest/syslog-ng/syslog.conf
    "syslog-ng": Recording(
        "tcp",
        [
            b"226 ",
            (
                b'<13>1 2026-11-22T19:02:41+00:00 h1 nginx - - [meta sequenceId="1"] 203.0.113.1 - - '
                b'[22/Nov/2026:19:02:41 +0000] "GET /data/a.csv?x=1 HTTP/1.1" 200 1 "-" '
                b'"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"\n'
                b'221 <13>1 2026-11-22T19:02:41+00:00 h1 nginx - - [meta sequenceId="2"] 203.0.113.2 - - '
                b'[22/Nov/2026:19:02:41 +0000] "GET /missing/b HTTP/1.1" 404 2 "-" '
                b'"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"\n'
            ),
        ],
        [
            {
                "facility": "user",
                "severity": "notice",
                "host": "h1",
                "program": "nginx",
                "sequenceId": "1",
                "@timestamp": "2026-11-22T19:02:41.000Z",
                "clientip": "203.0.113.1",
                "method": "GET",
                "url": "/data/a.csv?x=1",
                "status": 200,
                "bytes": 1,
                "agent": AGENT,
                "event": "download",
                "id": "/data/a.csv",
                "format": "csv",
            },
            {
                "facility": "user",
                "severity": "notice",
                "host": "h1",
                "program": "nginx",
                "sequenceId": "2",
                "@timestamp": "2026-11-22T19:02:41.000Z",
                "clientip": "203.0.113.2",
                "method": "GET",
                "url": "/missing/b",
                "status": 404,
                "bytes": 2,
                "agent": AGENT,
                "event": "error",
                "id": "/missing/b",
            },
        ],
    ),
    # logger of util-linux 2.38.1, started by Apache 2.4 with ingest/apache/syslog.conf
    "Apache with logger": Recording(
        "tcp",
        [
            (
                b"263 <13>1 2026-11-22T19:02:55.353108+00:00 h1 apache - - "
                b'[timeQuality tzKnown="1" isSynced="0"] localhost:80 127.0.0.1 - - [22/Nov/2026:19:02:55 +0000] '
                b'"GET /data/a.csv?x=1 HTTP/1.1" 200 687 "-" '
                b'"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"'
            ),
            (
                b"258 <13>1 2026-11-22T19:02:55.354156+00:00 h1 apache - - "
                b'[timeQuality tzKnown="1" isSynced="0"] localhost:80 127.0.0.1 - - [22/Nov/2026:19:02:55 +0000] '
                b'"GET /missing/b HTTP/1.1" 404 397 "-" '
                b'"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"'
            ),
        ],
        [
            {
                "facility": "user",
                "severity": "notice",
                "host": "localhost",
                "program": "apache",
                "tzKnown": "1",
                "isSynced": "0",
                "@timestamp": "2026-11-22T19:02:55.000Z",
                "clientip": "127.0.0.1",
                "method": "GET",
                "url": "/data/a.csv?x=1",
                "status": 200,
                "bytes": 687,
                "agent": AGENT,
                "event": "download",
                "id": "/data/a.csv",
                "format": "csv",
            },
            {
                "facility": "user",
                "severity": "notice",
                "host": "localhost",
                "program": "apache",
                "tzKnown": "1",
                "isSynced": "0",
                "@timestamp": "2026-11-22T19:02:55.000Z",
                "clientip": "127.0.0.1",
                "method": "GET",
                "url": "/missing/b",
                "status": 404,
                "bytes": 397,
                "agent": AGENT,
                "event": "error",
                "id": "/missing/b",
            },
        ],
    ),
    # logger of util-linux 2.38.1, by hand
    "logger --tcp --rfc3164": Recording(
        "tcp",
        [
            b"<132>Nov 22 19:02:29 h1 job: disk is full\n",
        ],
        [
            {
                "facility": "local0",
                "severity": "warning",
                "@timestamp": "2026-11-22T19:02:29.000Z",
                "host": "h1",
                "program": "job",
                "event": "log",
                "message": "disk is full",
            },
        ],
    ),
    "logger --udp --msgid --sd-id": Recording(
        "udp",
        [
            (
                b"<13>1 2026-11-22T19:02:29.846754+00:00 h1 job 26228 DISK "
                b'[timeQuality tzKnown="1" isSynced="0"][zoo@32473 tiger="hungry"] disk is full'
            ),
        ],
        [
            {
                "facility": "user",
                "severity": "notice",
                "@timestamp": "2026-11-22T19:02:29.846Z",
                "host": "h1",
                "program": "job",
                "procid": "26228",
                "msgid": "DISK",
                "tzKnown": "1",
                "isSynced": "0",
                "tiger": "hungry",
                "event": "log",
                "message": "disk is full",
            },
        ],
    ),
    "logger --udp --rfc3164 -i": Recording(
        "udp",
        [
            b"<13>Nov 22 19:02:30 h1 job[26236]: disk is full",
        ],
        [
            {
                "facility": "user",
                "severity": "notice",
                "@timestamp": "2026-11-22T19:02:30.000Z",
                "host": "h1",
                "program": "job",
                "procid": "26236",
                "event": "log",
                "message": "disk is full",
            },
        ],
    ),
    "logger --udp --rfc5424=nohost": Recording(
        "udp",
        [
            (
                b'<13>1 2026-11-22T19:02:30.454642+00:00 - job 77 - [timeQuality tzKnown="1" isSynced="0"] '
                b"nobody's host"
            ),
        ],
        [
            {
                "facility": "user",
                "severity": "notice",
                "@timestamp": "2026-11-22T19:02:30.454Z",
                "program": "job",
                "procid": "77",
                "tzKnown": "1",
                "isSynced": "0",
                "host": "192.0.2.1",
                "event": "log",
                "message": "nobody's host",
            },
        ],
    ),
    "logger --udp --rfc5424=notime,notq": Recording(
        "udp",
        [
            b"<13>1 - h1 job - - - no time",
        ],
        [
            {
                "facility": "user",
                "severity": "notice",
                "host": "h1",
                "program": "job",
                "event": "log",
                "message": "no time",
            },
        ],
    ),
    # NGINX 1.22.1, with ingest/nginx/syslog.conf
    "NGINX": Recording(
        "udp",
        [
            (
                b'<190>Nov 22 19:02:48 nginx: {"time":"2026-11-22T19:02:48+00:00","remote_addr":"127.0.0.1",'
                b'"remote_user":"","host":"127.0.0.1","method":"GET","request_uri":"/data/a.csv?x=1","status":"200",'
                b'"body_bytes_sent":"4","request_time":"0.000","http_referer":"",'
                b'"http_user_agent":"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}'
            ),
            (
                b'<190>Nov 22 19:02:48 nginx: {"time":"2026-11-22T19:02:48+00:00","remote_addr":"127.0.0.1",'
                b'"remote_user":"","host":"127.0.0.1","method":"GET","request_uri":"/missing/b","status":"404",'
                b'"body_bytes_sent":"153","request_time":"0.000","http_referer":"",'
                b'"http_user_agent":"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}'
            ),
        ],
        [
            {
                "facility": "local7",
                "severity": "info",
                "program": "nginx",
                "host": "127.0.0.1",
                "url": "/data/a.csv?x=1",
                "method": "GET",
                "clientip": "127.0.0.1",
                "status": 200,
                "@timestamp": "2026-11-22T19:02:48.000Z",
                "bytes": 4,
                "agent": AGENT,
                "duration": 0,
                "event": "download",
                "id": "/data/a.csv",
                "format": "csv",
            },
            {
                "facility": "local7",
                "severity": "info",
                "program": "nginx",
                "host": "127.0.0.1",
                "url": "/missing/b",
                "method": "GET",
                "clientip": "127.0.0.1",
                "status": 404,
                "@timestamp": "2026-11-22T19:02:48.000Z",
                "bytes": 153,
                "agent": AGENT,
                "duration": 0,
                "event": "error",
                "id": "/missing/b",
            },
        ],
    ),
    # NGINX 1.22.1, with `access_log syslog:server=...,tag=nginx combined`
    "NGINX, combined": Recording(
        "udp",
        [
            (
                b"<190>Nov 22 19:04:12 h1 nginx: 127.0.0.1 - - [22/Nov/2026:19:04:12 +0000] "
                b'"GET /data/a.csv?x=1 HTTP/1.1" 200 4 "-" '
                b'"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"'
            ),
        ],
        [
            {
                "facility": "local7",
                "severity": "info",
                "host": "h1",
                "program": "nginx",
                "@timestamp": "2026-11-22T19:04:12.000Z",
                "clientip": "127.0.0.1",
                "method": "GET",
                "url": "/data/a.csv?x=1",
                "status": 200,
                "bytes": 4,
                "agent": AGENT,
                "event": "download",
                "id": "/data/a.csv",
                "format": "csv",
            },
        ],
    ),
}


def frames_of(recording: Recording) -> list[bytes]:
    """Return the messages in a recording."""
    if recording.transport == "udp":
        return [frame for datagram in recording.pieces for frame in strip_frame(datagram)]
    reader, frames = SyslogFrameReader(MAX_BYTES), list[bytes]()
    for piece in recording.pieces:
        complete, too_large = reader.feed(piece)
        assert too_large is None
        frames += complete
    return frames + reader.finish()


@pytest.mark.parametrize("name", RECORDINGS)
def test_converts_a_recording_to_events(name: str) -> None:
    events = parse_messages(frames_of(RECORDINGS[name]), RECEIVED_AT, CLIENT_IP, IngestConfig())
    assert [dict(event.fields) for event in events if isinstance(event, Event)] == RECORDINGS[name].events


@pytest.mark.parametrize("name", [name for name, recording in RECORDINGS.items() if recording.transport == "tcp"])
def test_frames_do_not_depend_on_how_the_network_splits_them(name: str) -> None:
    recording = RECORDINGS[name]
    pieces = [bytes([byte]) for byte in b"".join(recording.pieces)]
    assert frames_of(recording._replace(pieces=pieces)) == frames_of(recording)
