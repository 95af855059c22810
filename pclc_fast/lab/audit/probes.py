"""Short attacks and looks at a model that tell whether its gradient can be trusted."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attacks import Preset, Result, evaluate
from ..attacks.checks import looks_like_probabilities
from ..attacks.result import Adversarial, Cell, Norm
from .connected import connected
from .evidence import GRADIENT, Evidence, Repeats
from .presets import FLOAT64, PLAIN, spsa, square, variations
from .traces import by_step

_EPSILONS = 3  # at which a model is probed, of those it was evaluated at
_GREY, _COLOUR = (0.1, 0.2, 0.3), (2 / 255, 4 / 255, 8 / 255)
_BATCH = 256
_SEARCHED = 50  # images that attacks without a gradient are tried on, at most
Say = Callable[[str], None]


@dataclass(frozen=True)
class Probed:
    """A model and the images that it is probed with."""

    model: nn.Module  # in evaluation mode
    images: Tensor  # [N, C, H, W], float32, in [0, 1]
    labels: Tensor  # [N], int64
    result: Result | None = None  # of an evaluation, whose first images these are
    foreign: Sequence[Adversarial] = ()  # how other models were fooled on these images
    seed: int = 0

    @property
    def norm(self) -> Norm:
        return self.result.norm if self.result else "Linf"

    def logits(self, images: Tensor) -> Tensor:
        """What the model makes of any number of images; it may write into what it is shown."""
        with torch.no_grad():
            parts = [self.model(batch.clone()) for batch in torch.split(images, _BATCH)]
        return torch.cat(parts)

    def attack(self, preset: Preset, epsilons: Sequence[float]) -> Result:
        """Attack the model within some budgets."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are findings here
            return evaluate(
                self.model,
                self.images,
                self.labels,
                eps=epsilons,
                norm=self.norm,
                preset=preset,
                seed=self.seed,
            )


def gather(probed: Probed, say: Say) -> Evidence:
    """Probe a model at some of the epsilons of its evaluation."""
    say("audit: the plain attack")
    model = connected(probed.model, probed.images[:1])
    probed = dataclasses.replace(probed, model=model)
    evidence = _look(probed)
    budgets = {*evidence.epsilons, evidence.large, evidence.everything}
    plain = probed.attack(PLAIN, sorted(budgets))
    _enter(evidence, plain)
    evidence.gradients.extend(by_step(plain, "pgd"))
    say("audit: its variations")
    _enter(evidence, probed.attack(variations(evidence.classes), evidence.epsilons))
    double = _in_double(probed)
    if double is not None:
        _enter(evidence, double.attack(FLOAT64, evidence.epsilons))
    if probed.result is not None:
        _enter_evaluation(evidence, probed.result)
    _enter_foreign(evidence, probed)
    say("audit: attacks that see no gradient")
    _search(evidence, probed, spsa)
    if probed.norm == "Linf":
        _search(evidence, probed, square)
    return evidence


def _look(probed: Probed) -> Evidence:
    """The model on clean images, twice."""
    once, twice = probed.logits(probed.images), probed.logits(probed.images)
    scale = max(1e-12, once.abs().max().item())
    changed = int((once.argmax(dim=1) != twice.argmax(dim=1)).sum())
    grey = probed.images.shape[1] == 1
    given = probed.result.epsilons if probed.result else []
    farthest = 1.0 if probed.norm == "Linf" else math.sqrt(probed.images[0].numel())
    smaller = [e for e in given if 0 < e < farthest / 2]
    return Evidence(
        classes=once.shape[1],
        clean=(once.argmax(dim=1) == probed.labels).cpu(),
        epsilons=_some(smaller or list(_GREY if grey else _COLOUR)),
        large=farthest / 2,
        everything=farthest,
        repeats=Repeats(changed, (once - twice).abs().max().item() / scale),
        sums_to_one=looks_like_probabilities(once),
    )


