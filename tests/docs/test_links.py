"""Links between the pages lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, prose_of

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
LINKS = [(page, link) for page in PAGES for link in _LINK.findall(prose_of(page)) if "://" not in link]


@pytest.mark.parametrize(("page", "link"), LINKS, ids=[f"{page.name}: {link}" for page, link in LINKS])
def test_a_link_leads_to_a_file_and_a_heading_in_it(page: Path, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    assert target.exists()
    assert target.is_relative_to(ROOT)
    assert not anchor or anchor in anchors(target)


def test_the_readme_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    pages = [page.relative_to(ROOT) for page in PAGES if page.name != "README.md"]
    assert [str(page) for page in pages if f"({page})" not in text] == []
