"""Write docs/configuration.md and the minified beacon; with --check, compare them with their sources."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic.fields import FieldInfo
from rjsmin import jsmin

from metronome.config import ENV_PREFIX, SECRET_SETTINGS, Settings, format_default, list_settings_by_topic

ROOT: Final = Path(__file__).parents[1]

_HEAD: Final = f"""\
# Configuration

<!-- Written by docs/generate.py from metronome/config.py: change it there, and run `make docs`. -->

Every setting has one name, in two forms:

- in the environment, `{ENV_PREFIX}PORT=9000`, also for `make serve` and the container;
- on the command line, `metronome serve --port 9000`, which takes precedence.

`metronome serve --help` lists the options in the order of this page: those that matter most first.
`--demo` is an option only: it runs a throwaway server with [demo data](operations.md#demo).

An invalid value stops the start, with a message that names the setting:

```console
$ METRONOME_PORT=http metronome serve
metronome serve: invalid METRONOME_PORT 'http': expected an integer
```

An empty variable counts as unset.
Sizes are written as `512MiB`, `8GiB` or in bytes; ages as `90s`, `15m`, `12h`, `7d` or \
`2w`; lists are comma-separated.

`METRONOME_ITEM_PATTERN` and `METRONOME_OWN_HOSTS` are also read by `metronome import` ([import.md](import.md)).
Commands that connect to a server (`demo`, `import`, `tock`, `query`, `export`, `load`, `replay`, `verify`) read \
`METRONOME_URL`, the URL of the server, and `METRONOME_KEY`, the key to send.
Secrets are not options, as other users of the machine can read a command line: they belong in the environment, or in \
a file that a variable names, such as `METRONOME_STORE_API_KEY_FILE=/run/secrets/elasticsearch`. \
`METRONOME_STORE_FILE`, `METRONOME_FORWARD_SHARED_KEY_FILE`, `METRONOME_FORWARD_USERS_FILE` and \
`METRONOME_MICROTICKS_KEY_FILE` do the same.
"""
_TABLE_HEAD: Final = "| Setting | Option | Default | Meaning |\n|---|---|---|---|\n"


def page() -> bytes:
    """Return the page of settings as it should be."""
    sections = [
        f"\n## {topic}\n\n{_TABLE_HEAD}{''.join(_row(name, Settings.model_fields[name]) for name in names)}"
        for topic, names in list_settings_by_topic().items()
    ]
    return (_HEAD + "".join(sections)).encode()


def _row(name: str, field: FieldInfo) -> str:
    default = format_default(field.default)
    option = "" if name in SECRET_SETTINGS - {"store"} else f"`--{name.replace('_', '-')}`"
    cells = [
        f"`{ENV_PREFIX}{name.upper()}`",
        option,
        f"`{default}`" if default else "none",
        field.description or "",
    ]
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n"


def beacon() -> bytes:
    """Return the script for web pages without comments and white space."""
    return _minify("metronome/web/beacon.js")


def matomo_script() -> bytes:
    """Return the script in place of Matomo's without comments and white space."""
    return _minify("metronome/web/matomo.js")


def _minify(name: str) -> bytes:
    return str(jsmin((ROOT / name).read_text())).encode()


GENERATED: Final[dict[str, tuple[Callable[[], bytes], str]]] = {
    "docs/configuration.md": (page, "metronome/config.py"),
    "metronome/web/beacon.min.js": (beacon, "metronome/web/beacon.js"),
    "metronome/web/matomo.min.js": (matomo_script, "metronome/web/matomo.js"),
}
"""Each file, how it is made, and of what."""


def main() -> int:
    """Write the files, or check them."""
    behind = 0
    for name, (made, source) in GENERATED.items():
        file, wanted = ROOT / name, made()
        if "--check" not in sys.argv[1:]:
            file.write_bytes(wanted)
        elif not file.exists() or file.read_bytes() != wanted:
            sys.stderr.write(f"{name} is not up to date with {source}: run `make docs`\n")
            behind = 1
    return behind


if __name__ == "__main__":
    sys.exit(main())
