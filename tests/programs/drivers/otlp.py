"""Sends log records with OpenTelemetry's SDK: otlp.py URL PATH COUNT. Each is the request of a page."""

import logging
import sys

from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource

url, path, count = sys.argv[1:]
logging.basicConfig()
provider = LoggerProvider(Resource.create({"service.name": "portal"}))
exporter = OTLPLogExporter(endpoint=f"{url}/v1/logs", compression=Compression.Gzip)
provider.add_log_record_processor(BatchLogRecordProcessor(exporter, max_export_batch_size=7, schedule_delay_millis=100))
logger = provider.get_logger("tests")
for number in range(int(count)):
    logger.emit(
        body=f"request {number}",
        severity_number=SeverityNumber.INFO,
        attributes={
            "http.request.method": "GET",
            "http.response.status_code": 200,
            "url.path": path,
            "client.address": "203.0.113.9",
            "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        },
    )
provider.shutdown()
