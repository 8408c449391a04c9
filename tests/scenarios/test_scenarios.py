"""Questions with answers that were counted by hand, over HTTP, on both stores: see the TOML files beside this one."""

from datetime import UTC, datetime
from typing import Final

import pytest

from tests.scenarios.asking import Stand, check
from tests.scenarios.reading import ON_AN_EMPTY_STORE, Asked, read_scenarios

SCENARIOS: Final = read_scenarios(datetime.now(UTC))
FILLED: Final = [file for file in SCENARIOS if file != ON_AN_EMPTY_STORE]


def asked_of(*files: str) -> list[Asked]:
    return [asked for file in files for scenario in SCENARIOS[file] for asked in scenario.asked]


@pytest.mark.parametrize("asked", asked_of(*FILLED), ids=lambda asked: asked.name)
def test_the_answer_is_what_was_counted(filled: Stand, asked: Asked) -> None:
    if filled.store in asked.unmet:
        with pytest.raises(AssertionError):
            check(filled, asked)
    else:
        check(filled, asked)


@pytest.mark.parametrize("asked", asked_of(ON_AN_EMPTY_STORE), ids=lambda asked: asked.name)
def test_where_nothing_was_sent_there_is_nothing(empty: Stand, asked: Asked) -> None:
    assert not SCENARIOS[ON_AN_EMPTY_STORE][0].sent
    check(empty, asked)


def test_scenarios_have_titles_of_their_own() -> None:
    names = [asked.name for asked in asked_of(*SCENARIOS)]
    assert len(set(names)) == len(names)
