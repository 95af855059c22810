"""The formulas of the paper and of its authors' released code, written out on their own."""

from __future__ import annotations

import math

import pytest
import torch
from oracle import KERNELS

from pclc_fast import PCLCLoss, reference_pc_lc_loss


@pytest.mark.parametrize("backend", [*KERNELS, "reference"])
@pytest.mark.parametrize("margin", [0.3, 0.995, 1.2])
def test_released_variant_is_the_published_formula(backend: str, margin: float) -> None:
    """Value and gradient of the authors' two losses, written here from their formulas."""
    generator = torch.Generator().manual_seed(3)
    logits = (torch.randn(6, 10, generator=generator, dtype=torch.float64) * 3).requires_grad_()
    target = torch.randint(10, (6,), generator=generator)
    with torch.no_grad():
        logits[:3, target[0]] += 8
    mask = torch.arange(10) == target[:, None]
    prob = logits.softmax(dim=1)
    hinge = torch.relu(margin + prob - prob[mask][:, None]).sum() / 6
    compact = (hinge - margin) / 9
    false_prob = torch.where(mask, -1e3, logits).softmax(dim=1)
    soft = torch.relu(false_prob * (logits[mask][:, None] - logits)).sum() / 6
    expected = compact + 0.05 * soft
    (expected_grad,) = torch.autograd.grad(expected, logits)
    loss = PCLCLoss.released(margin=margin, backend=backend)(logits, target)
    (grad,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-10, atol=1e-10)


def test_reference_is_the_paper_on_a_row_by_hand() -> None:
    """Eqs. 6 and 16 with Python's floats."""
    row, y, margin = [2.0, 0.5, 1.0, -1.0], 0, 0.7
    exps = [math.exp(a) for a in row]
    f = [e / sum(exps) for e in exps]
    compact = sum(max(0.0, f[k] + margin - f[y]) for k in range(4) if k != y)
    gap = max(0.0, row[y] - max(row[1:]) - 0.25)
    logits = torch.tensor([row], dtype=torch.float64)
    loss = reference_pc_lc_loss(
        logits, torch.tensor([y]), margin=margin, lc_weight=0.4, lc_cap=0.25
    )
    assert loss.item() == pytest.approx(compact + 0.4 * gap, rel=1e-14)
