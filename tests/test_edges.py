"""Every row of the table of edges, for the kernels and for the reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from oracle import INTERPRETED, KERNELS, Case
from torch import Tensor

from pclc_fast import pc_lc_loss

INF, NAN = math.inf, math.nan
MODES = ["hard", "soft", "all"]
ALL_TERMS = {"ce_weight": 1.0, "pc_weight": 1.0, "lc_weight": 1.0}
WIDE = 40  # classes enough for the kernels that take one row at a time
both = pytest.mark.parametrize("backend", KERNELS if INTERPRETED else [*KERNELS, "reference"])


def loss_and_grad(logits: Any, target: Any, backend: str, **options: Any) -> tuple[Tensor, Tensor]:
    """Loss with its gradient for a grad_output of ones, in float64 unless logits say otherwise."""
    if not isinstance(logits, Tensor):
        logits = torch.tensor(logits, dtype=torch.float64)
    leaf = logits.detach().requires_grad_()
    loss = pc_lc_loss(leaf, torch.as_tensor(target), backend=backend, **options)
    (grad,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), grad


def truncated_to_bfloat16(values: Tensor) -> Tensor:
    """What Triton's interpreter makes of float32: it drops bits where a GPU rounds."""
    return (values.view(torch.int32) & -65536).view(torch.float32)


def widen(row: list[float], fill: float) -> list[float]:
    """Put a row at the end of a wider one."""
    return [fill] * (WIDE - len(row)) + row


@both
def test_ignored_rows_cost_nothing_and_are_not_read(backend: str) -> None:
    for width in (3, WIDE):
        logits = torch.full((3, width), NAN, dtype=torch.float64)
        logits[1] = torch.arange(width)
        loss, grad = loss_and_grad(logits, [-100, 1, -100], backend, reduction="none")
        assert loss[0] == loss[2] == 0
        assert loss[1].isfinite()
        assert (grad[0] == 0).all()
        assert (grad[2] == 0).all()
        mean, _ = loss_and_grad(logits, [-100, 1, -100], backend)
        assert mean == loss[1]


@both
@pytest.mark.parametrize("classes", [3, WIDE, 0])
@pytest.mark.parametrize("rows", [0, 2])
def test_every_row_ignored(backend: str, rows: int, classes: int) -> None:
    logits, target = torch.full((rows, classes), NAN), torch.full((rows,), -100)
    for weight in (None, torch.ones(classes)):
        mean, grad = loss_and_grad(logits, target, backend, weight=weight)
        assert mean.isnan()
        assert grad.equal(torch.zeros(rows, classes))
    assert loss_and_grad(logits, target, backend, reduction="sum")[0] == 0
    none, grad = loss_and_grad(logits, target, backend, reduction="none")
    assert none.equal(torch.zeros(rows))
    assert grad.equal(torch.zeros(rows, classes))


@both
def test_weights_that_sum_to_zero(backend: str) -> None:
    weight = torch.zeros(3, dtype=torch.float64)
    mean, grad = loss_and_grad([[1.0, 2.0, 3.0]], [0], backend, weight=weight)
    assert mean.isnan()
    assert (grad == 0).all()


@both
def test_mean_divides_by_the_weights_of_the_rows_that_count(backend: str) -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target, weight = torch.tensor([0, 1, -100, 2]), torch.tensor([0.5, 2.0, 4.0])
    none, _ = loss_and_grad(logits, target, backend, reduction="none")
    mean, _ = loss_and_grad(logits, target, backend, weight=weight)
    expected = (none[[0, 1, 3]] * weight).sum() / weight.sum()
    torch.testing.assert_close(mean, expected)


@both
@pytest.mark.parametrize("mode", MODES)
def test_one_class(backend: str, mode: str) -> None:
    loss, grad = loss_and_grad([[3.0], [-4.0]], [0, 0], backend, lc_mode=mode, **ALL_TERMS)
    assert loss == 0
    assert (grad == 0).all()


