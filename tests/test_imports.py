"""Imports go one way only, and each module can be imported alone."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "metronome"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
LAYERS = [
    ["metronome"],
    ["metronome.errors", "metronome.clients"],
    ["metronome.timestamps", "metronome.enrich", "metronome.keys", "metronome.identities"],
    ["metronome.locks", "metronome.disk", "metronome.web"],
    ["metronome.dashboards"],
    ["metronome.config", "metronome.telemetry"],
    ["metronome.event", "metronome.question"],
    ["metronome.trails", "metronome.documents"],
    ["metronome.dialects", "metronome.stores.store", "metronome.stores", "metronome.state.state", "metronome.state"],
    ["metronome.stores.elasticsearch.connection"],
    ["metronome.stores.duckdb", "metronome.stores.elasticsearch", "metronome.stores.conformance"],
    ["metronome.state.sqlite", "metronome.state.elasticsearch", "metronome.state.conformance"],
    ["metronome.patience", "metronome.spool", "metronome.dead", "metronome.reports"],
    ["metronome.archives"],
    ["metronome.intake", "metronome.ship", "metronome.roll"],
    ["metronome.service"],
    ["metronome.cli"],
]
"""From the bottom up: a module may import what lies below it, and its neighbours of the same name."""
FORBIDDEN = [
    ("metronome.dialects", "metronome.stores"),
    ("metronome.event", "metronome.question"),
    ("metronome.question", "metronome.event"),
    ("metronome.stores.store", "metronome.event"),
    ("metronome.stores.duckdb", "metronome.stores.elasticsearch"),
    ("metronome.stores.elasticsearch", "metronome.stores.duckdb"),
    ("metronome.stores.elasticsearch", "metronome.stores.conformance"),
    ("metronome.stores.duckdb", "metronome.stores.conformance"),
    ("metronome.stores", "metronome.config"),
    ("metronome.stores", "metronome.telemetry"),
    ("metronome.state", "metronome.stores.store"),
    ("metronome.state", "metronome.stores.elasticsearch.store"),
    ("metronome.state", "metronome.config"),
    ("metronome.state.sqlite", "metronome.state.conformance"),
    ("metronome.state.elasticsearch", "metronome.state.conformance"),
    ("metronome.reports", "metronome.stores.duckdb"),
    ("metronome.reports", "metronome.stores.elasticsearch"),
    ("metronome.reports", "metronome.event"),
    ("metronome.dashboards", "metronome.errors"),
    ("metronome.dashboards", "metronome.enrich"),
    ("metronome.spool", "metronome.event"),
    ("metronome.spool", "metronome.stores.duckdb"),
    ("metronome.intake", "metronome.stores.duckdb"),
    ("metronome.ship", "metronome.stores.duckdb"),
    ("metronome.ship", "metronome.stores.elasticsearch"),
    ("metronome.ship", "metronome.config"),
    ("metronome.ship", "metronome.archives"),
    ("metronome.roll", "metronome.archives.objects"),
    ("metronome.roll", "metronome.config"),
    ("metronome.archives", "metronome.config"),
    ("metronome.archives.archive", "metronome.archives.layout"),
    ("metronome.archives.objects", "metronome.archives.conformance"),
    ("metronome.spool", "metronome.archives"),
    ("metronome.intake", "metronome.config"),
]


@cache
def imports_of(module: str) -> frozenset[str]:
    """Return the modules of the project that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by dots: write the whole name"
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                found.add(whole if whole in MODULES else node.module or "")
    return frozenset(found & MODULES.keys())


def lies_in(module: str, part: str) -> bool:
    return module == part or module.startswith(f"{part}.")


def layer_of(module: str) -> tuple[int, str]:
    """Return how high a module lies, and in which part."""
    here = [(len(part), height, part) for height, layer in enumerate(LAYERS) for part in layer if lies_in(module, part)]
    _, height, part = max(here)
    assert part != "metronome" or module == "metronome", f"{module} lies in no layer: list it"
    return height, part


def test_a_module_imports_only_from_lower_layers_and_its_own_part() -> None:
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        for other in sorted(imports_of(module))
        if layer_of(other)[0] >= layer_of(module)[0] and layer_of(other)[1] != layer_of(module)[1]
    ]
    assert wrong == []


