"""Charts as inline SVG, drawn to be read at 350 pixels: lines, stacked bars with a line, points.

Colours are classes (``c0`` to ``c9``), so that the page's style decides about light and dark. A
mark that stands for a number carries the name of its row in ``data-row``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

WIDTH, HEIGHT = 400, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 20, 12, 36
COLOURS = 10


class Point(NamedTuple):
    """A value and the row that it comes from, with the interval around it where there is one."""

    x: float
    y: float
    row: str
    low: float | None = None
    high: float | None = None


class Series(NamedTuple):
    """Points joined by a line."""

    name: str
    colour: int
    points: Sequence[Point]
    dashed: bool = False
    joined: bool = True  # False: between the points nothing is known; intervals are bars


class Dot(NamedTuple):
    """A mark of a scatter plot."""

    x: float
    y: float
    colour: int
    cross: bool = False


class Scale(NamedTuple):
    """Maps values from ``low`` to ``high`` to pixels from ``start`` to ``stop``."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.stop - self.start)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    x_ticks: Sequence[float],
    y_label: str = "accuracy, %",
    y_top: float = 100.0,
) -> Markup:
    """Lines over a shared x axis; intervals are bands."""
    x, y = _scales((min(x_ticks, default=0.0), max(x_ticks, default=1.0)), (0.0, y_top))
    parts = [_axes(x, y, x_ticks, x_label, y_label)]
    for one in series:
        banded = [p for p in one.points if p.low is not None and p.high is not None]
        if not one.joined:
            bars = Markup("").join(
                Markup("M{:.1f} {:.1f}V{:.1f}").format(x(p.x), y(p.low or 0.0), y(p.high or 0.0))
                for p in banded
            )
            parts.append(Markup('<path class="line c{}" d="{}"/>').format(one.colour, bars))
        elif len(banded) > 1:
            edge = [(p.x, p.high) for p in banded] + [(p.x, p.low) for p in reversed(banded)]
            corners = " ".join(f"{x(a):.1f},{y(b or 0.0):.1f}" for a, b in edge)
            parts.append(
                Markup('<polygon class="band c{}" points="{}"/>').format(one.colour, corners)
            )
    for one in series:
        path = " ".join(f"{x(p.x):.1f},{y(p.y):.1f}" for p in one.points)
        dash = " dashed" if one.dashed else ""
        if one.joined:
            parts.append(
                Markup('<polyline class="line c{}{}" points="{}"/>').format(one.colour, dash, path)
            )
        parts += [
            Markup('<circle class="mark c{}" cx="{:.1f}" cy="{:.1f}" r="3" data-row="{}"/>').format(
                one.colour, x(p.x), y(p.y), p.row
            )
            for p in one.points
        ]
    return _svg(title, parts)


def bar_chart(
    title: str,
    bars: Sequence[Sequence[Point]],
    line: Sequence[Point],
    *,
    x_label: str,
    x_ticks: Sequence[float],
    colours: Sequence[int],
) -> Markup:
    """Stacked bars of shares in percent, and a line of counts on its own axis at the right."""
    x, y = _scales((0.0, float(max(1, len(bars)))), (0.0, 100.0), right=36)
    most = max((p.y for p in line), default=0.0) or 1.0
    right = Scale(0.0, most, y.start, y.stop)
    width = (x.stop - x.start) / max(1, len(bars))
    parts = [_axes(x, y, (), x_label, "% of the newly fooled")]
    for place, stack in enumerate(bars):
        below = 0.0
        for colour, part in zip(colours, stack, strict=True):
            top = below + part.y
            parts.append(
                Markup(
                    '<rect class="bar c{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"'
                    ' data-row="{}"/>'
                ).format(
                    colour, x(place) + 0.1 * width, y(top), 0.8 * width, y(below) - y(top), part.row
                )
            )
            below = top
    middles = [(x(place + 0.5), right(p.y), p.row) for place, p in enumerate(line)]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b, _ in middles)
    for style in ("halo", "ink"):  # the one keeps the other apart from the bars
        parts.append(Markup('<polyline class="line {}" points="{}"/>').format(style, path))
    parts += [
        Markup('<circle class="mark ink" cx="{:.1f}" cy="{:.1f}" r="2.5" data-row="{}"/>').format(
            *m
        )
        for m in middles
    ]
    parts.append(_bar_ticks(x, right, x_ticks, most))
    return _svg(title, parts)


