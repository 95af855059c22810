"""What is particular to the Triton kernels: blocks, shares, turns, and targets that are no class.

In Triton's interpreter, with the tables made small: the paths that a GPU takes for long rows and
for many then are those of short and of few.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import pytest
import torch
from oracle import INTERPRETED, Case
from torch import Tensor

from pclc_fast import pc_lc_loss
from pclc_fast.backends import ARITHMETIC, triton
from pclc_fast.options import Options

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1")

INF, NAN = math.inf, math.nan
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
MODES = ["hard", "soft", "all"]
BLOCK = 16
COEFFICIENTS = torch.tensor([0.9, 1.0, 0.5, 0.0, 0.25], dtype=torch.float64)


@pytest.fixture
def kernels() -> ModuleType:
    """Not at the top of this file: Triton is there only where its interpreter is asked for."""
    from pclc_fast.backends import triton_kernels

    return triton_kernels


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row goes by blocks of 16 classes."""
    from pclc_fast.backends import triton_tiling

    monkeypatch.setattr(triton_tiling, "SHORT_ROW", 0)
    monkeypatch.setattr(triton_tiling, "TILES", dict.fromkeys(triton_tiling.TILES, ()))
    for table in ("LONG", "BACKWARD_BLOCK"):
        small = dict.fromkeys(getattr(triton_tiling, table), (BLOCK, 4, 64))
        monkeypatch.setattr(triton_tiling, table, small)


