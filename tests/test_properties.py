"""Drawn cases: shapes, dtypes, options, extreme and special values, against the oracle."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import INTERPRETED, Case

CASES, ROWS = (400, 7) if INTERPRETED else (2500, 19)
WIDTHS = [1, 2, 3, 5, 10, 16, 17, 31, 32, 33, 64, 65, 100, 257, 1024, 2050]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SPECIAL = [0.0, -math.inf, math.inf, math.nan, 1.0, -50.0, 88.0, 1e4]

coefficients = st.sampled_from([0.0, 0.05, 1.0, 3.0])


@st.composite
def cases(draw: st.DrawFn, backend: str) -> tuple[Case, float]:
    """A call of the loss and a grad_output for it."""
    rows, classes = draw(st.integers(0, ROWS)), draw(st.sampled_from(WIDTHS))
    dtype = draw(st.sampled_from(DTYPES))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([0.0, 0.01, 1.0, 3.0, 20.0, 300.0]))
    logits = torch.randn(rows, classes, generator=rng, dtype=torch.float64) * scale
    target = torch.randint(classes, (rows,), generator=rng)
    if rows and draw(st.booleans()):  # rows around and beyond the margin
        lift = torch.linspace(-2.0, 30.0, rows, dtype=torch.float64) + math.log(classes)
        logits[torch.arange(rows), target] += lift
    logits = logits.to(dtype)
    for _ in range(draw(st.integers(0, 4)) if rows else 0):
        row, column = draw(st.integers(0, rows - 1)), draw(st.integers(0, classes - 1))
        logits[row, column] = draw(st.sampled_from(SPECIAL))
    ignore_index = draw(st.sampled_from([-100, 0, classes - 1, 255]))
    target_dtype = draw(st.sampled_from([torch.int64, torch.int32, torch.int16]))
    weight = None
    if draw(st.booleans()):
        weight = torch.rand(classes, generator=rng, dtype=torch.float64)
        weight[draw(st.integers(0, classes - 1))] = 0.0
    mode = draw(st.sampled_from(["hard", "soft", "all"]))
    options: dict[str, Any] = {
        "margin": draw(st.sampled_from([1e-4, 0.3, 0.995, 1.0, 2.0])),
        "pc_weight": draw(coefficients),
        "lc_weight": draw(coefficients),
        "ce_weight": draw(coefficients),
        "lc_cap": 0.0 if mode == "soft" else draw(st.sampled_from([0.0, 0.5, 40.0])),
        "lc_mode": mode,
        "pc_mean": draw(st.booleans()),
        "ignore_index": ignore_index,
    }
    if draw(st.booleans()):  # rows apart: nothing may be copied, read or written between them
        wide = torch.full((rows, classes + 3), math.nan, dtype=dtype)
        wide[:, :classes] = logits
        logits = wide[:, :classes]
    reduction = draw(st.sampled_from(["mean", "sum", "none"]))
    case = Case(logits, target.to(target_dtype), weight, reduction, options, backend)
    return case, draw(st.sampled_from([1.0, 0.125, -7.0, 1024.0]))


def test_drawn_cases_agree_with_oracle(backend: str) -> None:
    """At least 2,000 cases a run, or 300 in Triton's interpreter, counted."""
    seen = 0

    @settings(
        max_examples=CASES,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def check(data: st.DataObject) -> None:
        nonlocal seen
        case, grad_output = data.draw(cases(backend))
        case.check(grad_output)
        seen += 1

    check()
    assert seen >= (300 if INTERPRETED else 2000)


def test_a_wrong_gradient_is_found(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail: a relative error of 1e-4 in one entry is enough."""
    logits = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    case = Case(logits, torch.tensor([1, 2, 3]), backend=backend)
    loss, grad, stats = case.ours()
    grad[1, 2] *= 1 + 1e-4
    monkeypatch.setattr(case, "ours", lambda _: (loss, grad, stats))
    with pytest.raises(AssertionError, match=r"grad\[12\]"):
        case.check()
