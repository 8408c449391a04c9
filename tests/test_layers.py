"""Imports flow one way, each module stands alone, and none is too long to read."""

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
    ["metronome.errors", "metronome.middleware"],
    ["metronome.times", "metronome.enrich", "metronome.auth.keys", "metronome.event"],
    ["metronome.files", "metronome.files", "metronome.web"],
    ["metronome.dashboards"],
    ["metronome.config", "metronome.telemetry"],
    ["metronome.event", "metronome.stores.query"],
    ["metronome.stores.sequences", "metronome.event"],
    ["metronome.protocols", "metronome.stores.base", "metronome.stores", "metronome.state.base", "metronome.state"],
    ["metronome.stores.elasticsearch.connection"],
    ["metronome.stores.duckdb", "metronome.stores.elasticsearch", "tests.contracts.store"],
    ["metronome.state.sqlite", "metronome.state.elasticsearch", "tests.contracts.state"],
    ["metronome.retry", "metronome.spool", "metronome.spool.dead_letters", "metronome.reports"],
    ["metronome.archive"],
    ["metronome.intake", "metronome.shipper", "metronome.archiver"],
    ["metronome.server"],
    ["metronome.cli"],
]
"""From the bottom up: a module may import what lies below it, and its neighbours of the same name."""
FORBIDDEN = [
    ("metronome.protocols", "metronome.stores"),
    ("metronome.event", "metronome.stores.query"),
    ("metronome.stores.query", "metronome.event"),
    ("metronome.stores.base", "metronome.event"),
    ("metronome.stores.duckdb", "metronome.stores.elasticsearch"),
    ("metronome.stores.elasticsearch", "metronome.stores.duckdb"),
    ("metronome.stores.elasticsearch", "tests.contracts.store"),
    ("metronome.stores.duckdb", "tests.contracts.store"),
    ("metronome.stores", "metronome.config"),
    ("metronome.stores", "metronome.telemetry"),
    ("metronome.state", "metronome.stores.base"),
    ("metronome.state", "metronome.stores.elasticsearch.store"),
    ("metronome.state", "metronome.config"),
    ("metronome.state.sqlite", "tests.contracts.state"),
    ("metronome.state.elasticsearch", "tests.contracts.state"),
    ("metronome.reports", "metronome.stores.duckdb"),
    ("metronome.reports", "metronome.stores.elasticsearch"),
    ("metronome.reports", "metronome.event"),
    ("metronome.dashboards", "metronome.errors"),
    ("metronome.dashboards", "metronome.enrich"),
    ("metronome.spool", "metronome.event"),
    ("metronome.spool", "metronome.stores.duckdb"),
    ("metronome.intake", "metronome.stores.duckdb"),
    ("metronome.shipper", "metronome.stores.duckdb"),
    ("metronome.shipper", "metronome.stores.elasticsearch"),
    ("metronome.shipper", "metronome.config"),
    ("metronome.shipper", "metronome.archive"),
    ("metronome.archiver", "metronome.archive.objects"),
    ("metronome.archiver", "metronome.config"),
    ("metronome.archive", "metronome.config"),
    ("metronome.archive.base", "metronome.archive.segments"),
    ("metronome.archive.objects", "tests.contracts.archive"),
    ("metronome.spool", "metronome.archive"),
    ("metronome.intake", "metronome.config"),
]
AT_ONCE = 2


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


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_lies_below_it(module: str) -> None:
    height, part = layer_of(module)
    wrong = [other for other in imports_of(module) if layer_of(other)[0] >= height and layer_of(other)[1] != part]
    assert wrong == []


@pytest.mark.parametrize(("part", "other"), FORBIDDEN)
def test_what_knows_nothing_of_another_imports_none_of_it(part: str, other: str) -> None:
    assert any(lies_in(module, part) for module in MODULES)
    assert any(lies_in(module, other) for module in MODULES)
    wrong = [
        (module, imported)
        for module in MODULES
        if lies_in(module, part)
        for imported in imports_of(module)
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
    assert {layer_of(module)[1] for module in outside} <= {"metronome.server", "metronome.cli"}
    assert outside == {"metronome.server.bootstrap"}


def test_no_module_imports_itself_by_way_of_others() -> None:
    below = {module: set(imports_of(module)) for module in MODULES}
    while free := [module for module, needed in below.items() if not needed & below.keys()]:
        for module in free:
            del below[module]
    assert below == {}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_fewer_than_400_lines_and_says_what_it_is(module: str) -> None:
    text = MODULES[module].read_text()
    assert text.count("\n") < 400
    assert ast.get_docstring(ast.parse(text))


ALONE = """
import importlib, os, sys
import metronome.cli, metronome.server.worker  # What they need of others is loaded once, which saves seconds.
for name in list(sys.modules):
    if name.partition(".")[0] == "metronome":
        del sys.modules[name]
for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except BaseException as error:
            print(name, repr(error), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
"""Import each module in a process of its own that has nothing of the project yet."""


def test_each_module_can_be_imported_alone() -> None:
    names = [name for name in MODULES if "conformance" not in name]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", ALONE, *names[start::AT_ONCE]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )
        for start in range(AT_ONCE)
    ]
    for process in running:
        output, errors = process.communicate(timeout=120)
        assert (process.returncode, output, errors) == (0, b"", b"")


def test_nothing_but_the_service_needs_a_web_server_to_be_imported() -> None:
    names = [name for name in MODULES if layer_of(name)[1] not in {"metronome.server", "metronome.cli"}]
    names.remove("metronome.middleware.aiohttp")
    pure = [name for name in names if not lies_in(name, "metronome.stores") and name != "metronome.state.elasticsearch"]
    check = "import sys, importlib; [importlib.import_module(name) for name in sys.argv[1:]]; "
    check += "print([name for name in ('aiohttp', 'duckdb', 'elasticsearch', 'typer') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", check, *pure], capture_output=True, check=True, cwd=ROOT, timeout=60)
    assert found.stdout == b"[]\n"


CLIENTS_OF_FRAMEWORKS = {"metronome.middleware.aiohttp": "aiohttp", "metronome.middleware.django": "django"}


def test_the_clients_need_nothing_but_python_and_know_nothing_of_the_service() -> None:
    names = [name for name in MODULES if lies_in(name, "metronome.middleware") and name not in CLIENTS_OF_FRAMEWORKS]
    check = "import sys, importlib; sys.modules['orjson'] = None; "
    check += "before = set(sys.modules); [importlib.import_module(name) for name in sys.argv[1:]]; "
    check += "new = {name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names; "
    check += "print(sorted(new), [name for name in sys.modules if name.startswith('metronome.') "
    check += "and not name.startswith('metronome.middleware')])"
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