@pytest.fixture
def shares(kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows are many: weights are summed by a launch of its own, in shares, and in blocks."""
    import triton.language as tl

    for name, value in {"TARGETS": 2, "SHARE": 2, "PARTS": 3, "LANES": 1, "LOSSES": 2}.items():
        monkeypatch.setattr(kernels, name, tl.constexpr(value))


def make_problem(rows: int, classes: int) -> tuple[Tensor, Tensor]:
    """Rows of each case of Eq. 6 at margin 0.9: all active, mixed, none, and so on in turns."""
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    target = torch.randint(classes, (rows,), generator=generator)
    lift = torch.tensor([0.0, 3.5 + math.log(classes), 40.0], dtype=torch.float64)
    logits[torch.arange(rows), target] += lift.repeat(rows)[:rows]
    return logits, target


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("classes", [1, 15, 16, 17, 40])  # around one block, and two and a half
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_rows_by_blocks(mode: str, dtype: torch.dtype, classes: int) -> None:
    logits, target = make_problem(6, classes)
    target[4] = -100
    options = {"lc_mode": mode, "ce_weight": 0.25, "margin": 0.9}
    for reduction in ("mean", "none"):
        case = Case(logits.to(dtype), target, None, reduction, options, "triton")
        case.check()
        case.check(grad_output=-3.0)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("mode", MODES)
def test_blocks_of_minus_infinity(mode: str) -> None:
    """A block without a finite logit comes first, last, or between two that have some."""
    options = {"lc_mode": mode, "ce_weight": 1.0}
    for hidden in (slice(0, 16), slice(16, 32), slice(32, 40), slice(0, 32), slice(8, 40)):
        logits, _ = make_problem(1, 40)
        logits[0, hidden] = -INF
        for y in (0, 20, 39):
            Case(logits, torch.tensor([y]), None, "sum", options, "triton").check()


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [NAN, INF])
def test_blocks_with_bad_values(mode: str, value: float) -> None:
    """NaN and +inf are not lost when the largest logit rises in a later block, or has before."""
    for place in (3, 20, 39):
        for highest in (0, 19, 38):
            logits, _ = make_problem(2, 40)
            logits[0, highest], logits[0, place] = 1e4, value
            for y in (place, 5):
                options = {"lc_mode": mode, "ce_weight": 1.0}
                case = Case(logits, torch.tensor([y, 5]), None, "none", options, "triton")
                loss, grad, _ = case.ours()
                true_loss, _, _ = case.oracle()
                assert loss[0].isnan()
                assert grad[0].isnan().all()
                torch.testing.assert_close(loss[1], true_loss[1])
                assert grad[1].isfinite().all()


@pytest.mark.usefixtures("blocks")
def test_a_tie_over_blocks_goes_to_the_lowest_index() -> None:
    """The largest logit at 35 and 18 (block 2 before 1 in its lane's order), or at 3 and 19."""
    for places in ((18, 35), (3, 19), (7, 23, 39), (0, 1)):
        logits = torch.zeros(1, 40)
        logits[0, list(places)] = 2.0
        for y in (places[0], 30):
            _, stats = pc_lc_loss(logits, torch.tensor([y]), return_stats=True, backend="triton")
            assert stats.runner_up.item() == min(set(places) - {y})
            assert stats.correct.item() == (y == places[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [304, 302, 301, 8200, 8201])  # chunks of 8, 2 and 1; long rows
def test_a_tie_over_chunks_goes_to_the_lowest_index(classes: int, dtype: torch.dtype) -> None:
    """In one chunk, in neighbours, far from each other, and in the chunk of the true class."""
    last = classes - 1
    rows = [((5, 6), 0), ((7, 8), 6), ((3, last), 17), ((1, 2), 1), ((last - 1, last), last - 1)]
    logits = torch.zeros(len(rows), classes)
    for row, (places, y) in zip(logits, rows, strict=True):
        row[list(places)] = 2.0
        row[y] = 9.0
    target = torch.tensor([y for _, y in rows])
    case = Case(logits.to(dtype), target, None, "sum", {"ce_weight": 1.0}, "triton")
    case.check()
    _, stats = pc_lc_loss(logits.to(dtype), target, return_stats=True, backend="triton")
    assert stats.runner_up.tolist() == [min(set(places) - {y}) for places, y in rows]


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("mode", MODES)
def test_every_backward_of_blocks_has_the_same_bits(mode: str) -> None:
    logits, target = make_problem(6, 40)
    for dtype in (torch.float32, torch.bfloat16):
        leaf = logits.to(dtype).requires_grad_()
        loss = pc_lc_loss(leaf, target, lc_mode=mode, margin=0.9, backend="triton")
        first, second = (torch.autograd.grad(loss, leaf, retain_graph=True)[0] for _ in range(2))
        assert first.equal(second)


@pytest.mark.usefixtures("shares")
@pytest.mark.parametrize("rows", [2, 3, 7])  # the last that needs no launch; shares of 2 and of 3
@pytest.mark.parametrize("weighted", [False, True])
def test_many_rows(rows: int, weighted: bool) -> None:
    logits, target = make_problem(rows, 300)  # a program a row: as many losses to add
    target[1] = -100
    weight = torch.rand(300, generator=torch.Generator().manual_seed(1)) if weighted else None
    for reduction in ("mean", "sum"):
        case = Case(logits, target, weight, reduction, {"margin": 0.9}, "triton")
        case.check()
        case.check(grad_output=0.5)


@pytest.mark.usefixtures("shares")
def test_many_rows_all_ignored() -> None:
    leaf = torch.full((6, 3), NAN, requires_grad=True)
    loss = pc_lc_loss(leaf, torch.full((6,), -100), backend="triton")
    assert loss.isnan()
    for factor in (1.0, 2.0):
        (grad,) = torch.autograd.grad(loss * factor, leaf, retain_graph=True)
        assert (grad == 0).all()


def launch_forward(
    logits: Tensor, target: Tensor, weight: Tensor | None, reduction: str, **options: Any
) -> list[Tensor]:
    """Loss, row_stats, gradient and statistics as on a GPU, where the host looks at no target."""
    known = Options(COEFFICIENTS, -100, reduction, options.get("lc_mode", "hard"), False)
    return triton._launch_forward(logits, target, weight, known, True, True, True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [10, 300])  # several rows a program, and one
@pytest.mark.parametrize("value", [0, -1, 2**31, 2**62, -(2**63)])  # added to or instead of K
def test_a_target_out_of_range_poisons_its_row_alone(
    classes: int, weighted: bool, mode: str, value: int
) -> None:
    """And reads and writes nothing elsewhere: the logits are an island, and so are the weights."""
    logits, target = make_problem(5, classes)
    sea = torch.full((9, classes + 64), NAN, dtype=torch.float64)
    sea[2:7, 32:-32] = logits
    weight = torch.rand(classes, dtype=torch.float64) + 0.5 if weighted else None
    good = launch_forward(logits, target, weight, "none", lc_mode=mode)
    target[2] = value if value < 0 else classes + value
    got = launch_forward(sea[2:7, 32:-32], target, weight, "none", lc_mode=mode)
    others = torch.tensor([0, 1, 3, 4])
    for ours, theirs in zip(got, good, strict=True):
        assert ours[others].equal(theirs[others])
    loss, _, grad, prob_gap, logit_gap, runner_up, correct = (part[2] for part in got)
    for number in (loss, grad, prob_gap, logit_gap):
        assert number.isnan().all()
    assert runner_up == -1
    assert not correct
    known = Options(COEFFICIENTS, -100, "none", mode, False)
    again = torch.zeros_like(got[2])
    triton._launch_backward(
        again, torch.ones(5, dtype=torch.float64), got[1], sea[2:7, 32:-32], target, weight, known,
        False,
    )  # fmt: skip
    assert again[2].isnan().all()
    assert again[others].equal(got[2][others])
    mean, *_ = launch_forward(logits, target, weight, "mean", lc_mode=mode)
    assert mean.isnan()


def test_no_classes_on_a_device() -> None:
    """Every target is out of range there."""
    loss, _, grad, *_ = launch_forward(torch.empty(2, 0), torch.tensor([-100, 0]), None, "none")
    assert loss[0] == 0
    assert loss[1].isnan()
    assert grad.shape == (2, 0)


@pytest.mark.parametrize("rows", [2, 6])  # as few as every program sums up, and many
@pytest.mark.usefixtures("shares")
def test_a_gradient_that_is_there_is_left_as_it_is(rows: int) -> None:
    """For a grad_output of 1 nothing is written; for another one everything is."""
    logits, target = make_problem(rows, 20)
    known = Options(COEFFICIENTS, -100, "mean", "hard", False)
    _, row_stats, expected, *_ = launch_forward(logits, target, None, "mean")
    for upstream, has_unit_grad, written in ((1, True, False), (1, False, True), (2, True, True)):
        grad = torch.full_like(logits, 7.0)
        number = torch.tensor(float(upstream), dtype=torch.float64)
        triton.backward(
            grad, number, row_stats, logits, target, None, known, has_unit_grad=has_unit_grad
        )
        assert grad.equal(upstream * expected if written else torch.full_like(logits, 7.0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_row_stats_are_six_numbers_and_an_integer(dtype: torch.dtype) -> None:
    logits, target = make_problem(3, 20)
    arithmetic, width = ARITHMETIC[dtype]
    _, row_stats, _, _, _, runner_up, _ = launch_forward(logits.to(dtype), target, None, "none")
    assert row_stats.shape == (3, width)
    assert row_stats.dtype == arithmetic
    assert row_stats.view(torch.int64)[:, -1].equal(runner_up)
    assert (row_stats[:, 1] >= 1).all()


def test_small_losses_keep_their_digits() -> None:
    """CE is log1p of a small number: 1 + x would have lost it."""
    for gap in (5.0, 15.0, 17.0, 30.0, 80.0):
        logits = torch.tensor([[gap, 0.0, 0.0]])
        options = {"ce_weight": 1.0, "pc_weight": 0.0, "lc_weight": 0.0}
        loss = pc_lc_loss(logits, torch.tensor([0]), backend="triton", **options)
        expected = math.log1p(2 * math.exp(-gap))
        assert loss.item() == pytest.approx(expected, rel=1e-5 if gap > 40 else 2e-6)
