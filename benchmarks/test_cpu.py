"""PC-LC on the CPU against plain PyTorch, torch.compile, F.cross_entropy and a copy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pclc_fast import reference_pc_lc_loss

from .data import CASES, make_case
from .forms import FORMS, Loss
from .harness import (
    BOTH,
    RUNS,
    SHAPES,
    STEPS,
    Call,
    Results,
    Step,
    interleave,
    measure,
)
from .memory import peak_bytes
from .workbench import Workbench


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("case", CASES)
def test_form_is_pc_lc(form: Loss, case: str) -> None:
    """The time of a wrong formula would mean nothing."""
    logits, target = make_case(case, rows=50, classes=20)

    def loss_and_gradient(loss: Loss) -> tuple[Tensor, Tensor]:
        leaf = logits.double().requires_grad_()
        value = loss(leaf, target)
        return value, torch.autograd.grad(value, leaf)[0]

    torch.testing.assert_close(loss_and_gradient(form), loss_and_gradient(reference_pc_lc_loss))


# The last decorator varies slowest: one whole run, then the other.
@pytest.mark.parametrize("step", STEPS, ids=lambda step: "-".join(step).replace(" ", ""))
@pytest.mark.parametrize("run", RUNS, ids=["run1", "run2"])
def test_time(step: Step, run: int, workbench: Workbench, results: Results, benchmark: Any) -> None:
    call, clear = workbench.calls(step)
    times = measure(benchmark, call, clear)
    results.times.setdefault((workbench.shape, step), {})[run] = times


def test_peak_memory(workbench: Workbench, results: Results) -> None:
    results.memory[workbench.shape] = peak_bytes(workbench.shape)


def test_interleaved_with_cross_entropy(results: Results) -> None:
    """Where everything is call overhead, ours must not cost more than the loss it replaces."""
    workbench = Workbench(SHAPES[0], results)

    def cleared(function: str) -> Call:
        call, clear = workbench.calls(Step(BOTH, function))

        def cleared_call() -> None:
            clear()
            call()

        return cleared_call

    calls = {name: cleared(name) for name in ("ours", "F.cross_entropy")}
    runs = {run: interleave(calls) for run in RUNS}
    results.interleaved = {name: {run: runs[run][name] for run in RUNS} for name in calls}
