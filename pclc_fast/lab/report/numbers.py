"""How numbers appear on the page: only from rows, each marked with the name of its row."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup, escape

from .rows import Row, row_name

# What a number is shown as. A check of the page reads them backwards.
STYLES: Mapping[str, Callable[[Any], str]] = {
    "percent": lambda v: f"{100 * v:.1f}",
    "points": lambda v: f"{100 * v:.1f}",
    "paper": lambda v: f"{v:.1f}",
    "count": lambda v: f"{v:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}"),
    "plain": lambda v: f"{v:.4g}",
    "fixed": lambda v: f"{v:.3f}",
    "tenth": lambda v: f"{v:.1f}",
    "seconds": lambda v: f"{v:.1f}",
    "mebibytes": lambda v: f"{v / 2**20:.0f}",
    "text": str,
}


class Numbers:
    """Gives the page its numbers; asked for one that has no row, it raises KeyError."""

    def __init__(self, table: Mapping[str, Row]) -> None:
        self._table = table

    def has(self, section: str, run: str, item: str, epsilon: float | None, quantity: str) -> bool:
        """Whether there is such a row."""
        return row_name(section, run, item, epsilon, quantity) in self._table

    def value(self, section: str, run: str, item: str, epsilon: float | None, quantity: str) -> Any:
        """The value of a row."""
        return self._table[row_name(section, run, item, epsilon, quantity)].value

    def __call__(
        self,
        section: str,
        run: str,
        item: str,
        epsilon: float | None,
        quantity: str,
        style: str = "percent",
    ) -> Markup:
        """The value of a row as text that names it."""
        row = self._table[row_name(section, run, item, epsilon, quantity)]
        return Markup('<data data-row="{}" data-style="{}" value="{}">{}</data>').format(
            row.name, style, row.value, STYLES[style](row.value)
        )

    def epsilon(self, value: float) -> Markup:
        """An epsilon."""
        return self("epsilon", "", "", value, "value", "plain")

    def sentence(self, text: str, section: str, run: str, item: str) -> Markup:
        """Fill in a text with fields like ``{accuracy:percent}``, numbers of one item."""
        parts = []
        for literal, field, style, _ in string.Formatter().parse(text):
            parts.append(escape(literal))
            if field is not None:
                parts.append(self(section, run, item, None, field, style or "plain"))
        return Markup().join(parts)
