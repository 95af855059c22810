"""The functions that are timed, bound to their data."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pclc_fast import pc_lc_loss

from .data import check_case, make_case
from .forms import FORMS, Loss
from .harness import BOTH, Call, Results, Shape, Step

FUNCTIONS: dict[str, Loss] = {**FORMS, "ours": pc_lc_loss, "F.cross_entropy": F.cross_entropy}


class Workbench:
    """The data and the compiled functions of one shape."""

    def __init__(self, shape: Shape, results: Results) -> None:
        self.shape = shape
        self._results = results
        self._inputs: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}
        self._compiled: dict[str, Loss] = {}
        torch._dynamo.reset()  # the graphs of other shapes count towards its recompile limit

    def inputs(self, case: str, dtype: str) -> tuple[Tensor, Tensor]:
        """Return logits that want a gradient, and their targets."""
        if (case, dtype) not in self._inputs:
            logits, target = make_case(case, *self.shape)
            if dtype == "bfloat16":
                logits = logits.bfloat16()
                check_case(case, logits, target)
            self._inputs[case, dtype] = logits.requires_grad_(), target
        return self._inputs[case, dtype]

    def calls(self, step: Step) -> tuple[Call, Call]:
        """Return the call to time, and what must come before every call."""
        logits, target = self.inputs(step.case, step.dtype)
        if step.function == "copy":
            return _copy_into_warm_buffer(logits.detach()), lambda: None
        loss = self._compile(step) if step.function == "compile" else FUNCTIONS[step.function]

        def both() -> None:
            loss(logits, target).backward()  # type: ignore[no-untyped-call]

        @torch.no_grad()
        def forward() -> None:
            loss(logits, target)

        def clear() -> None:
            logits.grad = None

        return both if step.direction == BOTH else forward, clear

    def _compile(self, step: Step) -> Loss:
        """Compile the plain form that was the fastest of this shape and direction."""
        where = (self.shape, step.direction)
        if where not in self._results.compiled_form:
            self._results.compiled_form[where] = self._results.fastest_form(*where)
        form = self._results.compiled_form[where]
        if form not in self._compiled:
            self._compiled[form] = torch.compile(FORMS[form], dynamic=False)
        compiled = self._compiled[form]
        inputs = self.inputs(step.case, step.dtype)
        with torch.set_grad_enabled(step.direction == BOTH):
            torch.testing.assert_close(compiled(*inputs), FORMS[form](*inputs), rtol=1e-3, atol=0.0)
        return compiled


def _copy_into_warm_buffer(source: Tensor) -> Call:
    destination = torch.ones_like(source)

    def copy() -> None:
        destination.copy_(source)

    return copy
