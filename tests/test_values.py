"""Losses, gradients and statistics against the float64 oracle."""

from __future__ import annotations

import itertools

import pytest
import torch
from oracle import INTERPRETED, Case

from pclc_fast import LossStats

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
CLASSES = [
    1,  # no false class
    2,
    10,
    32,  # the last width of the float64 kernel that puts a row in a vector lane,
    33,
    64,  # the last one of the others, and the first of those that do not
    65,
    192,
    668,
    1023,  # around one block of the row kernel
    1024,
    1025,
    2049,
    4096,
    50257,  # odd, and longer than 16 bits
]
if INTERPRETED:  # at the edges of pclc_fast/backends/triton_tiling.py
    CLASSES = [
        1,  # no false class
        2,
        16,  # the smallest block, full; then the next one
        17,
        256,  # the last width of which a program takes several rows, and the first of which one
        257,
        1025,  # soft and all read the row again instead of keeping it
        4097,  # float64 goes by blocks
        16384,  # the last width that stays in registers, and the first that does not
        16385,
    ]
MODES = ["hard", "soft", "all"]


def make_logits(rng: torch.Generator, rows: int, classes: int, kind: str) -> torch.Tensor:
    """Rows of every case of Eq. 6: all hinges active, some of them, none."""
    logits = torch.randn(rows, classes, generator=rng, dtype=torch.float64) * 2
    if kind == "confident":  # f_y around 0.995: mixed
        logits[:, 0] = logits[:, 1:].logsumexp(dim=1) + 5.3 if classes > 1 else 0.0
    if kind == "saturated":
        logits[:, 0] += 40
    return logits


@pytest.mark.parametrize("kind", ["plain", "confident", "saturated"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", CLASSES)
def test_agrees_with_oracle(
    backend: str,
    rng: torch.Generator,
    classes: int,
    dtype: torch.dtype,
    mode: str,
    kind: str,
) -> None:
    """One case a width, dtype, mode and kind of row, with weights and an ignored row."""
    logits = make_logits(rng, 5, classes, kind).to(dtype)
    target = torch.zeros(5, dtype=torch.int64)
    target[3] = classes // 2
    target[4] = -100
    weight = torch.rand(classes, generator=rng) + 0.5
    options = {"lc_mode": mode, "ce_weight": 0.25, "lc_cap": 0.0 if mode == "soft" else 0.75}
    several = classes < (257 if INTERPRETED else 5000)
    for reduction in ("mean", "none") if several else ("mean",):
        case = Case(logits, target, weight, reduction, options, backend)
        case.check()  # the gradient from forward, where there is one
        case.check(grad_output=-3.0)  # and from backward


@pytest.mark.parametrize(
    ("margin", "pc_mean", "pc_weight", "lc_weight", "ce_weight"),
    list(
        itertools.product(
            [1e-3, 0.5, 0.995, 1.0, 1.5], [False, True], [0.0, 1.0], [0.0, 2.0], [0, 1]
        )
    ),
)
def test_options(
    backend: str,
    rng: torch.Generator,
    margin: float,
    pc_mean: bool,
    pc_weight: float,
    lc_weight: float,
    ce_weight: float,
) -> None:
    """Every combination of terms, each of which may be absent."""
    options = {
        "margin": margin,
        "pc_mean": pc_mean,
        "pc_weight": pc_weight,
        "lc_weight": lc_weight,
        "ce_weight": ce_weight,
    }
    for classes, dtype in ((12, torch.float32), (2500, torch.float64)):
        logits = make_logits(rng, 4, classes, "plain").to(dtype)
        logits[:2] = make_logits(rng, 2, classes, "confident").to(dtype)
        Case(logits, torch.tensor([0, 0, 1, 2]), None, "sum", options, backend).check()


def test_cross_entropy_is_torchs(backend: str, rng: torch.Generator) -> None:
    """With the CE term alone this is F.cross_entropy, weights and ignored rows included."""
    options = {"pc_weight": 0.0, "lc_weight": 0.0, "ce_weight": 1.0}
    for classes in (7, 300):
        logits = torch.randn(8, classes, generator=rng, dtype=torch.float64, requires_grad=True)
        target = torch.randint(classes, (8,), generator=rng)
        target[2] = -100
        weight = torch.rand(classes, generator=rng, dtype=torch.float64)
        for reduction in ("mean", "sum", "none"):
            theirs = torch.nn.functional.cross_entropy(logits, target, weight, reduction=reduction)
            (expected,) = torch.autograd.grad(theirs.sum(), logits)
            loss, grad, _ = Case(logits, target, weight, reduction, options, backend).ours()
            torch.testing.assert_close(loss, theirs.detach(), rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-14)


def test_translation_invariance(backend: str) -> None:
    """A shift of all logits, exact in their format, changes no bit."""
    logits = torch.randint(-32, 32, (6, 40), generator=torch.Generator().manual_seed(1)) / 8.0
    target = torch.arange(6)
    loss, grad, _ = Case(logits, target, backend=backend).ours()
    shifted_loss, shifted_grad, _ = Case(logits + 4096.0, target, backend=backend).ours()
    assert loss.equal(shifted_loss)
    assert grad.equal(shifted_grad)


def test_external_per_row_gradient_is_exact(backend: str, rng: torch.Generator) -> None:
    """With reduction none a power of two as grad_output scales every bit of the row's gradient."""
    logits = torch.randn(5, 70, generator=rng)
    target = torch.randint(70, (5,), generator=rng)
    case = Case(logits, target, None, "none", {}, backend)
    factors = torch.tensor([1.0, 2.0, -4.0, 0.5, 0.0])
    _, ones, _ = case.ours()
    _, scaled, _ = case.ours(factors)
    assert scaled.equal(ones * factors[:, None])


def test_squared_loss_has_the_gradient_of_a_square(backend: str, rng: torch.Generator) -> None:
    """grad_output is then 2 * loss and not 1."""
    logits = torch.randn(8, 20, generator=rng, dtype=torch.float64)
    target = torch.randint(20, (8,), generator=rng)
    case = Case(logits, target, backend=backend)
    loss, grad, _ = case.ours()
    _, squared, _ = case.ours(2 * loss)
    torch.testing.assert_close(squared, 2 * loss * grad, rtol=1e-14, atol=0)


@pytest.mark.parametrize("scale", [1e4, 1e30, 1e36])
@pytest.mark.parametrize("mode", MODES)
def test_extreme_logits(backend: str, rng: torch.Generator, mode: str, scale: float) -> None:
    """Logits near the limits of float32 overflow nothing but what has no float32 value."""
    logits = (torch.rand(4, 50, generator=rng) * 2 - 1) * scale * 0.4
    target = torch.arange(4)
    arguments = (logits, target, None, "none", {"lc_mode": mode, "ce_weight": 1.0}, backend)
    Case(*arguments).check()
    with pytest.raises(AssertionError, match="grad"):  # the bounds can be exceeded
        WrongGradient(*arguments).check()


class WrongGradient(Case):
    """What no comparison may let pass."""

    def ours(
        self, grad_output: torch.Tensor | float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor, LossStats]:
        loss, grad, stats = super().ours(grad_output)
        return loss, 1000 * grad + 7, stats
