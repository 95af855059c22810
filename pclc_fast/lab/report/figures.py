"""Which chart shows what of a document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from .charts import COLOURS, Dot, Point, Series, bar_chart, line_chart, scatter_chart, strip_chart
from .rows import row_name

Run = dict[str, Any]
_EPSILON = "\N{GREEK SMALL LETTER EPSILON}"
RANKS = ("rank 2", "rank 3", "rank 4", "rank 5", "beyond")
RANK_COLOURS = (0, 5, 2, 4, 7)


def worst_curves(groups: Sequence[Any]) -> Markup:
    """The worst case of every run over epsilon; the runs of a group share their colour."""
    series = [
        Series(run["id"], group.colour, _worst(run)) for group in groups for run in group.attacked
    ]
    ticks = sorted({p.x for one in series for p in one.points})
    return line_chart(
        "Worst-case accuracy against epsilon", series, x_label=_EPSILON, x_ticks=ticks
    )


def run_curves(run: Run) -> Markup:
    """The worst case of a run, and FGSM and MIM over a fine grid."""
    series = [
        Series(
            sweep["title"],
            2 + place,
            [
                _point("rank", run, sweep["attack"], step["epsilon"], "accuracy", step["accuracy"])
                for step in sweep["steps"]
            ],
            dashed=True,
        )
        for place, sweep in enumerate(run["ranks"] or ())
    ]
    if run["attacked"]:
        series.append(Series("worst case", 0, _worst(run), joined=False))
    ends = [p.x for one in series for p in one.points]
    ticks = [share["epsilon"] for share in run["attacked"]["worst"]] if run["attacked"] else []
    ticks = sorted({0.0, *ticks, max(ends, default=1.0)})
    return line_chart(
        f"Accuracy of {run['id']} against epsilon", series, x_label=_EPSILON, x_ticks=ticks
    )


def _worst(run: Run) -> list[Point]:
    clean = run["attacked"]["clean"]
    start = Point(
        0.0,
        100 * clean["accuracy"],
        row_name("clean", run["id"], "", None, "accuracy"),
        100 * clean["low"],
        100 * clean["high"],
    )
    return [
        start,
        *(
            Point(
                share["epsilon"],
                100 * share["accuracy"],
                row_name("worst", run["id"], "", share["epsilon"], "accuracy"),
                100 * share["low"],
                100 * share["high"],
            )
            for share in run["attacked"]["worst"]
            if share["epsilon"] > 0
        ),
    ]


def rank_bars(run: Run, sweep: dict[str, Any]) -> Markup:
    """Figure 2: of the images newly fooled at each epsilon, which rank their new class had."""
    steps = [step for step in sweep["steps"] if step["epsilon"] > 0]
    bars = [
        [_point("rank", run, sweep["attack"], step["epsilon"], rank, step[rank]) for rank in RANKS]
        for step in steps
    ]
    line = [
        Point(
            step["epsilon"],
            step["newly"],
            row_name("rank", run["id"], sweep["attack"], step["epsilon"], "newly"),
        )
        for step in steps
    ]
    return bar_chart(
        f"{sweep['title']} on {run['id']}: ranks of the classes that newly fooled images go to",
        bars,
        line,
        x_label=_EPSILON,
        x_ticks=[step["epsilon"] for step in steps],
        colours=RANK_COLOURS,
    )


def class_bars(run: Run) -> Markup:
    """A thin bar for each class, from the weakest: its worst case at the smallest epsilon."""
    budgets = [share["epsilon"] for share in run["attacked"]["worst"]]
    epsilon = min((e for e in budgets if e > 0), default=0.0)
    bars = [
        _point("class", run, str(one["label"]), epsilon, "accuracy", share["accuracy"])
        for one in run["attacked"]["classes"]
        for share in one["shares"]
        if share["epsilon"] == epsilon
    ]
    bars.sort(key=lambda bar: bar.y)
    return strip_chart(f"Worst case of the classes of {run['id']}, ascending", bars)


def embedding(run: Run, *, attacked: bool) -> Markup:
    """t-SNE of the penultimate layer: points are clean images, crosses are fooled ones."""
    dots = [
        Dot(point["x"], point["y"], point["label"] % COLOURS, cross=point["attacked"])
        for point in run["embedding"]["points"]
        if attacked or not point["attacked"]
    ]
    what = "with the images that FGSM fooled" if attacked else "of clean images"
    return scatter_chart(f"t-SNE of the penultimate layer of {run['id']}, {what}", dots)


def _point(section: str, run: Run, item: str, epsilon: float, quantity: str, share: float) -> Point:
    return Point(epsilon, 100 * share, row_name(section, run["id"], item, epsilon, quantity))
