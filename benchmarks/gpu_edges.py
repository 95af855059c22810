"""The table of edges, on any device: each check raises AssertionError where a backend is wrong."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pclc_fast import pc_lc_loss

from .gpu_oracle import DTYPES, MODES, DeviceCase, make_rows
from .gpu_record import NotHereError

INF, NAN = math.inf, math.nan
ALL_TERMS = {"ce_weight": 1.0, "pc_weight": 1.0, "lc_weight": 1.0}
WIDTHS = (3, 40, 2500, 40_000)  # rows that share a program, one tile, larger ones, block by block
_CLASSES = 1128

Check = Callable[[str, torch.device], None]


def require(condition: object, what: str) -> None:
    """Raise AssertionError with ``what``: assert would be silent under python -O."""
    if not bool(condition):
        raise AssertionError(what)


def loss_and_grad(
    logits: Tensor, target: Tensor, backend: str, grad_output: float = 1.0, **options: Any
) -> tuple[Tensor, Tensor]:
    """Return the detached loss and its gradient on the device of ``logits``."""
    leaf = logits.detach().requires_grad_()
    loss = pc_lc_loss(leaf, target, backend=backend, **options)
    (grad,) = torch.autograd.grad(loss, leaf, torch.full_like(loss, grad_output))
    return loss.detach(), grad


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two floating-point tensors are equal to the last bit, NaN included."""
    size = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[first.element_size()]
    return torch.equal(first.contiguous().view(size), second.contiguous().view(size))


def special_values(backend: str, device: torch.device) -> None:
    """NaN and infinities: their row alone, as the table of edges says."""
    for classes, mode in itertools.product(WIDTHS, MODES):
        logits = torch.randn(10, classes, generator=torch.Generator().manual_seed(0))
        y, far = classes // 2, classes - 1
        logits[0, far] = NAN
        logits[1, 0] = INF
        logits[2] = -INF
        logits[3, y] = -INF
        logits[4, 0] = -INF
        logits[5] = -INF
        logits[5, y] = 1.0
        logits[6, 0] = logits[6, far] = 9.0  # a tie: the lowest index is the runner-up
        logits[7] = NAN  # ignored, and so not read
        logits[8, y] = NAN
        target = torch.full((10,), y)
        target[7] = -100
        options = {"lc_mode": mode, **ALL_TERMS}
        for reduction, terms in (("none", options), ("none", {"lc_mode": mode}), ("mean", options)):
            case = DeviceCase(logits, target, None, reduction, terms, backend, device)
            case.check()
            case.check(-2.0)


def nothing_to_average(backend: str, device: torch.device) -> None:
    """No rows, ignored rows only, weights that sum to 0, a single class, no class at all."""
    for rows, classes, label in ((0, 5, 0), (3, 5, -100), (3, 1, 0), (2, 0, -100), (0, 0, 0)):
        for reduction in ("mean", "sum", "none"):
            logits, target = torch.randn(rows, classes), torch.full((rows,), label)
            leaf = logits.to(device).requires_grad_()
            loss = pc_lc_loss(leaf, target.to(device), reduction=reduction, backend=backend)
            (grad,) = torch.autograd.grad(loss.sum(), leaf)
            where = f"{rows} rows of {classes} classes, label {label}, {reduction}"
            empty = reduction == "mean" and (rows == 0 or label == -100)
            require(loss.isnan().all() if empty else (loss == 0).all(), f"loss of {where}")
            require((grad == 0).all(), f"gradient of {where}")
    logits, target = make_rows(7, torch.float32)
    DeviceCase(logits, target, torch.zeros(7), "mean", {}, backend, device).check()


def target_dtypes(backend: str, device: torch.device) -> None:
    """Every integer dtype means the same, and ignore_index is compared after widening."""
    logits = torch.randn(4, 5).to(device)
    expected, _ = loss_and_grad(logits, torch.tensor([4, 0, 2, 1], device=device), backend)
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        target = torch.tensor([4, 0, 2, 1], dtype=dtype, device=device)
        require(loss_and_grad(logits, target, backend)[0] == expected, f"targets of {dtype}")
    target = torch.tensor([255, 1, 2, 3], dtype=torch.uint8, device=device)
    ignored, _ = loss_and_grad(logits, target, backend, ignore_index=255)
    expected, _ = loss_and_grad(logits[1:], target[1:], backend)
    torch.testing.assert_close(ignored, expected)


def layouts(backend: str, device: torch.device) -> None:
    """Any strides give the bits that contiguous rows give, and the caller's logits stay."""
    images = torch.randn(2, 6, 4, 3, device=device)
    labels = torch.randint(6, (2, 4, 3), device=device)
    rows = images.movedim(1, -1).reshape(-1, 6).contiguous()
    loss, grad = loss_and_grad(rows, labels.reshape(-1), backend)
    for view in (images, images.to(memory_format=torch.channels_last), images.flip(0).flip(0)):
        same, same_grad = loss_and_grad(view, labels, backend)
        require(same_bits(loss, same), "loss of images")
        require(same_bits(grad, same_grad.movedim(1, -1).reshape(-1, 6)), "gradient of images")
    for dtype in DTYPES:
        wide = torch.randn(24, _CLASSES + 5, device=device).to(dtype)
        views = {
            "a slice": wide[:, 3 : 3 + _CLASSES],
            "every other row": wide[::2, :_CLASSES],
            "one row many times": wide[:1, :_CLASSES].expand(24, _CLASSES),
            "columns first": wide.t()[:_CLASSES].t(),
        }
        for name, view in views.items():
            target = torch.arange(len(view), device=device)
            before = wide.clone()
            loss, grad = loss_and_grad(view.contiguous(), target, backend)
            same, same_grad = loss_and_grad(view, target, backend)
            require(same_bits(loss, same), f"loss of {name}, {dtype}")
            require(same_bits(grad, same_grad), f"gradient of {name}, {dtype}")
            require(same_bits(wide, before), f"{name}, {dtype}: the logits were written to")
    single, _ = loss_and_grad(rows[0], labels.reshape(-1)[0], backend)
    batched, _ = loss_and_grad(rows[:1], labels.reshape(-1)[:1], backend)
    require(same_bits(single, batched), "one row without a batch")


