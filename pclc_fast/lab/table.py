"""The tables of an experiment, for a terminal 80 columns wide."""

from __future__ import annotations

import math

from rich import box
from rich.table import Table

from .summary import BASELINE, CLEAN, MODELS, OURS, Condition, Results, wilson_interval


def accuracy_table(results: Results) -> Table:
    """Accuracies in percent under every condition."""
    seeds = f"mean of {results.seeds} seeds" if results.seeds > 1 else "one seed"
    table = _table(
        f"Accuracy in % on {results.images} test images, {seeds}",
        "± standard deviation over the seeds, [95 % Wilson interval]; difference ± standard error",
    )
    table.add_column("attack")
    for heading in ("epsilon", *MODELS, f"{OURS} - {BASELINE}"):
        table.add_column(heading, justify="right", no_wrap=True)
    above = CLEAN
    for condition in results.conditions:
        if condition.attack != above:
            table.add_section()
        above = condition.attack
        difference = results.difference(condition)
        table.add_row(
            condition.attack,
            "" if condition.attack == CLEAN else f"{condition.epsilon:g}",
            *(_accuracy(results, model, condition) for model in MODELS),
            f"{100 * difference.mean:+.1f} ± {100 * difference.error:.1f}",
        )
    return table


def gap_table(results: Results) -> Table:
    """Mean gaps between the true and the largest false class on the test images as they are."""
    table = _table("Mean gap on the test images without an attack")
    for heading in ("", *MODELS):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    rows = (
        ("true - largest false probability", results.prob_gap, 3),
        ("true - largest false logit", results.logit_gap, 2),
    )
    for name, gap, digits in rows:
        clean = (gap(model, Condition(CLEAN, 0.0)) for model in MODELS)
        table.add_row(name, *(_with_spread(*value, digits) for value in clean))
    return table


def _table(title: str, caption: str | None = None) -> Table:
    return Table(
        title=title,
        caption=caption,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )


def _accuracy(results: Results, model: str, condition: Condition) -> str:
    mean, spread = results.accuracy(model, condition)
    low, high = wilson_interval(mean, results.images)
    # the backslash: rich would take the bracket for markup
    return rf"{_with_spread(100 * mean, 100 * spread, 1)} \[{100 * low:.0f}, {100 * high:.0f}]"


def _with_spread(mean: float, spread: float, digits: int) -> str:
    spread_text = "" if math.isnan(spread) else f" ± {spread:.{digits}f}"
    return f"{mean:.{digits}f}{spread_text}"
