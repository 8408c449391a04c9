"""Imports point one way: between rooms, between the protocols' rooms, and between files."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
MODULES: Final = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "metronome").rglob("*.py"))
}
FLOORS: Final = (
    {"", "errors", "scopes", "middleware", "matomo_parameters"},
    {"times", "files", "telemetry"},
    {"retry"},
    {"server_client"},
    {"fields"},
    {"config"},
    {"enrich"},
    {"items", "partial_requests"},
    {"event"},
    {"protocol"},
    {"stores"},
    {"state"},
    {"spool", "auth"},
    {"archive"},
    {"intake", "shipper", "archiver"},
    {"demo"},
    {"visibility"},
    {"erasures", "backup"},
    {"reports"},
    {"web"},
    {"page"},
    {"protocols"},
    {"server"},
    {"importer", "exports"},
    {"cli"},
    {"__main__"},
)
"""The rooms of the package, from the ground up: a room may import the floors below its own."""
INDEPENDENT: Final = ({"middleware", "errors", "scopes"}, {"spool", "auth"}, {"intake", "shipper", "archiver"})
"""Rooms of one floor that must not import each other."""
SHARED_BY_PROTOCOLS: Final = {"records", "access_logs"}
"""The protocols' modules that other protocols may import: records of log shippers, and parsers of access logs."""
WITHOUT_A_SERVER: Final = (
    "metronome.protocols.access_logs.reader",
    "metronome.protocols.records",
    "metronome.protocols.registry",
    "metronome.protocols.syslog.messages",
    "metronome.reports.tock",
    "metronome.intake",
    "metronome.importer.batches",
)
BACK_ENDS: Final = ("stores.duckdb", "stores.elasticsearch", "state.sqlite", "state.elasticsearch", "archive.objects")
FRAMEWORKS: Final = {"metronome.middleware.aiohttp": "aiohttp", "metronome.middleware.django": "django"}


@cache
def imports_of(module: str) -> frozenset[str]:
    """Return the package's modules that a module imports, at its top level or inside functions."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} uses a relative import: use the absolute name"
            for name in node.names:
                submodule = f"{node.module}.{name.name}"
                imported.add(submodule if submodule in MODULES else node.module or "")
    return frozenset(imported & MODULES.keys() - {module})


def room_of(module: str) -> str:
    """Return the first part of a module's name below the package; the package itself has the room ''."""
    return module.partition(".")[2].partition(".")[0]


def floor_of(module: str) -> int:
    floors = [number for number, rooms in enumerate(FLOORS) if room_of(module) in rooms]
    assert len(floors) == 1, f"{module} is on {len(floors)} floors: list its room in FLOORS once"
    return floors[0]


def test_floors_list_existing_rooms() -> None:
    assert set().union(*FLOORS) - {room_of(module) for module in MODULES} == set()


def test_rooms_import_only_the_floors_below() -> None:
    violations = [
        f"{module} imports {other}"
        for module in MODULES
        for other in sorted(imports_of(module))
        if room_of(module) != room_of(other)
        and (
            floor_of(other) > floor_of(module)
            or any({room_of(module), room_of(other)} <= rooms for rooms in INDEPENDENT)
        )
    ]
    assert violations == []


def test_protocols_do_not_import_each_other() -> None:
    def protocol_of(module: str) -> str:
        return module.removeprefix("metronome.protocols").strip(".").partition(".")[0]

    modules = [module for module in MODULES if room_of(module) == "protocols" and protocol_of(module) != "registry"]
    violations = [
        f"{module} imports {other}"
        for module in modules
        for other in sorted(imports_of(module))
        if room_of(other) == "protocols" and protocol_of(other) not in {protocol_of(module), "", *SHARED_BY_PROTOCOLS}
    ]
    assert violations == []


def test_only_the_server_imports_the_registry_and_only_composition_imports_the_back_ends() -> None:
    def importers(name: str) -> set[str]:
        module = f"metronome.{name}"
        return {
            room_of(importer)
            for importer in MODULES
            for other in imports_of(importer)
            if other == module or other.startswith(f"{module}.")
            if importer != module and not importer.startswith(f"{module}.")
        }

    assert importers("protocols.registry") == {"server"}
    for name in BACK_ENDS:
        own_room = name.partition(".")[0]
        assert importers(name) - {own_room} <= {"server", "cli", "state"}, name


def loaded_with(module: str) -> set[str]:
    """Return the modules that run when a module is imported, including the packages that contain them."""
    parts = [imported.split(".")[:end] for imported in imports_of(module) for end in range(1, imported.count(".") + 2)]
    packages = {".".join(part) for part in parts}
    return {package for package in packages if not f"{module}.".startswith(f"{package}.")} | imports_of(module)


def test_modules_do_not_import_in_circles() -> None:
    unresolved = {module: loaded_with(module) for module in MODULES}
    while loadable := [module for module, required in unresolved.items() if not required & unresolved.keys()]:
        for module in loadable:
            del unresolved[module]
    assert unresolved == {}


def modules_loaded_by(*names: str, blocked: str = "") -> set[str]:
    """Return the modules that a new interpreter loads when it imports *names*, with those in *blocked* unavailable."""
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked.split()!r}))\nbefore = set(sys.modules)\n"
    code += "import importlib\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    code += "print(*(set(sys.modules) - before))"
    result = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, check=True, cwd=ROOT, timeout=60)
    return set(result.stdout.decode().split())


def test_parsers_and_reports_can_be_imported_without_a_server() -> None:
    assert not modules_loaded_by(*WITHOUT_A_SERVER) & {"aiohttp", "duckdb", "elasticsearch", "typer"}


def test_middleware_imports_only_the_standard_library() -> None:
    names = [module for module in MODULES if room_of(module) == "middleware" and module not in FRAMEWORKS]
    allowed = {"metronome", "metronome.middleware", "metronome.matomo_parameters", *names}
    loaded = modules_loaded_by(*names, blocked="orjson") - allowed
    # `sysconfig` loads a module named after the platform, which `sys.stdlib_module_names` does not list.
    loaded = {name for name in loaded if not name.startswith("_sysconfigdata_")}
    assert {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names} == set()


@pytest.mark.parametrize(("module", "framework"), FRAMEWORKS.items())
def test_middleware_for_a_framework_imports_only_that_framework(module: str, framework: str) -> None:
    third_party = {"aiohttp", "duckdb", "elasticsearch", "typer", "django", "flask", "starlette"}
    assert modules_loaded_by(module) & third_party == {framework}
