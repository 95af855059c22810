"""The paper's numbers beside those of the runs that were attacked in the same way."""

from __future__ import annotations

from typing import Any, NamedTuple

from .rows import Document, paper_item

Run = dict[str, Any]
METHODS = {
    "ce": "CE",
    "gce": "GCE",
    "pclc": "PC-LC",
    "ce+at": "CE + AT",
    "gce+at": "GCE + AT",
    "pclc+at": "PC-LC + AT",
}
TITLES = {"clean": "Clean", "cw": "C&W"}


class Line(NamedTuple):
    """An attack at an epsilon in one table, with one entry for each column."""

    title: str
    table: str
    epsilon: float | None
    cells: list[str | None]  # items of the paper's rows, by method
    keys: dict[str, str | None]  # by run: "clean", the key of its attack, or None


class Comparison(NamedTuple):
    """What the paper has for the data of the runs, and which runs stand beside it."""

    data: str
    methods: list[str]
    runs: list[Run]
    lines: list[Line]


def beside_the_paper(document: Document) -> Comparison:
    """Line up the paper's tables with the runs; no lines where it has none for their data."""
    numbers = [n for n in document["paper"] if n["quantity"] == "accuracy"]
    methods = [m for m in METHODS if any(n["method"] == m for n in numbers)]
    runs = [run for run in document["runs"] if run["attacked"]]
    places = dict.fromkeys((n["table"], n["data"], n["attack"], n["epsilon"]) for n in numbers)
    lines = []
    for place in places:
        table, data, attack, epsilon = place
        here = {
            n["method"]: paper_item(n)
            for n in numbers
            if (n["table"], n["data"], n["attack"], n["epsilon"]) == place
        }
        beside = {r["id"]: _key(r, table, attack, epsilon) for r in runs if _data(r) == data}
        cells = [here.get(method) for method in methods]
        title = TITLES.get(attack, attack.upper())
        lines.append(Line(title, table, epsilon, cells, beside))
    names = dict.fromkeys(filter(None, map(_data, document["runs"])))
    return Comparison(", ".join(names), [METHODS[m] for m in methods], runs, lines)


def _data(run: Run) -> str | None:
    name: str | None = run["data"].get("set")
    return name


def _key(run: Run, table: str, attack: str, epsilon: float | None) -> str | None:
    """The attack of a run that stands for a line of the paper, where it was tried on every image.

    Table 3's PGD and MIM come from a substitute model.
    """
    if attack == "clean":
        return "clean"
    transfer = table == "3" and attack in ("pgd", "mim")
    for one in run["attacked"]["attacks"]:
        if one["paper"] != attack or (one["threat"] == "transfer") != transfer:
            continue
        for cell in one["cells"]:
            if cell["epsilon"] == epsilon and cell["alone"]:
                key: str = one["key"]
                return key
    return None


def introduction(document: Document) -> list[dict[str, Any]]:
    """The gaps of the introduction."""
    return [
        {**n, "item": paper_item(n), "title": METHODS[n["method"]]}
        for n in document["paper"]
        if n["quantity"] == "prob_gap"
    ]
