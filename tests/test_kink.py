"""At the hinge's kink: tight from the edges of a band on, bounded and symmetric flips inside.

The gradient of Eq. 6 jumps where f_k + margin - f_y = 0, and float32 cannot always tell on which
side a row is. The loss is continuous and has to agree everywhere; a gradient may be that of the
other side only within rounding of the kink, and no side may be preferred.
"""

from __future__ import annotations

import math

import pytest
import torch
from oracle import INTERPRETED, UNITS, Case, near_kink

MARGIN = 0.6
# Rounding to float32 moves f_k + MARGIN - f_y by up to 1.5 * 2^-24 in the logits, as much after.
BAND = 8 * 2.0**-24
ROWS = 2048


def rows_at_distance(distance: torch.Tensor, classes: int) -> torch.Tensor:
    """Rows whose class 1 has f_1 + MARGIN - f_0 = distance; the others are far from the kink.

    Everything else about a row is random, so that its rounding is too.
    """
    generator = torch.Generator().manual_seed(classes)
    rows = len(distance)
    f_top = 0.1 + 0.05 * torch.rand(rows, generator=generator, dtype=torch.float64)
    f_true = f_top + MARGIN - distance
    rest = torch.rand(rows, classes - 2, generator=generator, dtype=torch.float64) + 0.1
    rest *= ((1 - f_true - f_top) / rest.sum(dim=1))[:, None]
    shift = torch.randn(rows, 1, generator=generator, dtype=torch.float64)
    return torch.cat([f_true[:, None], f_top[:, None], rest], dim=1).log() + shift


def jump(grad: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """1 where the gradient has class 1 active, 0 where not: g_1 = n f_1 (1 - f_1 + f_0)."""
    f = logits.double().softmax(dim=1)
    share = grad[:, 1].double() / (f[:, 1] * (1 - f[:, 1] + f[:, 0]))
    assert ((share - share.round()).abs() < 1e-3).all()
    return share.round()


def rows_at_the_kink(distance: torch.Tensor, classes: int, backend: str) -> Case:
    logits = rows_at_distance(distance, classes).float()
    target = torch.zeros(len(logits), dtype=torch.int64)
    return Case(logits, target, None, "none", {"margin": MARGIN, "lc_weight": 0.0}, backend)


@pytest.mark.parametrize("classes", [12, 64, 3000])
def test_outside_the_band_every_row_agrees(backend: str, classes: int) -> None:
    """Each side's first rows that the comparison with the oracle leaves in, and some beyond."""
    first = 4 * UNITS * 2.0**-24
    distance = first * torch.tensor([-50.0, -2.0, -1.0, -1.0, 1.0, 1.0, 2.0, 50.0]).double()
    case = rows_at_the_kink(distance, classes, backend)
    assert not near_kink(case).any()
    case.check()
    _, grad, _ = case.ours()
    assert jump(grad, case.logits).equal((distance > 0).double())


@pytest.mark.parametrize("classes", [12, 64, 3000])
def test_at_the_edges_of_the_band_every_row_is_on_its_side(backend: str, classes: int) -> None:
    """Three rows at each edge; of two within, which may be on either side, the loss agrees."""
    edges = torch.tensor([-1.0, -1.0, -1.0, -0.05, 0.05, 1.0, 1.0, 1.0], dtype=torch.float64)
    case = rows_at_the_kink(BAND * edges, classes, backend)
    assert near_kink(case).all()
    loss, grad, _ = case.ours()
    true_loss, _, _ = case.oracle()
    torch.testing.assert_close(loss.double(), true_loss, rtol=0, atol=classes * 2.0**-22)
    sides = jump(grad, case.logits)
    assert ((sides == 0) | (sides == 1)).all()  # one side or the other, nothing between
    at_edge = edges.abs() == 1
    assert sides[at_edge].equal((edges[at_edge] > 0).double())


@pytest.mark.skipif(INTERPRETED, reason="counts what becomes of thousands of rows")
@pytest.mark.parametrize("classes", [12, 64, 3000])
def test_inside_the_band_flips_are_bounded_and_symmetric(backend: str, classes: int) -> None:
    distance = BAND * torch.linspace(-1, 1, ROWS, dtype=torch.float64)
    case = rows_at_the_kink(distance, classes, backend)
    loss, grad, _ = case.ours()
    true_loss, true_grad, _ = case.oracle()
    torch.testing.assert_close(loss.double(), true_loss, rtol=0, atol=classes * 2.0**-22)
    ours, truth = jump(grad, case.logits), jump(true_grad, case.logits)
    assert ((ours == 0) | (ours == 1)).all()  # one side or the other, nothing between
    to_active = ((ours == 1) & (truth == 0)).sum().item()
    to_inactive = ((ours == 0) & (truth == 1)).sum().item()
    flips = to_active + to_inactive
    assert flips < 0.35 * ROWS
    # Equally likely either way: within four standard deviations, and a floor for few flips.
    assert abs(to_active - to_inactive) <= 4 * math.sqrt(flips) + 0.03 * ROWS


@pytest.mark.parametrize("mode", ["hard", "soft", "all"])
def test_exactly_at_the_constraints_kink_the_gradient_is_zero(backend: str, mode: str) -> None:
    """Where a_y - a_k - cap is 0 no class is active; test_edges.py has the same of Eq. 6."""
    options = {"pc_weight": 0.0, "lc_weight": 1.0, "lc_mode": mode}
    for cap in (0.0,) if mode == "soft" else (0.0, 2.0):
        logits = torch.zeros(1, 4)
        logits[0, 0] = cap
        case = Case(logits, torch.tensor([0]), None, "sum", {**options, "lc_cap": cap}, backend)
        loss, grad, _ = case.ours()
        assert loss == 0
        assert (grad == 0).all()