def test_parts_do_not_import_what_is_forbidden_to_them() -> None:
    unknown = {part for pair in FORBIDDEN for part in pair if not any(lies_in(module, part) for module in MODULES)}
    assert unknown == set()
    wrong = [
        f"{module} imports {imported}"
        for part, other in FORBIDDEN
        for module in MODULES
        if lies_in(module, part)
        for imported in sorted(imports_of(module))
        if lies_in(imported, other)
    ]
    assert wrong == []


BACK_ENDS = {
    "metronome.stores.duckdb",
    "metronome.stores.elasticsearch",
    "metronome.state.sqlite",
    "metronome.state.elasticsearch",
}


def test_only_the_composition_root_and_the_commands_know_which_back_ends_there_are() -> None:
    outside = {
        module
        for module in MODULES
        for imported in imports_of(module)
        if layer_of(imported)[1] in BACK_ENDS and layer_of(module)[1] != layer_of(imported)[1]
    }
    assert {layer_of(module)[1] for module in outside} <= {"metronome.service", "metronome.cli"}
    assert outside == {"metronome.service.parts"}


def loaded_with(module: str) -> set[str]:
    """Return the modules that importing a module runs before it: packages run before the modules in them."""
    parts = [imported.split(".")[:end] for imported in imports_of(module) for end in range(1, imported.count(".") + 2)]
    packages = {".".join(part) for part in parts}
    return {package for package in packages if not lies_in(module, package)} | imports_of(module)


def test_there_is_no_import_cycle_so_that_each_module_can_be_imported_alone() -> None:
    below = {module: loaded_with(module) for module in MODULES}
    while free := [module for module, needed in below.items() if not needed & below.keys()]:
        for module in free:
            del below[module]
    assert below == {}


def test_nothing_but_the_service_needs_a_web_server_to_be_imported() -> None:
    names = [name for name in MODULES if layer_of(name)[1] not in {"metronome.service", "metronome.cli"}]
    names.remove("metronome.clients.aiohttp")
    pure = [name for name in names if not lies_in(name, "metronome.stores") and name != "metronome.state.elasticsearch"]
    check = "import sys, importlib; [importlib.import_module(name) for name in sys.argv[1:]]; "
    check += "print([name for name in ('aiohttp', 'duckdb', 'elasticsearch', 'typer') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", check, *pure], capture_output=True, check=True, cwd=ROOT, timeout=60)
    assert found.stdout == b"[]\n"


CLIENTS_OF_FRAMEWORKS = {"metronome.clients.aiohttp": "aiohttp", "metronome.clients.django": "django"}


def test_the_clients_need_nothing_but_python_and_know_nothing_of_the_service() -> None:
    names = [name for name in MODULES if lies_in(name, "metronome.clients") and name not in CLIENTS_OF_FRAMEWORKS]
    check = "import sys, importlib; sys.modules['orjson'] = None; "
    check += "before = set(sys.modules); [importlib.import_module(name) for name in sys.argv[1:]]; "
    check += "new = {name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names; "
    check += "print(sorted(new), [name for name in sys.modules if name.startswith('metronome.') "
    check += "and not name.startswith('metronome.clients')])"
    found = subprocess.run([sys.executable, "-c", check, *names], capture_output=True, check=True, cwd=ROOT, timeout=60)
    assert found.stdout == b"['metronome'] []\n"


@pytest.mark.parametrize(("module", "framework"), CLIENTS_OF_FRAMEWORKS.items())
def test_a_client_of_a_framework_needs_that_framework_only(module: str, framework: str) -> None:
    heavy = {"aiohttp", "duckdb", "elasticsearch", "typer", "django", "flask", "starlette"} - {framework}
    check = "import sys, importlib; importlib.import_module(sys.argv[1]); "
    check += "print([name for name in sys.argv[2:] if name in sys.modules])"
    command = [sys.executable, "-c", check, module, *sorted(heavy)]
    found = subprocess.run(command, capture_output=True, check=True, cwd=ROOT, timeout=60)
    assert found.stdout == b"[]\n"
