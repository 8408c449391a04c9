"""Configurations of ingest/ for programs that are not available in the build environment: syntax and settings."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from metronome.config import ENV_PREFIX, Settings
from tests.programs.programs import INGEST, filebeat, finish

FILES = sorted(path.relative_to(INGEST).as_posix() for path in INGEST.rglob("*.*"))
FACTS = ("Sends", "Buffers", "Resends", "Authenticates")
"""The facts that each configuration states."""


def read(name: str) -> str:
    return (INGEST / name).read_text()


def read_yaml(text: str, folder: Path) -> list[str]:
    """Return a YAML file as Filebeat reads it, with dotted names as nested ones."""
    file = folder / "read.yml"
    file.write_text(text)
    return finish(filebeat(file, folder, "export", "config")).splitlines()


def read_fluentd(text: str) -> dict[str, Any]:
    """Return the sections of a Fluentd configuration by their opening lines."""
    sections: list[dict[str, Any]] = [{}]
    opened: list[str] = []
    for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
        if line.startswith("</"):
            assert line == f"</{opened.pop().split()[0]}>"
            sections.pop()
        elif line.startswith("<"):
            opened.append(line.strip("<>"))
            sections.append(sections[-1].setdefault(opened[-1], {}))
        else:
            name, _, value = line.partition(" ")
            sections[-1][name] = value
    assert not opened
    return sections[0]


@pytest.mark.parametrize("name", [name for name in FILES if name != "logstash/pipelines.yml"])
def test_every_configuration_describes_buffering_retries_and_authentication(name: str) -> None:
    head = read(name).partition("\n\n")[0]
    assert [fact for fact in FACTS if f"# {fact}: " not in head] == []


@pytest.mark.parametrize("name", FILES)
def test_settings_named_in_configurations_exist(name: str) -> None:
    named = set(re.findall(rf"{ENV_PREFIX}([A-Z_]+)", read(name))) - {"KEY"}
    assert named <= {field.upper() for field in Settings.model_fields}


def test_fluent_bit_sends_all_lines_and_waits_for_acknowledgements(tmp_path: Path) -> None:
    lines = [line.strip(" -") for line in read_yaml(read("fluent-bit/fluent-bit.yaml"), tmp_path)]
    for tag in ("events", "access"):
        assert f"tag: {tag}" in lines
        assert f"match: {tag}" in lines
    assert lines.count("retry_limit: no_limits") == lines.count("type: filesystem") == 2
    assert {"uri: /tick", "port: 24224", "require_ack_response: true"} <= set(lines)
    databases = [line for line in lines if line.startswith("db: ")]
    assert len(set(databases)) == 2


def test_compose_opens_the_port_that_fluent_bit_sends_to(tmp_path: Path) -> None:
    lines = [line.strip(" -") for line in read_yaml((INGEST.parent / "docker-compose.yml").read_text(), tmp_path)]
    assert f"{ENV_PREFIX}FORWARD_PORT: 24224" in lines
    assert "./ingest/fluent-bit/fluent-bit.yaml:/fluent-bit/etc/fluent-bit.yaml:ro" in lines


def test_fluentd_waits_for_acknowledgements_and_its_chunks_fit_into_a_frame() -> None:
    match = read_fluentd(read("fluentd/fluent.conf"))["match access"]
    assert (match["require_ack_response"], match["buffer tag"]["retry_forever"]) == ("true", "true")
    limit = int(match["buffer tag"]["chunk_limit_size"].removesuffix("m")) * 2**20
    assert limit < Settings.model_fields["body_max_bytes"].default


def test_logstash_keeps_its_queue_on_disk_and_prepares_no_indices(tmp_path: Path) -> None:
    lines = [line.strip(" -") for line in read_yaml("pipelines:\n" + read("logstash/pipelines.yml"), tmp_path)]
    assert {"type: persisted", "config: /etc/logstash/access-log.conf"} <= set(lines)
    text = re.sub(r"#.*", "", read("logstash/access-log.conf"))
    plain = re.sub(r'"[^"]*"', '""', text)
    assert plain.count("{") == plain.count("}")
    assert plain.count("[") == plain.count("]")
    for line in ('path => "/es"', "ilm_enabled => false", "manage_template => false", "data_stream => false"):
        assert line in text


def test_vector_assigns_ids_to_lines_and_buffers_on_disk() -> None:
    found = tomllib.loads(read("vector/vector.toml"))
    known = {*found["sources"], *found["transforms"]}
    assert {name for part in ("transforms", "sinks") for one in found[part].values() for name in one["inputs"]} <= known
    for sink in found["sinks"].values():
        assert sink["buffer"]["type"] == "disk"
        assert sink["acknowledgements"]["enabled"]
        assert sink["batch"]["max_events"] <= Settings.model_fields["batch_max_events"].default
    hits = found["sinks"]["hits"]
    assert (hits["bulk"]["action"], hits["id_key"], hits["request_retry_partial"]) == ("create", "line_id", True)