@both
def test_no_classes_is_an_error_where_a_row_counts(backend: str) -> None:
    with pytest.raises(IndexError, match=r"target 0 at position 1 .* 0 <= target < 0"):
        pc_lc_loss(torch.empty(2, 0), torch.tensor([-100, 0]), backend=backend)


@both
def test_one_unbatched_row(backend: str) -> None:
    row = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    batched, batched_grad = loss_and_grad(row[None], [1], backend)
    for reduction in ("mean", "sum", "none"):
        loss, grad = loss_and_grad(row, 1, backend, reduction=reduction)
        assert loss.shape == ()
        assert loss == batched
        assert grad.equal(batched_grad[0])


@both
def test_ties_go_to_the_lowest_index(backend: str) -> None:
    for fill in (0.0, 5.0):  # the tie at the end of a row, and all over it
        for row in ([5.0, 1.0, 5.0], widen([5.0, 1.0, 5.0], fill)):
            labels = sorted({*range(3), *range(len(row) - 3, len(row))})
            logits = torch.tensor([row] * len(labels))
            _, stats = pc_lc_loss(logits, torch.tensor(labels), return_stats=True, backend=backend)
            top = [k for k, value in enumerate(row) if value == 5.0]
            expected = [next(k for k in top if k != y) for y in labels]
            assert stats.runner_up.tolist() == expected
            assert stats.correct.tolist() == [y == top[0] for y in labels]


@both
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wide", [False, True])
def test_false_logits_of_minus_infinity(backend: str, mode: str, wide: bool) -> None:
    """They add max(0, 0 + margin - f_y) to PC and nothing to the constraint."""
    row, finite = [-INF, 2.0, 1.0], [2.0, 1.0]
    absent = 1
    if wide:
        row, finite = widen(row, -INF), finite
        absent = WIDE - 2
    y = row.index(2.0)
    options = {"lc_mode": mode, **ALL_TERMS}
    loss, grad = loss_and_grad([row], [y], backend, **options)
    without, _ = loss_and_grad([finite], [0], backend, **options)
    f_y = 1 / (1 + math.exp(-1.0))
    expected = without + absent * (0.995 - f_y)
    if mode == "all":  # the mean is still over K - 1 classes
        expected += 1.0 / (absent + 1) - 1.0
    torch.testing.assert_close(loss, expected)
    assert (grad[0][[k for k, a in enumerate(row) if a == -INF]] == 0).all()
    assert grad.isfinite().all()


@both
@pytest.mark.parametrize("mode", MODES)
def test_no_finite_false_logit(backend: str, mode: str) -> None:
    for row in ([-INF, 2.0, -INF], widen([-INF, 2.0, -INF], -INF)):
        y = row.index(2.0)
        loss, grad = loss_and_grad([row], [y], backend, lc_mode=mode, **ALL_TERMS)
        assert loss == 0
        assert (grad == 0).all()


@both
@pytest.mark.parametrize("mode", MODES)
def test_true_logit_of_minus_infinity(backend: str, mode: str) -> None:
    for row in ([1.0, -INF, 2.0], widen([1.0, -INF, 2.0], 0.0)):
        y = row.index(-INF)
        loss, grad = loss_and_grad([row], [y], backend, lc_mode=mode)
        torch.testing.assert_close(loss.item(), 1.0 + (len(row) - 1) * 0.995)
        assert (grad == 0).all()
        loss, grad = loss_and_grad([row], [y], backend, lc_mode=mode, **ALL_TERMS)
        assert loss == INF
        assert (grad == 0).all()


