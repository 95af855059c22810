"""Everything that others and FINDINGS tried, one after the other, against the preset ``strong``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import attack_loops as loops
from .peers import from_adv_lib, from_art, from_foolbox

Attack = Callable[[nn.Module, Tensor, Tensor, float], Tensor]
BATCH = 250
_ROUNDING = 1e-6  # by which a peer may overstep the budget: pixel + epsilon is rounded
_STEP = 0.01


class Line(NamedTuple):
    """One attack of the union."""

    by: str  # whose code: a library, or "loop"
    name: str
    run: Attack


def lines(substitute: nn.Module | None) -> list[Line]:
    """The attacks. What fools most for its cost comes first and leaves less to the others."""
    fgsm, rescaled, targeted = _FGSM, _masked()[0], _every_class()
    first = [fgsm, rescaled, targeted[0], targeted[-1]]
    rest = [*_paper(substitute), *_masked()[1:], *_peers(), *targeted[1:-1], *_nearest()]
    return first + rest


def _loop(name: str, steps: int, *, step: float | None = _STEP, **options: Any) -> Line:
    def run(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
        size = epsilon if step is None else step
        return loops.gradient_ascent(
            model, images, labels, epsilon=epsilon, steps=steps, step_size=size, **options
        )

    return Line("loop", name, run)


_FGSM = _loop("FGSM", 1, step=None, random_start=False)


def _paper(substitute: nn.Module | None) -> list[Line]:
    """The white-box attacks of the paper, and transfer."""
    found = [
        _loop("BIM-10, step .01", 10, random_start=False),
        _loop("MIM-40", 40, random_start=False, decay=1.0),
        *(_loop(f"PGD-40 CE, start {seed}", 40, seed=seed) for seed in range(3)),
        *(_loop(f"PGD-100 CE, start {seed}", 100, seed=seed) for seed in range(3)),
    ]
    if substitute is not None:
        found += [_transferred(line, substitute) for line in (found[1], found[2])]
    return found


def _transferred(line: Line, substitute: nn.Module) -> Line:
    """Its last iterate that fools the substitute, tried on the model."""
    return Line(
        line.by,
        f"transfer of {line.name}",
        lambda _, images, labels, epsilon: line.run(substitute, images, labels, epsilon),
    )


def _masked() -> list[Line]:
    """Against saturation and decoys: other losses, and no gradient at all."""
    losses = {"rescaled CE": loops.scaled_ce, "DLR": loops.dlr, "margin": loops.margin}
    return [
        *(
            _loop(f"PGD-100 {name}, start {seed}", 100, objective=loss, seed=seed)
            for name, loss in losses.items()
            for seed in range(2)
        ),
        Line("loop", "Square, 1,000 queries", partial(_call, loops.square, queries=1000)),
    ]


def _peers() -> list[Line]:
    """The peers' attacks that follow one gradient or none."""
    pgd = {"steps": 40, "step_size": _STEP, "random_start": True, "seed": 10}
    bim = {"steps": 10, "step_size": _STEP, "random_start": False}
    found = []
    for library, module in (
        ("foolbox", from_foolbox),
        ("ART", from_art),
        ("adv-lib", from_adv_lib),
    ):
        found += [
            Line(library, "FGSM", partial(_call, module.fgsm)),
            Line(library, "BIM-10, step .01", partial(_call, module.pgd, **bim)),
            Line(library, "PGD-40 CE", partial(_call, module.pgd, **pgd)),
        ]
    mim = partial(_call, from_art.mim, steps=40, step_size=_STEP, decay=1.0)
    found.append(Line("ART", "MIM-40", mim))
    for loss in ("ce", "dlr"):
        for library, apgd in (("ART", from_art.apgd), ("adv-lib", from_adv_lib.apgd)):
            run = partial(_call, apgd, steps=100, loss=loss)
            found.append(Line(library, f"APGD-{loss.upper()}", run))
    square = partial(_call, from_art.square, queries=300, p_init=0.8)
    return [*found, Line("ART", "Square, 300 queries", square)]


