"""Fingerprints of error messages: messages of the same error have the same one."""

import re
from typing import Final

from metronome.enrich.caches import cached

_FINGERPRINT_MAX_CHARACTERS: Final = 256
_MESSAGE_MAX_CHARACTERS: Final = 512

_VARIABLE_PARTS: Final = re.compile(
    r"""
      (?P<kept> <(?:n|id|uuid|url|query|email|time|text|address|ip)>
              | (?:\bstatus(?:[ ]code)?|\bHTTP)[ :=]{0,3}[1-5]\d\d\b )
    | (?P<url> \b(?:data|blob):[^\s"'<>()]+ )
    | (?P<query> (?<=[\w/.~-]) \? [\w.~%+\[\]-]{1,64}+ = [^\s"'<>()]* )
    | (?P<email> (?<![\w.+-]) [\w.+-]{1,64}+ @ [\w-]{1,63}+ (?:\.[\w-]{1,63}+){1,8} )
    | (?P<uuid> \b[0-9a-f]{8} (?:-[0-9a-f]{4}){3} - [0-9a-f]{12}\b )
    | (?P<time> \b\d{4}-\d\d-\d\d (?:[T ]\d\d:\d\d (?::\d\d (?:[.,]\d{1,9})? )? (?:[ ]?Z\b|[ ]?[+-]\d\d:?\d\d\b)? )?
              | \b\d\d?:\d\d:\d\d (?:[.,]\d{1,9})? )
    | (?P<ip> \b\d{1,3} (?:\.\d{1,3}){3} (?::\d{1,5})? \b | \b(?:[0-9a-f]{1,4}:){3,7} (?::?[0-9a-f]{1,4}\b|:) )
    | (?P<address> \b0x[0-9a-f]+ )
    | (?P<id> \b (?=[a-f]{0,64}\d) (?=\d{0,64}[a-f]) [0-9a-f]{8,}\b
            | \b (?=(?:[a-z_-]{0,64}\d){3}) [\w-]{20,}\b )
    | (?P<text> "[^"]{0,200}" | `[^`]{0,200}` | (?<![\w'>])'[^']{0,200}'(?!\w)
              | [“«„][^”»“]{0,200}[”»“] | ‘[^‘’]{0,200}’ )
    | (?P<n> (?:(?<![\w>)\]-])[+-])? \d+ (?:[.,](?![0-9a-f]{8})\d+)* (?:e[+-]\d+)? )
    """,  # noqa: RUF001
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
"""What differs between messages of the same error. Each part needs a digit, a quotation mark, an ``@``, ``=`` or
``:``, and no placeholder has one of these, so repeated replacement comes to an end."""

_BUILT_FILE: Final = re.compile(
    r"""
    (?P<folders> (?: [\w.@~+$\[\]-]{1,64}+ / ){0,8} )
    (?P<name> [\w@~+$\[\]-]{1,100} (?: \.[\w@~+$\[\]-]{1,100} ){0,5}? )
    (?P<end> (?: \.(?:chunk|bundle|min|module|legacy|esm|prod) ){0,2} \.(?:[cm]?js|css|wasm|[jt]sx|vue|svelte|map) ) \b
    """,
    re.VERBOSE | re.ASCII,
)
_NEXT_BUILD: Final = re.compile(r"(?<=/_next/static/)[\w-]{21}(?=/)", re.ASCII)
_BUILT_ENDINGS: Final = ("js", ".css", ".wasm", ".jsx", ".tsx", ".vue", ".svelte", ".map")
_HASHED_FOLDERS: Final = frozenset({"_nuxt", "_astro", "_app", "_next", "immutable", "chunks", "entry", "nodes"})
"""Folders in which build tools name files by their hashes alone."""
_BUILD_FOLDERS: Final = _HASHED_FOLDERS | {
    *("assets", "build", "dist", "static", "bundle", "bundles", "public", "scripts", "js", "css"),
}
_HASH_CHARACTERS: Final = 8
"""What Vite, Rollup and esbuild put into names of files; others put more."""
_HEX_PATTERN: Final = re.compile(r"[0-9a-f]{8,64}", re.ASCII)
_HASH_PATTERN: Final = re.compile(
    r"(?=.*\d)(?=.*[A-Z_-])[\w-]{8,64}|(?=.*\d[a-z])(?=.*[a-z]\d)[a-z0-9]{8,64}", re.ASCII
)
_BASE32_PATTERN: Final = re.compile(r"[A-Z2-7]{8}", re.ASCII)


@cached(_MESSAGE_MAX_CHARACTERS, size=8_192)
def error_fingerprint(message: str) -> str:
    """Return an error message with placeholders for everything that differs between messages of the same error.

    Numbers become ``<n>``, hexadecimal and other IDs ``<id>``, as do the hashes that build tools put into names of
    files, UUIDs ``<uuid>``, memory addresses ``<address>``, IP addresses ``<ip>``, quoted text ``<text>``, a URL's
    query ``<query>``, a ``data:`` or ``blob:`` URL ``<url>``, times ``<time>``, and email addresses ``<email>``. An
    HTTP status is kept: it distinguishes errors. White space becomes a single space.

    Args:
        message: only its first 512 characters count.

    Returns:
        At most 256 characters. The fingerprint of a fingerprint is the same.

    """
    text = _replace_variable_parts(message[:_MESSAGE_MAX_CHARACTERS])
    while (again := _replace_variable_parts(text)) != text:
        text = again
    # Truncation can split a part, and a placeholder is longer than a digit.
    text = " ".join(text[:_FINGERPRINT_MAX_CHARACTERS].split())
    while (again := " ".join(_replace_variable_parts(text)[:_FINGERPRINT_MAX_CHARACTERS].split())) != text:
        text = again
    return text


def _replace_variable_parts(text: str) -> str:
    text = " ".join(text.split())
    if any(ending in text for ending in _BUILT_ENDINGS):
        text = _BUILT_FILE.sub(_without_hash, _NEXT_BUILD.sub("<id>", text))
    return _VARIABLE_PARTS.sub(_placeholder, text)


def _without_hash(found: re.Match[str]) -> str:
    """Return the path of a file without the hash of its content, which is different in every build."""
    name, folders = found["name"], found["folders"].split("/")
    start = len(name) - _HASH_CHARACTERS
    is_hash_alone = start == 0 and not _HASHED_FOLDERS.isdisjoint(folders)
    # A hash may have a hyphen, too.
    ends_with_hash = is_hash_alone or (start > 0 and name[start - 1] in "-._")
    part = name[start:] if ends_with_hash else re.split(r"[-._]", name)[-1]
    is_in_build = is_hash_alone or (part != name and not _BUILD_FOLDERS.isdisjoint(folders))
    if not _is_hash(part, is_in_build=is_in_build):
        return found[0]
    return f"{found['folders']}{name[: len(name) - len(part)]}<id>{found['end']}"


def _is_hash(part: str, *, is_in_build: bool) -> bool:
    if _HEX_PATTERN.fullmatch(part):
        return is_in_build or not part.isalpha()
    if _HASH_PATTERN.fullmatch(part) or _BASE32_PATTERN.fullmatch(part):
        return True
    # A hash without a digit looks like a word, but a word in the name of a built file is rarely of this length.
    return is_in_build and len(part) == _HASH_CHARACTERS and not part.islower()


def _placeholder(found: re.Match[str]) -> str:
    kind = found.lastgroup
    return found[0] if kind == "kept" else f"?<{kind}>" if kind == "query" else f"<{kind}>"
