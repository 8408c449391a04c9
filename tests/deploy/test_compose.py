"""The Compose files: valid by the Compose specification, with settings that exist and one version of the image."""

import re
from typing import Any, Final

import pytest
from compose_spec import PyCompose

from metronome import __version__
from metronome.config import ENV_PREFIX, Settings
from tests.docs.pages import ROOT

FILES: Final = ("docker-compose.yml", "docker-compose.duckdb.yml")


def services_of(name: str) -> dict[str, Any]:
    """Return the services of a file as Compose reads it when no variable is set."""
    text = re.sub(r"\$\{[A-Z0-9_]+:-([^}]*)\}", r"\1", (ROOT / name).read_text())
    compose = PyCompose.from_yaml(text)
    compose.validate()
    services: dict[str, Any] = compose.to_dict()["services"]
    return services


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_valid_and_publishes_ports_on_the_loopback_interface_only(name: str) -> None:
    services = services_of(name)
    assert "metronome" in services
    published = re.findall(r'^      - "(.*:\d+)"$', (ROOT / name).read_text(), re.MULTILINE)
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


@pytest.mark.parametrize("name", FILES)
def test_metronomes_settings_exist_and_are_valid(name: str) -> None:
    variables = services_of(name)["metronome"]["environment"]
    settings = {
        variable.removeprefix(ENV_PREFIX).lower(): value
        for variable, value in variables.items()
        if variable.startswith(ENV_PREFIX) and value not in {"", None}
    }
    assert settings.keys() <= Settings.model_fields.keys()
    Settings(**settings)


@pytest.mark.parametrize("name", FILES)
def test_the_image_has_the_version_of_the_package(name: str) -> None:
    images = {service["image"] for service in services_of(name).values() if "build" in service}
    assert images == {f"metronome:{__version__}"}


def test_the_small_file_has_one_service_that_writes_only_to_its_volume() -> None:
    (service,) = services_of("docker-compose.duckdb.yml").values()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