def _every_class() -> list[Line]:
    """Towards each of the false classes."""
    margin = partial(_call, loops.towards_each_class, steps=100, step_size=_STEP)
    rescaled = partial(margin, objective=loops.scaled_ce, seed=1)
    return [
        Line("loop", "PGD-100 margin, each class", margin),
        Line("loop", "PGD-100 rescaled CE, each class", rescaled),
        Line("adv-lib", "APGD-T", partial(_call, from_adv_lib.apgd_targeted, steps=100)),
    ]


def _nearest() -> list[Line]:
    """Attacks that look for the nearest image, which counts where it is near enough."""
    nearest = {
        ("foolbox", "DeepFool"): partial(from_foolbox.deepfool, steps=20),
        ("adv-lib", "FMN"): partial(from_adv_lib.fmn, steps=100),
        ("adv-lib", "PDPGD"): partial(from_adv_lib.pdpgd, steps=100),
    }
    carlini = {
        "steps": 50,
        "step_size": 0.1,
        "search_steps": 3,
        "initial_const": 0.1,
        "abort_early": True,
    }
    for library, module in (("foolbox", from_foolbox), ("adv-lib", from_adv_lib)):
        nearest[library, "C&W L2"] = partial(module.cw_l2, **carlini)
    found = [Line(*key, partial(_call_without_budget, run)) for key, run in nearest.items()]
    fab = partial(_call, from_adv_lib.fab, steps=30, targeted=True)
    return [*found, Line("adv-lib", "FAB-T", fab)]


def _call(
    attack: Callable[..., Tensor],
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    **settings: Any,
) -> Tensor:
    return attack(model, images, labels, epsilon=epsilon, **settings)


def _call_without_budget(
    attack: Callable[..., Tensor], model: nn.Module, images: Tensor, labels: Tensor, _: float
) -> Tensor:
    return attack(model, images, labels)


class Standing:
    """The images that nothing fooled so far, at an epsilon or at a smaller one."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        self._model, self._images, self._labels = model, images, labels
        with torch.no_grad():
            (self.positions,) = (model(images).argmax(dim=1) == labels).nonzero(as_tuple=True)

    def attack(self, line: Line, epsilon: float) -> dict[str, Any]:
        """Try one attack on them; return what is to be told."""
        start, tried = time.perf_counter(), len(self.positions)
        parts = [self._fooled(line, part, epsilon) for part in self.positions.split(BATCH)]
        self.positions = self.positions[~torch.cat(parts)] if tried else self.positions
        return {
            "by": line.by,
            "attack": line.name,
            "tried": tried,
            "fooled": tried - len(self.positions),
            "standing": len(self.positions),
            "seconds": round(time.perf_counter() - start, 2),
        }

    def _fooled(self, line: Line, part: Tensor, epsilon: float) -> Tensor:
        images, labels = self._images[part], self._labels[part]
        attacked = line.run(self._model, images, labels, epsilon)
        far = (attacked.double() - images.double()).abs().flatten(1).amax(dim=1)
        outside = ((attacked < 0) | (attacked > 1)).flatten(1).any(dim=1)
        with torch.no_grad():
            fooled = self._model(attacked).argmax(dim=1) != labels
        return fooled & (far <= epsilon + _ROUNDING) & ~outside


def union(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilons: Sequence[float],
    attacks: Sequence[Line],
    tell: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Each attack on what those before it left standing, for each epsilon, ascending.

    As a pointwise worst case does: an image fooled within an epsilon is fooled within larger ones.
    """
    standing, found = Standing(model, images, labels), []
    for epsilon in epsilons:
        assert not found or epsilon > found[-1]["epsilon"]
        rows = []
        for line in attacks:
            if not len(standing.positions):
                break
            rows.append(standing.attack(line, epsilon))
            tell(f"eps {epsilon:g}  {_words(rows[-1])}")
        found.append({"epsilon": epsilon, "standing": standing.positions.tolist(), "attacks": rows})
    return found


def _words(row: dict[str, Any]) -> str:
    return (
        f"{row['by']:<8}{row['attack']:<38} fooled {row['fooled']:>4} of {row['tried']:>4} "
        f"in {row['seconds']:6.1f} s"
    )
