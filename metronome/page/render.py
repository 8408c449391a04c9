"""Render pages as HTML: templates, and the style sheets, scripts and icon that they load.

Jinja2 is imported with the first page, so that commands that import this module start quickly.
"""

import gzip
import hashlib
import mimetypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import metronome
from metronome.page.chart import lay_out_chart
from metronome.page.model import Embed, Headline, Live, Page, Row, Table, TablePage, Unit, Viewer
from metronome.page.numbers import (
    describe_change,
    format_age,
    format_change,
    format_number,
    format_share,
    judge_change,
)

if TYPE_CHECKING:
    from jinja2 import Environment

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The header of all pages: they load nothing but our own files, and contain no style or script themselves."""
EMBED_CONTENT_SECURITY_POLICY: Final = CONTENT_SECURITY_POLICY.replace("frame-ancestors 'none'", "frame-ancestors *")
"""The header of embeds, which pages of any site may show."""
ROBOTS_TXT: Final = "User-agent: *\nDisallow: /\n"
"""Each filter of each page has a URL of its own: robots would follow them without end."""
ASSETS_PATH: Final = "/assets/"

_ASSET_NAMES: Final = ("page.css", "page.js", "embed.css", "embed.js", "icon.svg")
_ROWS_OF_FRAME: Final = 3.5
"""The height of a table's heading and foot, and the space between tables, in rows."""
_SPARK_HEIGHT: Final = 24


