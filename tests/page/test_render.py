"""What the rendered pages contain."""

from dataclasses import replace

from metronome.page.render import Site, render_page
from tests.page.made_up import NOW, made_up_chart, made_up_page

SITE = Site()


def test_text_in_a_page_is_escaped() -> None:
    text = '<script>alert("1")</script>'
    html = render_page(made_up_page(heading=text, chart=replace(made_up_chart(), title=text)), SITE, NOW)
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;" in html