@both
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("terms", [ALL_TERMS, dict.fromkeys(ALL_TERMS, 0.0)])
def test_nan_and_infinity_poison_their_row_alone(
    backend: str, mode: str, value: float, terms: dict[str, float]
) -> None:
    for width in (1, 2, 5, WIDE, 2500):
        for place in {0, width // 2, width - 1}:
            for y in {0, place}:
                logits = torch.zeros(2, width, dtype=torch.float32)
                logits[0, place] = value
                loss, grad = loss_and_grad(
                    logits, [y, 0], backend, reduction="none", lc_mode=mode, **terms
                )
                assert loss[0].isnan(), (width, place, y)
                assert grad[0].isnan().all(), (width, place, y)
                assert loss[1].isfinite()
                assert grad[1].isfinite().all()


@both
def test_a_row_of_minus_infinity_is_nan(backend: str) -> None:
    for width in (1, 3, WIDE, 2500):
        loss, grad = loss_and_grad(torch.full((1, width), -INF), [0], backend)
        assert loss.isnan()
        assert grad.isnan().all()


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [3, WIDE + 3, 2500])
def test_a_class_at_the_hinges_kink_is_inactive(backend: str, width: int, dtype: Any) -> None:
    """F = (1/2, 1/2, 0, ...) and margin 1/2 are exact: only class 1 has f_k + margin - f_y > 0."""
    logits = torch.full((1, width), -INF, dtype=dtype)
    logits[0, :2] = 0.0
    for by in ("mean", "none"):  # the gradient from forward, and from backward
        loss, grad = loss_and_grad(logits, [0], backend, reduction=by, margin=0.5, lc_weight=0.0)
        assert loss == 0.5
        assert grad[0, :2].tolist() == [-0.5, 0.5]
        assert (grad[0, 2:] == 0).all()


@both
def test_target_out_of_range_names_position_value_and_classes(backend: str) -> None:
    for value in (10, -1, 2**62, -(2**63)):
        with pytest.raises(IndexError) as error:
            pc_lc_loss(torch.zeros(3, 10), torch.tensor([1, value, 2]), backend=backend)
        assert str(error.value) == (
            f"target {value} at position 1 is out of range: expected 0 <= target < 10"
        )
    target = torch.zeros(2, 4, 5, dtype=torch.int64)
    target[1, 2, 3] = 7
    with pytest.raises(IndexError, match=r"target 7 at position \(1, 2, 3\) .* target < 7"):
        pc_lc_loss(torch.zeros(2, 7, 4, 5), target, backend=backend)


@both
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_target_dtypes(backend: str, dtype: torch.dtype) -> None:
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    expected, _ = loss_and_grad(logits, torch.tensor([4, 0, 2]), backend)
    assert loss_and_grad(logits, torch.tensor([4, 0, 2], dtype=dtype), backend)[0] == expected


@both
def test_ignore_index_is_compared_after_widening(backend: str) -> None:
    """255 as uint8 is not -1, and -100 never equals a uint8."""
    logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([255, 1], dtype=torch.uint8)
    ignored, _ = loss_and_grad(logits, target, backend, ignore_index=255)
    assert ignored == loss_and_grad(logits[1:], target[1:], backend)[0]
    for index in (-1, -100):
        with pytest.raises(IndexError, match="target 255 at position 0"):
            pc_lc_loss(logits, target, ignore_index=index, backend=backend)


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_computes_in_float32(backend: str, dtype: torch.dtype) -> None:
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    loss, grad = loss_and_grad(logits, [0, 1, 2, 3], backend)
    wide, wide_grad = loss_and_grad(logits.float(), [0, 1, 2, 3], backend)
    assert loss.dtype == torch.float32
    assert loss == wide
    if INTERPRETED and backend == "triton" and dtype == torch.bfloat16:
        wide_grad = truncated_to_bfloat16(wide_grad)
    assert grad.equal(wide_grad.to(dtype))  # rounded once


@both
def test_stats_of_rows_that_have_none(backend: str) -> None:
    logits = torch.tensor([[1.0, 2.0], [NAN, 0.0], [-INF, -INF], [0.0, INF]])
    for rows, target in ((logits, [-100, 0, 0, 0]), (logits[:1, :1], [0])):
        _, stats = pc_lc_loss(rows, torch.tensor(target), return_stats=True, backend=backend)
        assert stats.prob_gap.isnan().all()
        assert stats.logit_gap.isnan().all()
        assert (stats.runner_up == -1).all()
        assert not stats.correct.any()


