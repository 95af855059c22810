"""The numbers of a report as rows: what the CSV holds, and the only numbers a page can show."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ..summary import mean_and_spread

Document = dict[str, Any]
Run = dict[str, Any]
_SHARE = ("correct", "images", "accuracy", "low", "high")
_COST = ("attempted", "fooled", "rejected", "forwards", "backwards", "naive_forwards",
         "naive_backwards", "seconds", "median_distance")  # fmt: skip

_USELESS = ("zero", "vanishing", "non-finite")  # shares of gradients


class Row(NamedTuple):
    """One number, or text that holds one, and what it is of."""

    section: str
    run: str  # of a run or of a group of runs; empty where it is of neither
    item: str
    epsilon: float | None
    quantity: str
    value: float | int | str

    @property
    def name(self) -> str:
        """What it is called in the CSV and on the page."""
        return row_name(self.section, self.run, self.item, self.epsilon, self.quantity)


def row_name(section: str, run: str, item: str, epsilon: float | None, quantity: str) -> str:
    """The name of the row of a number."""
    budget = "" if epsilon is None else f"{epsilon:g}"
    return "/".join(part for part in (section, run, item, budget, quantity) if part)


def rows(document: Document) -> dict[str, Row]:
    """Every number of a document, by name.

    Raises:
        ValueError: two have one name.
    """
    found: dict[str, Row] = {}
    for row in _all(document):
        if row.name in found:
            raise ValueError(f"two rows are called {row.name}")
        found[row.name] = row
    return found


def to_csv(table: dict[str, Row]) -> str:
    """A line for each row, under a heading."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("row", *Row._fields))
    for name, row in table.items():
        budget = "" if row.epsilon is None else f"{row.epsilon:g}"
        writer.writerow((name, *row[:3], budget, row.quantity, row.value))
    return text.getvalue()


def _all(document: Document) -> Iterator[Row]:
    yield from _facts("report", "", "", document["environment"])
    for epsilon in sorted(set(_epsilons(document))):
        yield Row("epsilon", "", "", epsilon, "value", epsilon)
    for run in document["runs"]:
        yield from _run(run)
    for group in document["groups"]:
        members = [run for run in document["runs"] if run["group"] == group["name"]]
        yield from _group(group["name"], group["about"], members)
    for number in document["paper"]:
        item = paper_item(number)
        yield Row("paper", "", item, number["epsilon"], number["quantity"], number["value"])


def paper_item(number: dict[str, Any]) -> str:
    """How a number of the paper is called."""
    words = (number["data"], number["network"], number["method"], number["attack"])
    where = number["table"] if number["table"].isalpha() else f"table {number['table']}"
    return f"{where}: {', '.join(words)}"


def _epsilons(document: Document) -> Iterator[float]:
    """Every epsilon that a number of the document belongs to."""
    yield from (n["epsilon"] for n in document["paper"] if n["epsilon"] is not None)
    for run in document["runs"]:
        for sweep in run["ranks"] or ():
            yield from (step["epsilon"] for step in sweep["steps"])
        yield from (sample["epsilon"] for sample in run["samples"] or ())
        if run["attacked"]:
            yield 0.0
            yield from (share["epsilon"] for share in run["attacked"]["worst"])
            cells = (cell for attack in run["attacked"]["attacks"] for cell in attack["cells"])
            yield from (cell["epsilon"] for cell in cells if cell["epsilon"] is not None)


def _run(run: Run) -> Iterator[Row]:
    name = run["id"]
    yield Row("run", name, "", None, "folder", run["folder"])
    yield from _facts("missing", name, "", run["missing"])
    for part in ("model", "data"):
        for key in ("sha256",):
            if run[part].get(key):
                yield Row(part, name, "", None, key, run[part][key])
        yield from _facts(part, name, "", run[part].get("facts", {}))
    if run["training"]:
        yield from _facts("training", name, "", run["training"])
    if run["attacked"]:
        yield from _attacked(name, run["attacked"])
    for item, values in (run["gaps"] or {}).items():
        yield from _facts("gap", name, item, values)
    for item, values in (run["gradients"] or {}).items():
        yield from _facts("gradient", name, item, values)
    for sweep in run["ranks"] or ():
        yield from _facts("rank", name, sweep["attack"], sweep["facts"])
        for step in sweep["steps"]:
            numbers = {k: v for k, v in step.items() if k != "epsilon"}
            yield from _facts("rank", name, sweep["attack"], numbers, step["epsilon"])
    if run["embedding"]:
        yield from _facts("embedding", name, "", run["embedding"]["facts"])
    for sample in run["samples"] or ():
        numbers = {k: sample[k] for k in ("label", "predicted")}
        yield from _facts("sample", name, str(sample["position"]), numbers, sample["epsilon"])
        yield Row("sample", name, str(sample["position"]), None, "position", sample["position"])
    if run["audit"]:
        for check in run["audit"]["checks"]:
            yield from _facts("audit", name, check["key"], check["numbers"])
        yield from _facts("audit", name, "", run["audit"]["counts"])


