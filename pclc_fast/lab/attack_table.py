"""A result for a terminal: what each attack left, and the worst case."""

from __future__ import annotations

from rich import box
from rich.table import Table

from .attacks.result import Attack, Result, Share


def result_table(result: Result) -> Table:
    """Accuracy in percent for each attack and epsilon, in the order in which they ran."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.title = (
        "Accuracy (%) left by this attack and all before it"
        if result.cumulative
        else "Accuracy (%) under each attack alone"
    )
    table.add_column("attack")
    for epsilon in result.epsilons:
        table.add_column(f"{result.norm} {epsilon:g}", justify="right")
    table.add_row("none", *[_percent(result.clean)] * len(result.epsilons))
    if result.cumulative and len(result.epsilons) > 1:
        smaller = [result.clean]
        smaller += [result.worst_case(epsilon) for epsilon in result.epsilons[:-1]]
        table.add_row("found within a smaller budget", *map(_percent, smaller))
    for attack in result.attacks:
        table.add_row(attack.title, *(_entry(result, attack, e) for e in result.epsilons))
    table.add_section()
    worst = [result.worst_case(epsilon) for epsilon in result.epsilons]
    table.add_row("worst case", *map(_percent, worst))
    table.add_row("95 % interval", *map(_interval, worst))
    return table


def headline(result: Result) -> list[str]:
    """What stands at the end, in words."""
    share = result.clean
    images = f"{result.model.name}, {share.images} images: {_percent(share)} % without an attack"
    lines = [f"{images}; {result.seconds:.0f} seconds"]
    lines += [
        f"{attack.title}, {cell.norm} without a budget: {_percent(left)} % correct, "
        + (f"median distance {_median(cell.distance):.3g}" if cell.distance else "none fooled")
        for attack in result.attacks
        if (cell := result.cell(attack.key, None))
        if (left := result.alone(cell))
    ]
    return lines


def _entry(result: Result, attack: Attack, epsilon: float) -> str:
    if result.cumulative:
        return _percent(dict(result.cumulative_shares(epsilon)).get(attack.key))
    cell = result.cell(attack.key, epsilon)
    return _percent(result.alone(cell) if cell else None)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _percent(share: Share | None) -> str:
    return "-" if share is None else f"{100 * share.accuracy:.1f}"


def _interval(share: Share) -> str:
    low, high = share.wilson_95
    return f"{100 * low:.1f}-{100 * high:.1f}"
