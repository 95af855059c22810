"""Where the values of targets and class weights are checked, and where they cannot be read."""

from __future__ import annotations

import pytest
import torch

from pclc_fast import pc_lc_loss, reference_pc_lc_loss

LOGITS, TARGET = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)


class Subclass(torch.Tensor):
    """A tensor with memory and a name of its own."""


TRANSFORMS = {
    "grad": torch.func.grad,
    "grad_and_value": torch.func.grad_and_value,
    "hessian": torch.func.hessian,
    "vmap": lambda f: lambda a: torch.func.vmap(f)(a[None]),
    "vmap of grad": lambda f: lambda a: torch.func.vmap(torch.func.grad(f))(a[None]),
    "jvp": lambda f: lambda a: torch.func.jvp(f, (a,), (a,)),
}


# Making the first dual tensor loads TorchScript, which warns of its own deprecation.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_values_are_checked_under_transforms_of_the_logits(transform: str) -> None:
    """Targets and weights that are not mapped over can be read."""
    outside = TARGET + 4
    message = "weight must be finite and not negative; got values from -1.0 to 1.0"
    weight = torch.tensor([-1.0, 1.0, 1.0, 1.0])
    for function in (pc_lc_loss, reference_pc_lc_loss):
        with pytest.raises(ValueError, match=message):
            TRANSFORMS[transform](lambda a, f=function: f(a, TARGET, weight))(LOGITS)
        with pytest.raises(IndexError, match="target 4 at position 0 is out of range"):
            TRANSFORMS[transform](lambda a, f=function: f(a, outside))(LOGITS)
        with pytest.raises(IndexError, match="target 9 at position 1 is out of range"):
            # A tensor made under a transform is not a plain one.
            TRANSFORMS[transform](lambda a, f=function: f(a, torch.tensor([0, 9, 0])))(LOGITS)


def test_values_of_subclasses_are_checked() -> None:
    message = "weight must be finite and not negative; got values from -1.0 to 1.0"
    weight = torch.tensor([-1.0, 1.0, 1.0, 1.0]).as_subclass(Subclass)
    for function in (pc_lc_loss, reference_pc_lc_loss):
        with pytest.raises(ValueError, match=message):
            function(LOGITS, TARGET, weight)
        with pytest.raises(IndexError, match="target 4 at position 0 is out of range"):
            function(LOGITS, (TARGET + 4).as_subclass(Subclass))


def test_values_that_are_mapped_over_are_not_read() -> None:
    logits, target = torch.randn(2, 3, 4), torch.tensor([[0, 3, 1], [2, 2, 0]])
    weight = torch.rand(2, 4)
    for function in (pc_lc_loss, reference_pc_lc_loss):
        mapped = torch.func.vmap(function)(logits, target, weight)
        each = [function(a, y, w) for a, y, w in zip(logits, target, weight, strict=True)]
        torch.testing.assert_close(mapped, torch.stack(each))
