"""Countries of network addresses."""

import struct
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from itertools import islice
from pathlib import Path
from typing import Any, Final

import maxminddb
from iptocc import country_code

from metronome.enrich.addresses import normalize_address
from metronome.errors import ConfigurationError

BUILT_IN: Final = "built-in"
OFF: Final = "off"

_ADDRESS_MAX_CHARACTERS: Final = 128
_PROBE_RECORDS: Final = 1_000
_CODE_LETTERS: Final = 2
_READER_ERRORS: Final = (
    maxminddb.InvalidDatabaseError,
    LookupError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""What the reader raises where a file is damaged."""
_NON_COUNTRY_CODES: Final = frozenset({"EU", "AP", "ZZ"})
"""Registries write these codes, of regions and of nowhere, where they know no country."""


class CountryLookup:
    """Tells the countries of addresses.

    Args:
        lookup: tells the code of an address in its usual form, or None.

    """

    def __init__(self, lookup: Callable[[str], str | None]) -> None:
        self._lookup = lookup
        self._find_cached = lru_cache(maxsize=32_768)(self._find_uncached)

    def find_country(self, address: str) -> str | None:
        """Return the country of an address, whole or cut to its /24 or /48.

        Args:
            address: as `metronome.enrich.addresses.read_address` takes them.

        Returns:
            The ISO 3166 alpha-2 code in upper case; None where *address* is private, of nobody, or none.

        """
        return self._find_cached(address) if len(address) <= _ADDRESS_MAX_CHARACTERS else None

    def _find_uncached(self, address: str) -> str | None:
        whole = normalize_address(address)
        if whole is None or not ip_address(whole).is_global:
            return None
        code = self._lookup(whole)
        return code if code and len(code) == _CODE_LETTERS and code not in _NON_COUNTRY_CODES else None


def open_countries(source: str) -> CountryLookup:
    """Open the database of countries that a setting names.

    The built-in one is the package ``iptocc``: to which country the five regional registries delegated each range
    (their delegated statistics, © Number Resource Organization, CC BY 4.0), which is where its holder is at home.

    Args:
        source: ``built-in``; ``off``, which knows no country; or the path of a MaxMind DB file
            (https://maxmind.github.io/MaxMind-DB/) with countries in it, be it MaxMind's, DB-IP's or another's.

    Raises:
        ConfigurationError: The file is not there, cannot be read, is damaged, or holds no countries.

    """
    if source == BUILT_IN:
        return CountryLookup(country_code)
    return CountryLookup(_no_country) if source == OFF else CountryLookup(_open_maxmind(Path(source)))


def _no_country(_: str) -> None:
    return None


def _open_maxmind(path: Path) -> Callable[[str], str | None]:
    if not path.is_file():
        raise ConfigurationError(f"countries: there is no file {path}; name one, or write built-in or off in its place")
    try:
        # The reader written in C overwrites memory where a file is damaged; and to read one that is only mapped ends
        # the process as soon as somebody writes over the file.
        reader = maxminddb.open_database(path, maxminddb.MODE_MEMORY)
        has_countries = any(_country_code_of(record) for _, record in islice(reader, _PROBE_RECORDS))
    except OSError as error:
        raise ConfigurationError(f"countries: {path} cannot be read ({error.strerror or error})") from error
    except _READER_ERRORS as error:
        raise ConfigurationError(
            f"countries: {path} is no MaxMind DB file, or is damaged: download it again"
        ) from error
    if not has_countries:
        kind = reader.metadata().database_type
        raise ConfigurationError(
            f"countries: {path} holds no countries but {kind}: take a file of the type Country or City"
        )

    def lookup(address: str) -> str | None:
        try:
            return _country_code_of(reader.get(address))
        except _READER_ERRORS:
            # In a single place, or for want of IPv6: an unknown country is no reason to lose an event.
            return None

    return lookup


def _country_code_of(record: Any) -> str | None:
    """Return the code of a record, by MaxMind's and DB-IP's layout or one of the flat ones of others."""
    if not isinstance(record, dict):
        return None
    for name in ("country", "registered_country"):
        country = record.get(name)
        code = country.get("iso_code") if isinstance(country, dict) else country
        if _is_country_code(code):
            return str(code).upper()
    code = record.get("country_code")
    return str(code).upper() if _is_country_code(code) else None


def _is_country_code(code: object) -> bool:
    return isinstance(code, str) and len(code) == _CODE_LETTERS and code.isascii() and code.isalpha()