def _attacked(name: str, attacked: dict[str, Any]) -> Iterator[Row]:
    facts = {k: attacked[k] for k in ("seed", "batch_size", "seconds", "peak_memory")}
    yield from _facts("evaluation", name, "", facts)
    yield from _share("clean", name, "", None, attacked["clean"])
    for share in attacked["worst"]:
        yield from _share("worst", name, "", share["epsilon"], share)
    for attack in attacked["attacks"]:
        for cell in attack["cells"]:
            for kind in ("alone", "cumulative"):
                if cell[kind]:
                    section = f"attack {kind}"
                    yield from _share(section, name, attack["key"], cell["epsilon"], cell[kind])
            cost = {k: cell[k] for k in _COST if cell[k] is not None}
            item = attack["key"] if cell["epsilon"] is not None else f"{attack['key']}, no budget"
            yield from _facts("attack", name, item, cost, cell["epsilon"])
        total = {
            k: sum(cell[k] for cell in attack["cells"])
            for k in ("forwards", "backwards", "naive_forwards", "naive_backwards", "seconds")
        }
        yield from _facts("cost", name, attack["key"], total)
        yield from _gradients(name, attack)
        yield from _facts("setting", name, attack["key"], attack["settings"])
    for one in attacked["classes"]:
        for share in one["shares"]:
            yield from _share("class", name, str(one["label"]), share["epsilon"], share)
    for number, caution in enumerate(attacked["cautions"], start=1):
        yield Row("caution", name, str(number), None, "message", caution["message"])
    for one in attacked["assumptions"]:
        numbers = {k: one[k] for k in ("source", "chosen")}
        yield from _facts("assumption", name, one["topic"], numbers)
    yield from _facts("environment", name, "", attacked["environment"])
    yield from _minimum(name, attacked)


def _gradients(name: str, attack: dict[str, Any]) -> Iterator[Row]:
    """At each step of an attack, then over all of them, and the step with most of no use."""
    steps = attack["gradients"]
    for step in steps:
        item = f"{attack['key']}, step {step['step']}"
        yield from _facts("attack gradient", name, item, {k: step[k] for k in ("taken", *_USELESS)})
    taken = sum(step["taken"] for step in steps)
    if taken:
        numbers = {k: sum(s[k] * s["taken"] for s in steps) / taken for k in _USELESS}
        worst = max(steps, key=lambda s: sum(s[k] for k in _USELESS))
        numbers |= {"worst step": worst["step"], "worst": sum(worst[k] for k in _USELESS)}
        yield from _facts("attack gradient", name, attack["key"], {"taken": taken, **numbers})


def _minimum(name: str, attacked: dict[str, Any]) -> Iterator[Row]:
    """How many images were first fooled at which epsilon, then each image's own."""
    least = attacked["minimum_epsilon"]
    yield Row("minimum", name, "wrong", None, "images", least.count(0.0))
    for share in attacked["worst"]:
        if share["epsilon"] > 0:
            epsilon = share["epsilon"]
            yield Row("minimum", name, "fooled", epsilon, "images", least.count(epsilon))
    yield Row("minimum", name, "never", None, "images", least.count(None))
    for position, epsilon in enumerate(least):
        if epsilon is not None:
            yield Row("image", name, str(position), None, "minimum epsilon", epsilon)


def _group(name: str, about: str, runs: list[Run]) -> Iterator[Row]:
    """Means and spreads over the seeds, where there are several."""
    yield Row("group", name, "", None, "about", about)
    yield Row("group", name, "", None, "runs", len(runs))
    several = [r["attacked"] for r in runs if r["attacked"]]
    if len(several) < 2:
        return
    yield from _spread("clean", name, None, [a["clean"]["accuracy"] for a in several])
    for share in several[0]["worst"]:
        epsilon = share["epsilon"]
        values = [s["accuracy"] for a in several for s in a["worst"] if s["epsilon"] == epsilon]
        yield from _spread("worst", name, epsilon, values)


def _spread(section: str, name: str, epsilon: float | None, values: list[float]) -> Iterator[Row]:
    mean, spread = mean_and_spread(values)
    numbers = {"mean": mean, "spread": spread, "seeds": len(values)}
    if len(values) < 2:
        del numbers["spread"]
    yield from _facts(f"group {section}", name, "", numbers, epsilon)


def _share(
    section: str, name: str, item: str, epsilon: float | None, share: dict[str, Any]
) -> Iterator[Row]:
    for quantity in _SHARE:
        yield Row(section, name, item, epsilon, quantity, share[quantity])


def _facts(
    section: str, name: str, item: str, values: dict[str, Any], epsilon: float | None = None
) -> Iterator[Row]:
    """A row for each value; what is a list or a table becomes a text."""
    for quantity, value in values.items():
        if value is None:
            continue
        plain = value if isinstance(value, (int, float, str)) else _text(value)
        yield Row(section, name, item, epsilon, quantity, plain)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{k}: {_text(v)}" for k, v in value.items() if v != "")
    if isinstance(value, Iterable) and not isinstance(value, str):
        return " ".join(_text(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
