"""OTLP over HTTP, from the request to the tock."""

import gzip
import time
from urllib.request import Request, urlopen

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from tests.servers import Server


@pytest.mark.clock
def test_a_recorded_export_is_counted_once_when_it_is_sent_again(server: Server, item: str) -> None:
    message = ExportLogsServiceRequest()
    records = message.resource_logs.add().scope_logs.add().log_records
    for number in range(2):
        record = records.add(time_unix_nano=time.time_ns() // 1_000_000_000 * 1_000_000_000 + 1_000_000 + number)
        for name, value in (
            ("http.request.method", "GET"),
            ("url.path", f"/{item}"),
            ("client.address", "203.0.113.9"),
        ):
            record.attributes.add(key=name).value.string_value = value
        record.attributes.add(key="http.response.status_code").value.int_value = 200
    headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
    body = gzip.compress(message.SerializeToString())
    for _ in range(2):
        request = Request(f"{server.url}/v1/logs", body, headers)  # noqa: S310  # our own server
        with urlopen(request, timeout=30) as response:  # noqa: S310  # our own server
            assert (response.status, response.read()) == (200, b"")
    server.wait_until_shipped()
    assert sum(server.get(f"/tock//{item}.json")["views"].values()) == 2
