"""Countries of IP addresses, from the built-in database and from files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from metronome.enrich.addresses import anonymize_address
from metronome.enrich.countries import open_countries
from metronome.errors import ConfigurationError

BUILT_IN = open_countries("built-in")


def write_mmdb(path: Path, records: Mapping[str, Any], kind: str = "GeoLite2-Country", version: int = 6) -> str:
    writer = MMDBWriter(version, kind, ipv4_compatible=version == 6)
    for network, record in records.items():
        writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(path))
    return str(path)


# Networks of universities and registries, which have been where they are for decades.
@pytest.mark.parametrize(
    ("address", "country"),
    [
        ("193.0.6.139", "NL"),
        ("141.12.5.6", "DE"),
        ("18.7.22.83", "US"),
        ("130.88.99.1", "GB"),
        ("133.11.0.1", "JP"),
        ("200.160.2.3", "BR"),
        ("202.12.29.1", "AU"),
        ("2001:67c:2e8:22::c100:68b", "NL"),
        ("2001:200:dff:fff1::1", "JP"),
        ("::ffff:193.0.6.139", "NL"),
        ("193.0.6.139:52100", "NL"),
    ],
)
def test_finds_countries_of_whole_and_anonymized_addresses(address: str, country: str) -> None:
    assert BUILT_IN.find_country(address) == country
    assert BUILT_IN.find_country(anonymize_address(address) or "") == country


_PRIVATE = (
    "10.0.0.1 192.168.1.0 127.0.0.1 169.254.1.1 100.64.0.1 192.0.2.1 255.255.255.255 ::1 fe80::1 fd00::1 2001:db8::"
)
_NONE = ["", "-", "unknown", "1.2.3", "999.1.1.1", "\ud800", "1" * 1000]


@pytest.mark.parametrize("address", [*_PRIVATE.split(), *_NONE])
def test_private_and_invalid_addresses_have_no_country(address: str) -> None:
    assert BUILT_IN.find_country(address) is None


@given(st.one_of(st.text(), st.ip_addresses().map(str)))
def test_any_text_has_a_country_code_or_none(text: str) -> None:
    code = BUILT_IN.find_country(text)
    assert code is None or (len(code) == 2 and code.isalpha() and code.isupper() and code not in {"EU", "AP", "ZZ"})


def test_off_finds_no_country() -> None:
    assert open_countries("off").find_country("193.0.6.139") is None


@pytest.mark.parametrize(
    "record",
    [
        {"country": {"iso_code": "NZ", "names": {"en": "New Zealand"}}, "continent": {"code": "OC"}},
        {"registered_country": {"iso_code": "NZ"}},
        {"country_code": "NZ"},
        {"country": "NZ", "country_name": "New Zealand"},
        {"country": "New Zealand", "country_code": "nz"},
    ],
)
def test_reads_files_in_all_layouts(tmp_path: Path, record: object) -> None:
    countries = open_countries(write_mmdb(tmp_path / "a.mmdb", {"193.0.6.0/24": record, "2a00::/16": record}))
    assert countries.find_country("193.0.6.139") == "NZ"
    assert countries.find_country("2a00:1::") == "NZ"
    assert countries.find_country("18.7.22.83") is None


def test_ipv4_file_has_no_countries_for_ipv6(tmp_path: Path) -> None:
    countries = open_countries(
        write_mmdb(tmp_path / "a.mmdb", {"193.0.6.0/24": {"country": {"iso_code": "NZ"}}}, version=4)
    )
    assert countries.find_country("193.0.6.139") == "NZ"
    assert countries.find_country("2a00:1::") is None


def test_region_codes_are_not_countries(tmp_path: Path) -> None:
    records = {"193.0.6.0/24": {"country": {"iso_code": "EU"}}, "193.0.7.0/24": {"country": {"iso_code": "NZ"}}}
    countries = open_countries(write_mmdb(tmp_path / "a.mmdb", records))
    assert (countries.find_country("193.0.6.1"), countries.find_country("193.0.7.1")) == (None, "NZ")


def test_rejects_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.mmdb is not a file; name a file, or use built-in or off"):
        open_countries(str(tmp_path / "none.mmdb"))


def test_rejects_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a file"):
        open_countries(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"something else", b"\xab\xcd\xefMaxMind.com", b"\0" * 10_000])
def test_rejects_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.mmdb"
    path.write_bytes(content)
    with pytest.raises(
        ConfigurationError, match=r"bad\.mmdb is not a MaxMind DB file, or is damaged: download it again"
    ):
        open_countries(str(path))


def test_rejects_a_truncated_file(tmp_path: Path) -> None:
    path = Path(write_mmdb(tmp_path / "bad.mmdb", {"193.0.6.0/24": {"country": {"iso_code": "NZ"}}}))
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ConfigurationError, match="is damaged"):
        open_countries(str(path))


def test_rejects_a_file_without_countries(tmp_path: Path) -> None:
    record = {"autonomous_system_number": 3333, "autonomous_system_organization": "RIPE NCC"}
    path = write_mmdb(tmp_path / "asn.mmdb", {"193.0.6.0/24": record}, "GeoLite2-ASN")
    with pytest.raises(ConfigurationError, match="has the type GeoLite2-ASN, without countries"):
        open_countries(path)


@given(data=st.data())
def test_file_with_any_damage_is_rejected_or_usable(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = Path(write_mmdb(tmp_path_factory.mktemp("mmdb") / "a.mmdb", {"193.0.6.0/24": {"country_code": "NZ"}}))
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        code = open_countries(str(path)).find_country("193.0.6.139")
    except ConfigurationError:
        return
    assert code is None or len(code) == 2
