"""The README's pictures are there and small, and a script takes them."""

import re
from pathlib import Path
from typing import Final

import pytest

from docs import screenshot
from tests.docs.pages import ROOT, text_of

PNG: Final = b"\x89PNG\r\n\x1a\n"


def test_the_pictures_of_the_readme_are_there_and_small() -> None:
    named = re.findall(r'(?:src|srcset)="(docs/images/[^"]+)"', text_of("README.md"))
    assert len(named) == len(screenshot.THEMES)
    for name in named:
        picture = (ROOT / name).read_bytes()
        assert picture.startswith(PNG)
        assert len(picture) < screenshot.MAX_BYTES


@pytest.mark.slow
def test_takes_a_picture_of_the_page_for_each_theme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screenshot, "IMAGES", tmp_path)
    screenshot.main()
    pictures = [picture.read_bytes() for picture in sorted(tmp_path.glob("overview-*.png"))]
    assert [picture.startswith(PNG) for picture in pictures] == [True, True]
    assert pictures[0] != pictures[1]
