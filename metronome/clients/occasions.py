"""What a host may say has happened, as `Reporter.track` takes it; each has its place in Metronome and in Matomo.

The names of the fields are those that Metronome gives to Matomo's parameters, so that reports of both kinds are
counted together.
"""

import traceback
from collections.abc import Iterable
from typing import Any, NamedTuple

from metronome.clients.wire_json import as_json


class Product(NamedTuple):
    """One product of an order or a cart.

    Attributes:
        sku: its number.
        name: what it is called.
        category: what it belongs to.
        price: of one, in the site's currency.
        quantity: how many.

    """

    sku: str
    name: str = ""
    category: str = ""
    price: float = 0.0
    quantity: int = 1


def page_view(title: str = "", *, id: str | None = None, url: str | None = None) -> dict[str, Any]:  # noqa: A002  # the field's name
    """Say that a page was seen.

    Args:
        title: of the page.
        id: the item that it shows.
        url: its address, where it is not that of the request.

    """
    return _known(event="view", title=title or None, id=id, url=url)


def download(url: str, *, id: str | None = None, format: str | None = None) -> dict[str, Any]:  # noqa: A002  # the fields' names
    """Say that a file was downloaded.

    Args:
        url: of the file.
        id: the item that it is of.
        format: of the file; without it, Metronome counts it as of an unnamed one.

    """
    return _known(event="download", download=url, id=id, format=format)


def outlink(url: str) -> dict[str, Any]:
    """Say that somebody went to another site."""
    return _known(event="outlink", link=url)


def event(category: str, action: str, name: str | None = None, value: float | None = None) -> dict[str, Any]:
    """Say that something happened, in Matomo's words.

    Args:
        category: what it belongs to, as ``video``.
        action: what was done, as ``play``.
        name: what it was done to.
        value: a number.

    """
    return _known(event="event", category=category, action=action, name=name, value=value)


def site_search(keyword: str, *, category: str | None = None, count: int | None = None) -> dict[str, Any]:
    """Say that somebody searched.

    Args:
        keyword: what for.
        category: in what.
        count: how much was found.

    """
    return _known(event="search", search=keyword, search_category=category, search_count=count)


def goal(number: int, *, revenue: float | None = None) -> dict[str, Any]:
    """Say that a goal was reached.

    Args:
        number: Matomo's number of the goal.
        revenue: what it brought.

    """
    return _known(event="goal", goal=str(number), revenue=revenue)


def content(
    name: str, *, piece: str | None = None, target: str | None = None, interaction: str | None = None
) -> dict[str, Any]:
    """Say that content was shown, or that somebody did something with it.

    Args:
        name: of the content.
        piece: what was shown of it, as the address of a picture.
        target: where it leads.
        interaction: what was done, as ``click``; without it, it was only shown.

    """
    return _known(
        event="content", content=name, content_piece=piece, content_target=target, content_interaction=interaction
    )


def product_view(product: Product) -> dict[str, Any]:
    """Say that a product was looked at."""
    return _known(
        event="view",
        product=product.sku,
        product_name=product.name or None,
        product_category=product.category or None,
        product_price=product.price or None,
    )


def order(
    number: str,
    revenue: float,
    products: Iterable[Product] = (),
    *,
    subtotal: float | None = None,
    tax: float | None = None,
    shipping: float | None = None,
    discount: float | None = None,
) -> dict[str, Any]:
    """Say that an order was placed.

    Args:
        number: of the order.
        revenue: all of it.
        products: what was ordered.
        subtotal: without tax and shipping.
        tax: of it.
        shipping: of it.
        discount: of it.

    """
    return _known(
        event="order",
        goal="0",
        order=number,
        revenue=revenue,
        items=_items(products),
        subtotal=subtotal,
        tax=tax,
        shipping=shipping,
        discount=discount,
    )


def cart(revenue: float, products: Iterable[Product]) -> dict[str, Any]:
    """Say what a cart holds now.

    Args:
        revenue: what all of it costs.
        products: what is in it.

    """
    return _known(event="cart", goal="0", revenue=revenue, items=_items(products))


def failure(error: BaseException, *, message: str | None = None) -> dict[str, Any]:
    """Say that an error was raised.

    Args:
        error: the exception.
        message: what is to be read; without it, the exception's own.

    """
    return _known(
        event="error",
        message=message or str(error) or type(error).__name__,
        error_type=type(error).__name__,
        error_stack="".join(traceback.format_exception(error)),
    )


def _items(products: Iterable[Product]) -> str:
    return as_json([[*product] for product in products]).decode()


def _known(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