def strip_chart(title: str, bars: Sequence[Point]) -> Markup:
    """Thin bars side by side, in percent."""
    x, y = _scales((0.0, float(max(1, len(bars)))), (0.0, 100.0))
    parts = [_axes(x, y, (), "classes", "accuracy, %")]
    parts += [
        Markup(
            '<rect class="bar c0" x="{:.2f}" y="{:.1f}" width="{:.2f}" height="{:.1f}"'
            ' data-row="{}"/>'
        ).format(x(place), y(bar.y), 0.85 * (x(1) - x(0)), y(0) - y(bar.y), bar.row)
        for place, bar in enumerate(bars)
    ]
    return _svg(title, parts)


def scatter_chart(title: str, dots: Sequence[Dot]) -> Markup:
    """Points without axes: only their neighbourhood means something."""
    xs, ys = [d.x for d in dots] or [0.0], [d.y for d in dots] or [0.0]
    x = Scale(min(xs), max(xs), 8, WIDTH - 8)
    y = Scale(min(ys), max(ys), WIDTH - 8, 8)
    parts = [
        Markup('<path class="plus c{}" d="M{:.1f} {:.1f}h6m-3 -3v6"/>').format(
            d.colour % COLOURS, x(d.x) - 3, y(d.y)
        )
        if d.cross
        else Markup('<circle class="dot c{}" cx="{:.1f}" cy="{:.1f}" r="1.8"/>').format(
            d.colour % COLOURS, x(d.x), y(d.y)
        )
        for d in sorted(dots, key=lambda d: d.cross)
    ]
    return _svg(title, parts, height=WIDTH)


def _scales(
    xs: tuple[float, float], ys: tuple[float, float], right: float = _RIGHT
) -> tuple[Scale, Scale]:
    return (
        Scale(*xs, _LEFT, WIDTH - right),
        Scale(*ys, HEIGHT - _BOTTOM, _TOP),
    )


def _axes(x: Scale, y: Scale, x_ticks: Sequence[float], x_label: str, y_label: str) -> Markup:
    """Grid, ticks and labels; hidden from readers of the screen, who have the tables."""
    parts = []
    for share in range(5):
        value = y.low + (y.high - y.low) * share / 4
        parts.append(
            Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(x.start, y(value), x.stop)
            + Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{:g}</text>').format(
                x.start - 5, y(value) + 4, value
            )
        )
    for tick in _apart(x_ticks, x):
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                x(tick), HEIGHT - _BOTTOM + 15, _tick(tick)
            )
        )
    parts.append(
        Markup('<text class="label" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            (x.start + x.stop) / 2, HEIGHT - 4, x_label
        )
        + Markup(
            '<text class="label" transform="translate(9 {:.1f}) rotate(-90)" text-anchor="middle">'
            "{}</text>"
        ).format((y.start + y.stop) / 2, y_label)
    )
    return Markup('<g class="axis" aria-hidden="true">{}</g>').format(Markup().join(parts))


def _bar_ticks(x: Scale, right: Scale, x_ticks: Sequence[float], most: float) -> Markup:
    places = dict(enumerate(x_ticks))
    step = max(1, -(-len(places) // 6))
    parts = [
        Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            x(place + 0.5), HEIGHT - _BOTTOM + 15, _tick(tick)
        )
        for place, tick in places.items()
        if place % step == step - 1
    ]
    parts += [
        Markup('<text class="tick" x="{:.1f}" y="{:.1f}">{:g}</text>').format(
            x.stop + 5, right(value) + 4, value
        )
        for value in sorted({0.0, float(round(most / 2)), most})
    ]
    return Markup('<g class="axis" aria-hidden="true">{}</g>').format(Markup().join(parts))


def _apart(ticks: Sequence[float], x: Scale) -> list[float]:
    """Those ticks whose texts do not run into each other, from the left."""
    kept: list[float] = []
    for tick in sorted(ticks):
        if not kept or x(tick) - x(kept[-1]) >= 8 + 6.5 * len(_tick(tick)):
            kept.append(tick)
    return kept


def _tick(value: float) -> str:
    return f"{value:.3g}"


def _svg(title: str, parts: Sequence[Markup], height: int = HEIGHT) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, title, Markup().join(parts)
    )
