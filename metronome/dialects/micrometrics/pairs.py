"""Lists of names and values as one text: ``currency:yen,units:cents,urgent``."""

import re
from typing import Final

_PAIR: Final = re.compile(r"([^:=]*)(?:[:=](.*))?", re.DOTALL)


def read_pairs(text: str) -> dict[str, str | bool]:
    """Read a list of ``name:value``, ``name=value`` or just ``name``, which is then ``True``.

    The first colon or equals sign ends the name, so that an address may be a value. Of two with the same name the
    last one counts; one without a name does not.
    """
    pairs: dict[str, str | bool] = {}
    for part in text.split(","):
        match = _PAIR.fullmatch(part)
        if match is not None and match[1]:
            pairs[match[1]] = True if match[2] is None else match[2]
    return pairs
