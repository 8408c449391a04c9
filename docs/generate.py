"""Writes docs/configuration.md from the table of settings; with --check, says whether it is up to date."""  # noqa: INP001  # a script of its own

import sys
from pathlib import Path
from typing import Final

from pydantic.fields import FieldInfo

from metronome.config import PREFIX, Settings, shown_default

PAGE: Final = Path(__file__).with_name("configuration.md")

_HEAD: Final = f"""\
# Configuration

<!-- Written by docs/generate.py from metronome/config.py: change it there, and run `make docs`. -->

Each setting has one name, in two forms:

- in the environment, `{PREFIX}PORT=9000`; this is also what `make serve` and the container take;
- on the command line, `metronome serve --port 9000`. The command line wins.

A value that cannot be stops the start, with a sentence that names the setting:

```console
$ METRONOME_PORT=http metronome serve
metronome: METRONOME_PORT is 'http': Input should be a valid integer, unable to parse string as an integer; correct \
the setting that the message names
```

An empty variable counts as not set.
Sizes are written as `512MiB`, `8GiB` or in bytes; ages as `90s`, `15m`, `12h`, `7d` or \
`2w`; lists with commas between.

`METRONOME_ITEM_PATTERN` and `METRONOME_OWN_HOSTS` are read by `metronome import` as well: see [import.md](import.md).
Secrets, such as the password in `METRONOME_STORE`, are better kept in the environment: other users of the machine \
can read a command line.

| Setting | Option | Default | What it is |
|---|---|---|---|
"""


def page() -> str:
    """Return the page as it should be."""
    return _HEAD + "".join(_row(name, field) for name, field in Settings.model_fields.items())


def _row(name: str, field: FieldInfo) -> str:
    default = shown_default(field.default)
    option = name.replace("_", "-")
    cells = [
        f"`{PREFIX}{name.upper()}`",
        f"`--{option}`",
        f"`{default}`" if default else "none",
        field.description or "",
    ]
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n"


def main() -> int:
    """Write the page, or check it."""
    wanted = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(wanted)
        return 0
    if PAGE.exists() and PAGE.read_text() == wanted:
        return 0
    sys.stderr.write(f"{PAGE.name} is not up to date with metronome/config.py: run `make docs`\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
