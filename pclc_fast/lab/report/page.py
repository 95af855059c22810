"""The page and the CSV of a report, from its document alone."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from . import charts, figures, headline
from .beside import beside_the_paper, introduction
from .numbers import Numbers
from .rows import Document, Row, rows, to_csv

_SECTIONS = {
    "worst": "Worst case",
    "audit": "Audit",
    "attacks": "Attacks",
    "paper": "The paper",
    "classes": "Classes",
    "minimum": "Minimum \N{GREEK SMALL LETTER EPSILON}",
    "ranks": "Where images go",
    "gaps": "Gaps",
    "features": "Features",
    "samples": "Samples",
    "cost": "Cost",
    "origin": "Origin",
}


def render(document: Document) -> tuple[str, str]:
    """Return the page and the CSV. The same document gives the same bytes."""
    table = rows(document)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style = environment.get_template("style.css").render(colours=charts.COLOURS)
    runs = document["runs"]
    budgets = {share["epsilon"] for r in runs if r["attacked"] for share in r["attacked"]["worst"]}
    environment.globals |= {
        "document": document,
        "runs": runs,
        "attacked": [run for run in runs if run["attacked"]],
        "audited": [run for run in runs if run["audit"]],
        "groups": [_Group(group, document) for group in document["groups"]],
        "epsilons": sorted(budgets),
        "sections": _SECTIONS.items(),
        "paper": beside_the_paper(document),
        "introduction": introduction(document),
        "n": Numbers(table),
        "facts": functools.partial(_facts, table),
        "figures": figures,
        "headline": headline,
        "style": Markup(style),
    }
    return environment.get_template("page.html").render() + "\n", to_csv(table)


class _Group:
    """A configuration with the runs of its seeds."""

    def __init__(self, group: dict[str, Any], document: Document) -> None:
        self.name: str = group["name"]
        self.colour: int = document["groups"].index(group) % charts.COLOURS
        self.runs = [run for run in document["runs"] if run["group"] == self.name]
        self.attacked = [run for run in self.runs if run["attacked"]]
        self.several = len(self.attacked) > 1
        # Each once: seeds of one configuration share theirs.
        found = {
            caution["message"]: (run["id"], str(number))
            for run in self.attacked
            for number, caution in enumerate(run["attacked"]["cautions"], start=1)
        }
        self.cautions = list(found.values())


def _facts(table: Mapping[str, Row], run: str, section: str) -> list[Row]:
    return [row for row in table.values() if (row.section, row.run) == (section, run)]
