"""The losses that the lab trains with, against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pclc_fast import PCLCLoss, pc_lc_loss
from pclc_fast.lab.losses import LOSSES, OPTIONS, GuidedComplementEntropy, make_criterion


def problem(rows: int = 12, classes: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(rows, classes, dtype=torch.float64, generator=generator)
    return logits, torch.randint(classes, (rows,), generator=generator)


def gce_by_its_formula(logits: Tensor, labels: Tensor, alpha: float) -> float:
    """Chen et al. 2019, a row and a class at a time, as it is printed."""
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        exponentials = [math.exp(a) for a in row]
        f = [e / sum(exponentials) for e in exponentials]
        q = [f[k] / (1 - f[label]) for k in range(len(f)) if k != label]
        total += f[label] ** alpha * sum(p * math.log(p) for p in q) / math.log(len(f))
    return total / len(labels)


@pytest.mark.parametrize("alpha", [0.333, 0.2])
def test_gce_is_the_published_formula(alpha: float) -> None:
    logits, labels = problem()
    loss, _ = GuidedComplementEntropy(alpha)(logits, labels)
    assert loss.item() == pytest.approx(gce_by_its_formula(logits, labels, alpha), rel=1e-12)
    in_float32, _ = GuidedComplementEntropy(alpha)(logits.float(), labels)
    assert in_float32.dtype == torch.float32
    assert in_float32.item() == pytest.approx(loss.item(), rel=1e-5)


def test_gce_gradient() -> None:
    logits, labels = problem(rows=4)
    criterion = GuidedComplementEntropy()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: criterion(a, labels)[0], logits)


def test_gce_does_not_cancel_where_the_network_is_sure() -> None:
    """f_y rounds to 1 in float32; q = f_k / (1 - f_y) is nevertheless 2/3 and 1/3."""
    logits = torch.tensor([[60.0, math.log(2), 0.0]], requires_grad=True)
    loss, _ = GuidedComplementEntropy()(logits, torch.tensor([0]))
    entropy = (2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)) / math.log(3)
    assert loss.item() == pytest.approx(entropy, rel=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 1] > 0 > logits.grad[0, 2]


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_reports_the_same_statistics(name: str) -> None:
    logits, labels = problem()
    logits[0, 1] = logits[0, 2] = logits[0].max() + 1  # a tie for the largest
    labels[0] = 2
    logits[1, 0] = logits[1, 3] = logits[1].max() + 1
    labels[1] = 0
    _, expected = pc_lc_loss(logits, labels, return_stats=True)
    assert expected.correct[:2].tolist() == [False, True]
    _, stats = make_criterion(name)(logits, labels)  # type: ignore[arg-type]
    for found, wanted in zip(stats, expected, strict=True):
        assert found.dtype == wanted.dtype
        assert not found.requires_grad
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "keywords"),
    [
        ("ce", {}, {"ce_weight": 1.0, "pc_weight": 0.0, "lc_weight": 0.0}),
        ("pclc", {}, {}),
        ("pclc", {"margin": 0.9, "lc_weight": 0.3, "lc_cap": 1.0, "pc_mean": True}, None),
        ("pclc-soft", {}, {"lc_mode": "soft"}),
        ("pclc-all", {"lc_cap": 0.5}, {"lc_mode": "all", "lc_cap": 0.5}),
        (
            "pclc-released",
            {"lc_weight": 0.1},
            {"lc_mode": "soft", "pc_mean": True, "lc_weight": 0.1},
        ),
    ],
)
def test_names_mean_what_they_say(name: str, options: dict, keywords: dict | None) -> None:
    logits, labels = problem()
    loss, _ = make_criterion(name, options)(logits, labels)  # type: ignore[arg-type]
    assert loss == pc_lc_loss(logits, labels, **(options if keywords is None else keywords))


def test_options_are_those_of_the_loss() -> None:
    assert set(OPTIONS) == set(LOSSES)
    for name in LOSSES:
        for option in OPTIONS[name]:
            assert hasattr(PCLCLoss(), option)
