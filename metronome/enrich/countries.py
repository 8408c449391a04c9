"""Countries of IP addresses."""

import struct
from collections.abc import Callable
from ipaddress import ip_address
from itertools import islice
from pathlib import Path
from typing import Any, Final

import maxminddb
from iptocc import country_code

from metronome.enrich.addresses import normalize_address
from metronome.enrich.caches import cached
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
"""What the reader raises for a damaged file."""
_NON_COUNTRY_CODES: Final = frozenset({"EU", "AP", "ZZ"})
"""Codes of regions and of unknown places, which registries use where they know no country."""


class CountryLookup:
    """Finds the countries of IP addresses.

    Args:
        lookup: returns the country code of a normalized address, or None.

    """

    def __init__(self, lookup: Callable[[str], str | None]) -> None:
        self._lookup = lookup
        self.find_country = cached(_ADDRESS_MAX_CHARACTERS)(self._find_country)
        """Return the ISO 3166 alpha-2 code of an address, in upper case, or None for an unknown or private address.

        The address may be whole or anonymized, as `metronome.enrich.addresses.normalize_address` accepts it."""

    def _find_country(self, address: str) -> str | None:
        normalized = normalize_address(address)
        if normalized is None or not ip_address(normalized).is_global:
            return None
        code = self._lookup(normalized)
        return code if code and len(code) == _CODE_LETTERS and code not in _NON_COUNTRY_CODES else None


def open_countries(source: str) -> CountryLookup:
    """Open a database of countries.

    The built-in one is the package ``iptocc``: the country to which the five regional registries delegated each range,
    where its holder is registered (their delegated statistics, © Number Resource Organization, CC BY 4.0).

    Args:
        source: ``built-in``; ``off``, which knows no country; or the path of a MaxMind DB file
            (https://maxmind.github.io/MaxMind-DB/) with countries, such as MaxMind's or DB-IP's.

    Raises:
        ConfigurationError: the file is missing, unreadable or damaged, or has no countries.

    """
    if source == BUILT_IN:
        return CountryLookup(country_code)
    return CountryLookup(_no_country) if source == OFF else CountryLookup(_open_maxmind(Path(source)))


def _no_country(_: str) -> None:
    return None


def _open_maxmind(path: Path) -> Callable[[str], str | None]:
    if not path.is_file():
        raise ConfigurationError(f"METRONOME_COUNTRIES: {path} is not a file; name a file, or use built-in or off")
    try:
        # The reader in C overwrites memory if a file is damaged, and a memory-mapped file ends the process as soon as
        # it is overwritten.
        reader = maxminddb.open_database(path, maxminddb.MODE_MEMORY)
        has_countries = any(_country_code_of(record) for _, record in islice(reader, _PROBE_RECORDS))
    except OSError as error:
        raise ConfigurationError(f"METRONOME_COUNTRIES: {path} cannot be read ({error.strerror or error})") from error
    except _READER_ERRORS as error:
        raise ConfigurationError(
            f"METRONOME_COUNTRIES: {path} is not a MaxMind DB file, or is damaged: download it again"
        ) from error
    if not has_countries:
        kind = reader.metadata().database_type
        raise ConfigurationError(
            f"METRONOME_COUNTRIES: {path} has the type {kind}, without countries: use one of the type Country or City"
        )

    def lookup(address: str) -> str | None:
        try:
            return _country_code_of(reader.get(address))
        except _READER_ERRORS:
            # Part of the file is damaged, or it lacks IPv6: that is no reason to lose an event.
            return None

    return lookup


def _country_code_of(record: Any) -> str | None:
    """Return the country code of a record in the layout of MaxMind and DB-IP, or in a flat one of others."""
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