@both
def test_stats_are_detached_and_shaped_like_target(backend: str) -> None:
    logits = torch.randn(2, 5, 3, requires_grad=True)
    target = torch.zeros(2, 3, dtype=torch.int64)
    loss, stats = pc_lc_loss(logits, target, return_stats=True, backend=backend)
    f = logits.detach().softmax(dim=1)
    top = f[:, 1:].amax(dim=1)
    torch.testing.assert_close(stats.prob_gap, f[:, 0] - top)
    torch.testing.assert_close(
        stats.logit_gap, logits.detach()[:, 0] - logits.detach()[:, 1:].amax(dim=1)
    )
    assert stats.correct.equal(logits.argmax(dim=1) == target)
    assert stats.runner_up.equal(f[:, 1:].argmax(dim=1) + 1)
    assert not any(statistic.requires_grad for statistic in stats)
    loss.backward()


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layouts(backend: str, dtype: torch.dtype) -> None:
    """Every memory format gives what the contiguous rows give, and the gradient in its place."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 6, 2, 2, generator=generator).to(dtype)
    target = torch.randint(6, (2, 2, 2), generator=generator)
    rows = images.movedim(1, -1).reshape(-1, 6).contiguous()
    expected, expected_grad = loss_and_grad(rows, target.reshape(-1), backend)
    for layout in (
        images,
        images.to(memory_format=torch.channels_last),
        images.transpose(2, 3).contiguous().transpose(2, 3),
        torch.cat([images, images])[:2],
        images.flip(0).flip(0),
    ):
        loss, grad = loss_and_grad(layout, target, backend)
        assert loss == expected
        assert grad.shape == images.shape
        assert grad.movedim(1, -1).reshape(-1, 6).equal(expected_grad)
    wide = torch.randn(8, 9, generator=generator).to(dtype)
    for view in (wide[:, 2:8], wide[::2, :6], wide.t()[:6].t(), wide[:1, :6].expand(8, 6)):
        labels = torch.arange(len(view)) % 6
        loss, grad = loss_and_grad(view, labels, backend)
        same, same_grad = loss_and_grad(view.contiguous(), labels, backend)
        assert loss == same
        assert grad.equal(same_grad)


@both
def test_negative_and_conjugate_views(backend: str) -> None:
    logits = torch.randn(4, 5, dtype=torch.complex64).conj().imag
    assert logits.is_neg()
    target = torch.arange(4)
    plain = logits.resolve_neg().contiguous()
    assert loss_and_grad(logits, target, backend)[0] == loss_and_grad(plain, target, backend)[0]


@both
def test_logits_are_never_written(backend: str) -> None:
    logits = torch.randn(5, 7, requires_grad=True)
    before, version = logits.detach().clone(), logits._version
    loss = pc_lc_loss(logits, torch.arange(5), backend=backend)
    loss.backward()
    assert logits._version == version
    assert logits.detach().equal(before)


def test_float16_keeps_small_gradients_under_a_loss_scale(backend: str) -> None:
    """Rounding to float16 before the loss scale would flush most of the entries to zero."""
    batch, rows = 4096, 8 if INTERPRETED else 4096  # 8 rows of a batch, then
    logits = (torch.randn(rows, 200, generator=torch.Generator().manual_seed(0)) * 3).half()
    options = {"ce_weight": 1.0, "pc_weight": 0.0, "lc_weight": 0.0}
    case = Case(logits, torch.arange(rows) % 200, None, "mean", options, backend)
    case.check(grad_output=65536.0 * rows / batch)
    _, scaled, _ = case.ours(65536.0 * rows / batch)
    _, plain, _ = case.ours(rows / batch)
    assert (scaled == 0).float().mean() < 0.01
    assert (plain == 0).float().mean() > 0.5