def combinations_of_terms(backend: str, device: torch.device) -> None:
    """Every combination of terms and margins, in three widths."""
    for classes, dtype in (
        (12, torch.float32),
        (_CLASSES, torch.bfloat16),
        (40_000, torch.float32),
    ):
        logits, target = make_rows(classes, dtype)
        margins = (1e-3, 0.5, 0.995, 1.0, 1.5)
        for margin, mean, pc, lc, ce in itertools.product(
            margins if classes < 100 else margins[1::2], (False, True), (0, 1), (0, 2), (0, 1)
        ):
            keywords = {"margin": margin, "pc_mean": mean, "pc_weight": pc, "lc_weight": lc}
            case = {**keywords, "ce_weight": ce}
            DeviceCase(logits, target, None, "sum", case, backend, device).check()


def without_gradient(backend: str, device: torch.device) -> None:
    """Without gradients and statistics the loss is what it is with them."""
    for classes in WIDTHS:
        logits, target = (x.to(device) for x in make_rows(classes, torch.float32))
        for reduction in ("mean", "none"):
            expected, _ = loss_and_grad(logits, target, backend, reduction=reduction)
            with torch.no_grad():
                loss = pc_lc_loss(logits, target, reduction=reduction, backend=backend)
            torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0.0)


def many_rows(backend: str, device: torch.device) -> None:
    """Sums over more rows than one program adds up, with weights and ignored rows."""
    for rows, classes in ((1024, 10), (1025, 10), (70_001, 10), (5000, 1000)):
        rng = torch.Generator().manual_seed(rows)
        logits = torch.randn(rows, classes, generator=rng)
        target = torch.randint(classes, (rows,), generator=rng)
        target[::7] = -100
        weight = torch.rand(classes, generator=rng) + 0.5
        for reduction in ("mean", "sum"):
            case = DeviceCase(logits, target, weight, reduction, {}, backend, device)
            case.check()
            case.check(3.0)


def targets_out_of_range(backend: str, device: torch.device) -> None:
    """On a GPU such a row becomes NaN, and nothing outside it changes, in memory or in value."""
    if device.type == "cpu":
        raise NotHereError("on a CPU it is an IndexError")
    for classes in (10, *WIDTHS):
        guarded = torch.randn(8, classes + 64, device=device)
        before = guarded.clone()
        logits = guarded[1:7, 32 : 32 + classes]
        target = torch.zeros(6, dtype=torch.int64, device=device)
        loss, grad = loss_and_grad(logits, target, backend, reduction="none")
        for value in (classes, -1, 2**31, 2**62, -(2**63)):
            bad = target.clone()
            bad[2] = value
            keep = torch.arange(6, device=device) != 2
            for upstream in (1.0, -2.0):
                expected = loss_and_grad(logits, target, backend, upstream, reduction="none")[1]
                poisoned, row_grads = loss_and_grad(
                    logits, bad, backend, upstream, reduction="none"
                )
                where = f"target {value} of {classes} classes"
                require(poisoned[2].isnan(), f"loss of {where}")
                require(row_grads[2].isnan().all(), f"gradient of {where}")
                require(same_bits(poisoned[keep], loss[keep]), f"other losses beside {where}")
                require(
                    same_bits(row_grads[keep], expected[keep]), f"other gradients beside {where}"
                )
            mean, _ = loss_and_grad(logits, bad, backend)
            require(mean.isnan(), f"mean over {where}")
        require(same_bits(guarded, before), f"memory around the logits, {classes} classes")
        require(grad.isfinite().all(), f"gradient of good targets, {classes} classes")


def debug_mode(backend: str, device: torch.device) -> None:
    """With PCLC_FAST_DEBUG=1 a target out of range is the error that it is on the CPU."""
    before = os.environ.get("PCLC_FAST_DEBUG")
    os.environ["PCLC_FAST_DEBUG"] = "1"
    try:
        target = torch.tensor([1, 10, 2], device=device)
        pc_lc_loss(torch.zeros(3, 10, device=device), target, backend=backend)
    except IndexError as error:
        expected = "target 10 at position 1 is out of range: expected 0 <= target < 10"
        require(str(error) == expected, f"the error says {error}")
    else:
        raise AssertionError("no IndexError for target 10 of 10 classes")
    finally:
        if before is None:
            del os.environ["PCLC_FAST_DEBUG"]
        else:
            os.environ["PCLC_FAST_DEBUG"] = before


EDGES: dict[str, Check] = {
    "NaN, infinities, ties and ignored rows": special_values,
    "nothing to average": nothing_to_average,
    "target dtypes and ignore_index": target_dtypes,
    "strides, and logits that stay as they are": layouts,
    "every combination of terms": combinations_of_terms,
    "without gradients": without_gradient,
    "sums over many rows": many_rows,
    "targets out of range poison their row alone": targets_out_of_range,
    "PCLC_FAST_DEBUG=1": debug_mode,
}