def _some(epsilons: list[float]) -> list[float]:
    """The smallest, the largest and what lies between, no more than ``_EPSILONS``."""
    if len(epsilons) <= _EPSILONS:
        return epsilons
    last = len(epsilons) - 1
    return [epsilons[round(i * last / (_EPSILONS - 1))] for i in range(_EPSILONS)]


def _enter(evidence: Evidence, result: Result, chosen: Sequence[int] | None = None) -> None:
    """Add what each attack left; ``chosen`` are the places of the images it was tried on."""
    for attack in result.attacks:
        for epsilon in result.epsilons:
            cells = [c for c in result.cells if c.attack == attack.key]
            fooled = _fooled(cells, epsilon) if result.carry else _fooled_at(cells, epsilon)
            places = fooled if chosen is None else [chosen[i] for i in fooled]
            evidence.standing[attack.key, epsilon] = _without(evidence.clean, places)


def _fooled(cells: Sequence[Cell], epsilon: float) -> list[int]:
    """Everything that was fooled within an epsilon."""
    return [image for cell in cells if cell.within(epsilon) for image in cell.fooled]


def _fooled_at(cells: Sequence[Cell], epsilon: float) -> list[int]:
    return [image for cell in cells if cell.epsilon == epsilon for image in cell.fooled]


def _without(clean: Tensor, fooled: Sequence[int]) -> Tensor:
    left = clean.clone()
    left[list(fooled)] = False
    return left


def _enter_evaluation(evidence: Evidence, result: Result) -> None:
    """What the evaluation found on the probed images, at those of the probed epsilons it had."""
    threats = {attack.key: attack.threat for attack in result.attacks}
    bounded = [c for c in result.cells if c.norm == result.norm]
    for epsilon in (e for e in evidence.epsilons if e in result.epsilons):
        for name, threat in (("white-box", "white-box"), ("transfer", "transfer")):
            cells = [c for c in bounded if threats[c.attack] == threat]
            if cells:
                fooled = [i for i in _fooled(cells, epsilon) if i < evidence.images]
                evidence.standing[name, epsilon] = _without(evidence.clean, fooled)
        fooled = [i for i in _fooled(bounded, epsilon) if i < evidence.images]
        evidence.worst[epsilon] = _without(evidence.clean, fooled)


def _enter_foreign(evidence: Evidence, probed: Probed) -> None:
    """Show the model what fooled others."""
    for adversarial in probed.foreign:
        mine = adversarial.position < evidence.images
        shown = adversarial.images[mine].to(probed.images.device)
        if not len(shown):
            continue
        position = adversarial.position[mine]
        fooled = probed.logits(shown).argmax(dim=1).cpu() != probed.labels.cpu()[position]
        for epsilon in evidence.epsilons:
            places = position[fooled & (adversarial.epsilon[mine] <= epsilon)]
            before = evidence.standing.get(("transfer", epsilon), evidence.clean)
            evidence.standing["transfer", epsilon] = _without(before, places.tolist())


def _search(evidence: Evidence, probed: Probed, make: Callable[[float], Preset]) -> None:
    """Try an attack that sees no gradient on what no gradient attack fooled."""
    for epsilon in evidence.epsilons:
        left = evidence.together(GRADIENT, epsilon).nonzero().squeeze(1)
        left = left[:_SEARCHED]
        preset = make(epsilon)
        key = (preset.specs[0].key, epsilon)
        evidence.standing[key], evidence.searched[key] = evidence.clean.clone(), len(left)
        if len(left):
            some = dataclasses.replace(
                probed, images=probed.images[left], labels=probed.labels[left]
            )
            _enter(evidence, some.attack(preset, [epsilon]), left.tolist())


def _in_double(probed: Probed) -> Probed | None:
    """The model in float64; None where it only computes in other types."""
    try:
        double = dataclasses.replace(probed, model=_Double(probed.model))
        double.logits(probed.images[:1])
    except RuntimeError:
        return None
    return double


class _Double(nn.Module):
    """A copy of a model that computes in float64."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).double()
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.double())
        return logits
