"""Which documents a selection drops, with and without its value."""

import orjson
import pytest

from metronome.stores.selection import Selection, parse_selection
from tests.archive.archived import build_document


def lines(*documents: dict[str, object]) -> bytes:
    head = {"@timestamp": "2015-01-22T09:30:00.000Z", "event_id": "e"}
    return b"".join(orjson.dumps(head | document, option=orjson.OPT_APPEND_NEWLINE) for document in documents)


@pytest.mark.parametrize("is_hashed", [False, True])
@pytest.mark.parametrize(("kind", "field"), [("item", "id"), ("visitor", "visitor"), ("import", "import")])
@pytest.mark.parametrize("value", ["a", 'q"\\/é\n', "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")])
def test_drops_documents_with_the_value_in_its_field(kind: str, field: str, value: str, *, is_hashed: bool) -> None:
    selected = lines({field: value}, {"title": "x", field: value})
    kept = lines(
        {field: f"{value}x"},
        {"title": value},
        {"params": {field: value}},
        {"title": f'"{field}":"{value}"'},
        {field: value.upper() + "X"},
        {field: None},
        {field: 1},
        {},
    )
    selection = parse_selection({kind: value})
    if is_hashed:
        selection = selection.hashed()
        assert selection.value != value
        assert selection.hashed() == selection
    assert selection.drop_lines(selected + kept) == (kept, 2)
    assert selection.drop_lines(kept) == (kept, 0)
    assert selection.drop_lines(selected) == (b"", 2)
    assert selection.drop_lines(b"") == (b"", 0)


def test_drops_documents_before_the_start_of_a_day() -> None:
    stamps = ("2014-12-31T00:00:00.000Z", "2015-01-21T23:59:59.999Z", "2015-01-22T00:00:00.000Z")
    documents = [build_document("e", timestamp=stamp) for stamp in stamps]
    selection = parse_selection({"before": "2015-01-22"})
    assert selection.drop_lines(b"".join(documents)) == (documents[2], 2)
    assert selection.hashed() is selection


def test_what_is_no_document_is_kept() -> None:
    selection = parse_selection({"item": "a"})
    torn = b'{"id":"a"\n[{"id":"a"}]\n'
    for checked in (selection, selection.hashed()):
        assert checked.drop_lines(torn) == (torn, 0)
    assert isinstance(selection, Selection)