@dataclass(frozen=True, slots=True)
class Site:
    """Where the page is served, and what it may offer.

    Attributes:
        base_path: precedes all paths: empty, or such as ``/metronome``.
        url: the server's public URL including the base path, for text to copy.
        may_load_demo: whether to offer a button that loads the demo.

    """

    base_path: str = ""
    url: str = "http://localhost:8080"
    may_load_demo: bool = False


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that pages load.

    Attributes:
        body: its content.
        gzipped: its content, compressed.
        content_type: such as ``text/css``.

    """

    body: bytes
    gzipped: bytes
    content_type: str


def read_file(name: str) -> Asset:
    """Return one of the files next to this module, such as ``usage.js``."""
    body = files("metronome.page").joinpath(name).read_bytes()
    return Asset(body, gzip.compress(body, mtime=0), mimetypes.guess_type(name)[0] or "application/octet-stream")


def _hashed_name(name: str, body: bytes) -> str:
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.{hashlib.sha256(body).hexdigest()[:12]}.{suffix}"


_FILES: Final = {name: read_file(name) for name in _ASSET_NAMES}
_HASHED_NAMES: Final = {name: _hashed_name(name, asset.body) for name, asset in _FILES.items()}
ASSETS: Final[Mapping[str, Asset]] = {_HASHED_NAMES[name]: asset for name, asset in _FILES.items()}
"""The files below ``/assets/`` by name. The name contains a hash of the content: browsers may keep them forever."""
ICON: Final = _FILES["icon.svg"]
"""The icon, as SVG."""


def render_page(page: Page, site: Site, now: datetime) -> str:
    """Return the overview or an item's page, or what to do next if the store is empty.

    Args:
        page: what it shows.
        site: where it is served.
        now: the current time, for the age of numbers that are not current.

    """
    if not page.stored_events:
        return _render("empty.html", site, page=page, viewer=page.viewer)
    selected = next((headline for headline in page.headlines if headline.is_selected), None)
    noun = selected.label.lower() if selected and selected.unit is Unit.COUNT else ""
    return _render(
        "page.html",
        site,
        page=page,
        viewer=page.viewer,
        controls=page.controls,
        chart=page.chart,
        layout=lay_out_chart(page.chart, noun),
        columns=split_into_columns(page.tables),
        footnotes=_footnotes(page.headlines),
        live=page.live,
        stale_age=_age(page.stale_since, now),
    )


def render_table_page(page: TablePage, site: Site, now: datetime) -> str:
    """Return the page of a whole table; the arguments are those of `render_page`."""
    return _render(
        "table.html",
        site,
        page=page,
        viewer=page.viewer,
        controls=page.controls,
        table=page.table,
        scale=largest_share([page.table]),
        stale_age=_age(page.stale_since, now),
    )


def render_live(live: Live, site: Site) -> str:
    """Return the last 30 minutes as a fragment of HTML, which the script puts into the page."""
    return _render("live.html", site, live=live)


def render_sign_in(site: Site, return_to: str, error: str = "") -> str:
    """Return the page to sign in with a key.

    Args:
        site: where it is served.
        return_to: the path to show afterwards.
        error: why the last attempt failed, as a sentence; empty for the first one.

    """
    return _render("sign_in.html", site, return_to=return_to, error=error, viewer=Viewer(can_query=False))


def render_error(
    site: Site, status: int, title: str, detail: str, advice: str = "", viewer: Viewer | None = None
) -> str:
    """Return the page of an error.

    Args:
        site: where it is served.
        status: the HTTP status.
        title: what is wrong in a few words, such as ``Invalid filter``.
        detail: what exactly, as a sentence.
        advice: what to do, as a sentence; empty for nothing special.
        viewer: who looks at it; offers to sign in if that may help.

    """
    return _render(
        "error.html",
        site,
        status=status,
        title=title,
        detail=detail,
        advice=advice,
        viewer=viewer or Viewer(can_query=False),
    )


def render_embed(embed: Embed, site: Site, theme: str = "") -> str:
    """Return an item's usage as a page for a frame.

    Args:
        embed: what it shows.
        site: where it is served.
        theme: ``light`` or ``dark``; empty to follow the visitor's preference.

    """
    return _render(
        "embed.html",
        site,
        embed=embed,
        layout=lay_out_chart(embed.chart, "views"),
        theme=theme if theme in {"light", "dark"} else "",
    )


@dataclass(frozen=True, slots=True)
class Columns:
    """Tables in columns, in the order of reading.

    Attributes:
        lead: a table above the first and the second column, as wide as both; None if there is none.
        first: the tables of the first column, from the top down.
        second: the tables of the second column.
        third: the tables of the third column.

    """

    lead: Table | None
    first: tuple[Table, ...]
    second: tuple[Table, ...]
    third: tuple[Table, ...]


def split_into_columns(tables: Sequence[Table]) -> Columns:
    """Split tables into three columns of nearly the same height, without changing their order.

    A first table of several numbers needs the width of two columns.
    """
    has_lead = bool(tables) and len(tables[0].columns) > 1
    lead, *rest = tables if has_lead else (None, *tables)
    heights = [len(table.rows) + _ROWS_OF_FRAME for table in rest if table]
    lead_height = len(lead.rows) + _ROWS_OF_FRAME if lead else 0
    count = len(heights)

    def tallest(first: int, second: int) -> float:
        beside = max(sum(heights[:first]), sum(heights[first:second]))
        return max(lead_height + beside, sum(heights[second:]))

    def unevenness(ends: tuple[int, int]) -> tuple[float, float]:
        return tallest(*ends), abs(sum(heights[: ends[0]]) - sum(heights[slice(*ends)]))

    every_end = ((first, second) for first in range(count + 1) for second in range(first, count + 1))
    first, second = min(every_end, key=unevenness)
    placed = tuple(table for table in rest if table)
    return Columns(lead, placed[:first], placed[first:second], placed[second:])


def largest_share(tables: Iterable[Table]) -> float:
    """Return the largest share in some tables, which has the longest bar: bars below one another compare."""
    return max((row.share or 0 for table in tables for row in table.rows), default=0)


def _footnotes(headlines: Iterable[Headline]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(headline.note for headline in headlines if headline.note))


def _age(moment: datetime | None, now: datetime) -> str:
    return "" if moment is None else format_age((now - moment).total_seconds())


def _bar_width(row: Row, scale: float) -> str:
    """Return the width of the bar behind a row, in percent; empty for none."""
    return f"{max(100 * row.share / scale, 0.5):.1f}%" if row.share and scale else ""


def _spark_bars(minutes: Sequence[int]) -> list[tuple[int, float, float, int]]:
    """Return the bars of a sparkline: number, top, height and value of each."""
    largest = max(minutes, default=0) or 1
    heights = [max(1.0, round(_SPARK_HEIGHT * count / largest, 1)) if count else 0.5 for count in minutes]
    return [
        (index, round(_SPARK_HEIGHT - height, 1), height, count)
        for index, (height, count) in enumerate(zip(heights, minutes, strict=True))
    ]


def _format_moment(moment: datetime) -> str:
    utc = moment.astimezone(UTC)
    return f"{utc.day} {utc:%b %Y, %H:%M} UTC"


def _render(template: str, site: Site, **values: Any) -> str:
    return _environment().get_template(template).render(site=site, **values)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  # only once a page is rendered

    environment = Environment(
        loader=PackageLoader("metronome.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "number": format_number,
        "share": format_share,
        "moment": _format_moment,
        "judge": judge_change,
    }
    environment.globals |= {
        "asset": lambda site, name: f"{site.base_path}{ASSETS_PATH}{_HASHED_NAMES[name]}",
        "bar_width": _bar_width,
        "change_of": lambda headline: format_change(headline.change),
        "largest_share": largest_share,
        "describe_change": describe_change,
        "spark_bars": _spark_bars,
        "version": metronome.__version__,
    }
    return environment
