"""Files of exports: complete or not there, and back to documents byte for byte."""

import csv
from pathlib import Path
from typing import Any, Final

import duckdb
import orjson
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metronome.errors import ConfigurationError
from metronome.exports import MAX_COLUMNS, LoadCheckpoint, PartFile, iterate_load_batches

SUFFIXES: Final = ("ndjson", "csv", "parquet")
ODD_FIELDS: Final[dict[str, Any]] = {
    "id": "=1+1",
    "text": 'a,"b";\n\t\u0001\u2028é',
    "a/b~c": "pointer",
    'quo"te': None,
    "number": 1.5,
    "large": 2**53 + 1,
    "flag": True,
    "params": {"é": "x"},
}


def document(number: int, /, **fields: Any) -> bytes:
    return orjson.dumps(
        {"@timestamp": f"2015-01-22T09:30:{number % 60:02}.000Z", "event_id": f"e{number}", "event": "view", **fields}
    )


def write(file: Path, *documents: bytes) -> int:
    with PartFile(file, "all") as part:
        part.append(b"".join(line + b"\n" for line in documents))
        return part.finish()


def read(file: Path, skip: int = 0) -> list[bytes]:
    return [line for batch in iterate_load_batches(file, skip) for line in batch.body.split(b"\n")]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_documents_come_back_byte_for_byte(suffix: str, tmp_path: Path) -> None:
    documents = [document(1, **ODD_FIELDS), document(2, number="text", flag=0), document(3)]
    file = tmp_path / f"it's.{suffix}"
    assert write(file, *documents) == 0
    assert read(file) == documents
    assert read(file, 2) == documents[2:]
    assert [*tmp_path.iterdir()] == [file]


values = st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False) | st.text()
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(names, values, max_size=4), min_size=1, max_size=5))
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_any_documents_come_back(suffix: str, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    documents = [
        document(number, **{f"_{name}": value for name, value in row.items()}) for number, row in enumerate(rows)
    ]
    write(tmp_path / f"all.{suffix}", *documents)
    assert read(tmp_path / f"all.{suffix}") == documents


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_export_of_nothing_can_be_loaded(suffix: str, tmp_path: Path) -> None:
    write(tmp_path / f"all.{suffix}")
    assert read(tmp_path / f"all.{suffix}") == []


def test_columns_have_the_types_of_their_values(tmp_path: Path) -> None:
    write(tmp_path / "all.parquet", document(1, **ODD_FIELDS), document(2, number=2, mixed=1), document(3, mixed="x"))
    described = duckdb.execute(f"DESCRIBE FROM '{tmp_path}/all.parquet'").fetchall()
    types = {name: kind for name, kind, *_ in described}
    assert types["timestamp"] == "TIMESTAMP WITH TIME ZONE"
    assert [types[name] for name in ("number", "large", "flag", "mixed", "a/b~c", "params")] == [
        "DOUBLE",
        "BIGINT",
        "BOOLEAN",
        "VARCHAR",
        "VARCHAR",
        "VARCHAR",
    ]
    assert [*types][:2] == ["timestamp", "event_id"]
    assert [*types][-1] == "document"
    frame = pd.read_parquet(tmp_path / "all.parquet")
    assert frame["large"][0] == 2**53 + 1
    assert str(frame["timestamp"][0]) == "2015-01-22 09:30:01+00:00"


def test_csv_is_safe_for_spreadsheets(tmp_path: Path) -> None:
    write(tmp_path / "all.csv", document(1, **ODD_FIELDS))
    with (tmp_path / "all.csv").open(newline="") as text:
        (row,) = csv.DictReader(text)
    assert (row["id"], row["text"]) == ("'=1+1", ODD_FIELDS["text"])
    assert pd.read_csv(tmp_path / "all.csv")["number"][0] == 1.5


def test_rare_fields_have_no_column(tmp_path: Path) -> None:
    rare = {f"field{number}": 1 for number in range(MAX_COLUMNS)}
    documents = [document(1, **rare), document(2, often=1), document(3, often=1)]
    assert write(tmp_path / "all.parquet", *documents) == 4
    columns = duckdb.read_parquet(str(tmp_path / "all.parquet")).columns
    assert len(columns) == MAX_COLUMNS + 1
    assert "often" in columns
    assert read(tmp_path / "all.parquet") == documents


def test_an_interrupted_export_continues_after_its_last_whole_line(tmp_path: Path) -> None:
    file = tmp_path / "all.ndjson"
    with PartFile(file, "all") as part:
        assert part.last_document() is None
        part.append(document(1) + b"\n" + document(2) + b"\n" + document(3)[:9])
    assert not file.exists()
    with PartFile(file, "all") as part:
        assert (part.last_document(), part.count_documents()) == (document(2), 2)
        part.append(document(3) + b"\n")
        part.finish()
    assert read(file) == [document(1), document(2), document(3)]


@pytest.mark.parametrize(("selection", "restart"), [("other", False), ("all", True)])
def test_another_selection_and_restart_begin_again(selection: str, restart: bool, tmp_path: Path) -> None:  # noqa: FBT001  # a parameter
    with PartFile(tmp_path / "all.csv", "all") as part:
        part.append(document(1) + b"\n")
    with PartFile(tmp_path / "all.csv", selection, restart=restart) as part:
        assert (part.last_document(), part.count_documents()) == (None, 0)


def test_the_last_document_may_be_large(tmp_path: Path) -> None:
    large = document(2, text="x" * 3_000_000)
    with PartFile(tmp_path / "all.csv", "all") as part:
        part.append(document(1) + b"\n" + large + b"\n")
    with PartFile(tmp_path / "all.csv", "all") as part:
        assert part.last_document() == large


def test_two_exports_do_not_write_one_file(tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    with PartFile(file, "all"), pytest.raises(ConfigurationError, match="another export writes"):
        PartFile(file, "all")


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot write .*No such file"):
        PartFile(tmp_path / "none" / "all.csv", "all")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    duckdb.execute(f"COPY (SELECT 1 AS a) TO '{tmp_path}/other.parquet'")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for name, message in (
        ("other.csv", "no column 'document'"),
        ("other.parquet", "no column 'document'"),
        ("broken.parquet", "cannot read"),
        ("missing.ndjson", "cannot read .*No such file"),
        ("all.xlsx", "expected a name that ends with .parquet, .ndjson, .csv"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            read(tmp_path / name)


def test_a_checkpoint_is_of_one_server_and_one_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    file = tmp_path / "all.ndjson"
    file.write_bytes(document(1))
    LoadCheckpoint(file, "http://a").record(7)
    assert LoadCheckpoint(file, "http://a/").accepted == 7
    assert LoadCheckpoint(file, "http://b").accepted == 0
    assert LoadCheckpoint(file, "http://a", restart=True).accepted == 0
    LoadCheckpoint(file, "http://a").record(7)
    file.write_bytes(document(1) + document(2))
    assert LoadCheckpoint(file, "http://a").accepted == 0
