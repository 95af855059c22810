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
SUBJECTS = {
    "1": "white-box attacks",
    "2": "beside guided complement entropy",
    "3": "black-box attacks",
    "4": "many classes",
    "5": "with adversarial training",
}
TITLES = {"clean": "Clean", "cw": "C&W"}


class Line(NamedTuple):
    """An attack at an epsilon, with one entry for each column."""

    title: str
    epsilon: float | None
    cells: list[str | None]  # items of the paper's rows, by method
    keys: dict[str, list[str]]  # by run: "clean", or the keys of its attacks, the first of them


class PaperTable(NamedTuple):
    """What one table of the paper has for one of the data sets, with the runs beside it."""

    title: str
    data: str
    methods: list[str]
    runs: list[Run]
    lines: list[Line]

    @property
    def is_matched(self) -> bool:
        """Whether a run was attacked as in any line."""
        return any(
            keys not in ([], ["clean"]) for line in self.lines for keys in line.keys.values()
        )


def beside_the_paper(document: Document) -> list[PaperTable]:
    """Line up the paper's tables with the runs on the same data."""
    numbers = [n for n in document["paper"] if n["quantity"] == "accuracy"]
    places = dict.fromkeys((n["table"], n["data"]) for n in numbers)
    return [
        _table(
            *place,
            [n for n in numbers if (n["table"], n["data"]) == place],
            [r for r in document["runs"] if r["attacked"] and r["data"].get("set") == place[1]],
        )
        for place in sorted(places)
    ]


def _table(table: str, data: str, numbers: list[dict[str, Any]], runs: list[Run]) -> PaperTable:
    methods = [m for m in METHODS if any(n["method"] == m for n in numbers)]
    lines = []
    for attack, epsilon in dict.fromkeys((n["attack"], n["epsilon"]) for n in numbers):
        here = {
            n["method"]: paper_item(n)
            for n in numbers
            if (n["attack"], n["epsilon"]) == (attack, epsilon)
        }
        lines.append(
            Line(
                TITLES.get(attack, attack.upper()),
                epsilon,
                [here.get(method) for method in methods],
                {run["id"]: _keys(run, table, attack, epsilon) for run in runs},
            )
        )
    title = f"Table {table}: {SUBJECTS[table]}"
    return PaperTable(title, data, [METHODS[m] for m in methods], runs, lines)


def _keys(run: Run, table: str, attack: str, epsilon: float | None) -> list[str]:
    """The attack of a run that stands for a line of the paper, where it was tried on every image.

    That of the paper's preset, else one of the same kind; of BIM, after it the one with another
    step. Table 3's PGD and MIM come from a substitute model.
    """
    if attack == "clean":
        return ["clean"]
    transfer = table == "3" and attack in ("pgd", "mim")
    fitting: list[str] = [
        one["key"]
        for one in run["attacked"]["attacks"]
        if one["paper"] == attack and (one["threat"] == "transfer") == transfer
        if any(cell["epsilon"] == epsilon and cell["alone"] for cell in one["cells"])
    ]
    own = _OWN_KEYS.get((table, attack), _OWN_KEYS.get(("", attack), attack))
    own = f"{own}-transfer" if transfer else own
    by_name: dict[str, str] = {}
    for key in fitting:
        by_name.setdefault(key.rpartition(": ")[2], key)
    ordered = sorted(by_name, key=lambda name: name != own)
    return [by_name[name] for name in ordered[: _SHOWN.get(attack, 1)]]


_SHOWN = {"bim": 2}  # with steps of 0.01, ten of which cannot move past 0.1, and with other steps


# Where the paper's preset does not call an attack by the paper's name for it.
_OWN_KEYS = {
    ("", "cw"): "cw-100",
    ("2", "cw"): "cw-1000",
    ("4", "pgd"): "pgd-10",
    ("4", "mim"): "mim-10",
}


def introduction(document: Document) -> list[dict[str, Any]]:
    """The gaps of the introduction."""
    return [
        {**n, "item": paper_item(n), "title": METHODS[n["method"]]}
        for n in document["paper"]
        if n["quantity"] == "prob_gap"
    ]
