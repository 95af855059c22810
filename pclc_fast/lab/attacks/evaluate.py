"""From a model, images and a preset to a result."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import pclc_fast
from pclc_fast import pc_lc_loss

from ..environment import environment
from . import checks
from .campaign import Campaign, Silent, Stop, Watch, schedule
from .network import Model, Network
from .noise import Noise
from .piece import Subjects
from .pieces import Pieces
from .preset import Preset, Spec
from .presets import find_preset
from .provenance import data_subject, digest, model_subject, peak_memory
from .registry import ATTACKS, check, unfit
from .result import Attack, Caution, Images, Norm, Result, Subject


def evaluate(
    model: Model,
    images: Tensor,  # [N, ...], float32, in [0, 1]
    labels: Tensor,  # [N], integers
    *,
    eps: float | Sequence[float] | None,
    norm: Norm = "Linf",
    preset: str | Preset = "strong",
    seed: int = 0,
    batch_size: int | None = None,
    substitute: Model | None = None,
    pieces: Pieces | None = None,
    watch: Watch | None = None,
) -> Result:
    """Attack a model that gives logits; return what every attack found.

    Args:
        model: images [B, ...] in [0, 1] to logits [B, K]; a module must be in evaluation mode.
        images: what the budgets are around.
        labels: the true classes.
        eps: budgets for all images; None: those of the preset, which are in Linf, as there must be
            where none of its attacks has one. What fools within one fools within a larger one.
        norm: of the budgets, "Linf" or "L2".
        preset: "strong", "paper", "released", or attacks of one's own.
        seed: random starts and directions; those of an image do not depend on the others.
        batch_size: images, restarts and targets that go through the model at a time. None: 256, on
            a GPU 1024.
        substitute: the model on which transfer attacks are crafted.
        pieces: where finished parts are kept, so that a killed evaluation goes on from them.
        watch: is told how it goes.

    Raises:
        TypeError: images or labels are not what they must be.
        ValueError: neither are their values, the mode of the model, or its logits.

    What does not stop an evaluation but changes its meaning is a warning, and in
    ``Result.cautions``.
    """
    start = time.perf_counter()
    checks.check_norm(norm)
    asked = None if eps is None else checks.check_epsilons(eps, norm)
    subjects = _subjects(model, images, labels, substitute, seed, batch_size)
    classes = subjects.logits.shape[1]
    whole = find_preset(preset, tuple(images.shape[1:]), classes)
    _check_specs(whole)
    fitting, left_out = _fitting(whole, norm, classes, has_substitute=substitute is not None)
    stops, epsilons = schedule(fitting, asked, norm)
    cautions = [*_look_out(subjects, stops), *left_out]
    _warn(cautions)
    described = model_subject(model, classes, substitute)
    result = _begun(described, subjects, fitting, norm, epsilons, cautions)
    pieces = pieces or Pieces()
    pieces.open(_manifest(result, subjects))
    campaign = Campaign(subjects, fitting, norm, pieces, watch or Silent())
    cells = campaign.run(stops)
    found_later = checks.lost_looks(campaign.lost_looks)
    _warn(found_later)
    return dataclasses.replace(
        result,
        cautions=[*cautions, *found_later],
        cells=cells,
        adversarial=campaign.adversarial(),
        seconds=round(time.perf_counter() - start + campaign.seconds_before, 3),
        peak_memory=peak_memory(subjects.images.device),
    )


def _warn(cautions: list[Caution]) -> None:
    """As if ``evaluate``'s caller were told."""
    for caution in cautions:
        warnings.warn(f"{caution.code}: {caution.message}", stacklevel=3)


def _begun(
    model: Subject,
    subjects: Subjects,
    preset: Preset,
    norm: Norm,
    epsilons: list[float],
    cautions: list[Caution],
) -> Result:
    """The result before the first attack."""
    return Result(
        model=model,
        data=data_subject(subjects.images, subjects.labels),
        preset=preset.name,
        norm=norm,
        epsilons=epsilons,
        seed=subjects.noise.seed,
        batch_size=subjects.network.batch_size,
        cumulative=preset.cumulative,
        carry=preset.carry,
        attacks=[_attack(spec) for spec in preset.specs],
        assumptions=list(preset.assumptions),
        cautions=cautions,
        images=_clean(subjects),
        cells=[],
        environment=environment([]),
        seconds=0.0,
        peak_memory=0,
    )


def _subjects(
    model: Model,
    images: Tensor,
    labels: Tensor,
    substitute: Model | None,
    seed: int,
    batch_size: int | None,
) -> Subjects:
    """Check what was handed over; look at the clean images."""
    checks.check_images(images, labels)
    checks.check_seed(seed, batch_size)
    for each in (model, substitute):
        checks.check_mode(each)
    device = _device(model, images)
    images, labels = images.detach().to(device), labels.detach().to(device).long()
    size = int(batch_size or (256 if device.type == "cpu" else 1024))
    network = Network(model, size)
    other = None if substitute is None else Network(substitute, size)
    logits = checks.clean_logits(network, images)
    checks.check_logits(logits, labels)
    if other is not None:
        checks.check_substitute(other.logits(images[:size]), logits)
    return Subjects(network, other, images, labels, logits, Noise(int(seed)))


def _device(model: Model, images: Tensor) -> torch.device:
    """Where the model is; where the images are, for a model that does not say."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((p.device for p in parameters), images.device)


def _check_specs(preset: Preset) -> None:
    keys = [spec.key for spec in preset.specs]
    if not keys or len(set(keys)) < len(keys):
        raise ValueError(f"a preset must have attacks with different keys; got {keys}")
    for spec in preset.specs:
        check(spec)
        if spec.epsilons:
            checks.check_epsilons(spec.epsilons, spec.norm or "Linf")


def _fitting(
    preset: Preset, norm: Norm, classes: int, *, has_substitute: bool
) -> tuple[Preset, list[Caution]]:
    """The attacks of a preset that can be run, and a caution for each that cannot."""
    reasons = {
        spec.key: unfit(spec, norm, classes, has_substitute=has_substitute) for spec in preset.specs
    }
    left_out = [
        Caution("attack-left-out", f"{key} does not run: {reason}")
        for key, reason in reasons.items()
        if reason
    ]
    specs = tuple(spec for spec in preset.specs if not reasons[spec.key])
    if not specs:
        raise ValueError("; ".join(f"{key} cannot be run: {r}" for key, r in reasons.items()))
    return dataclasses.replace(preset, specs=specs), left_out


def _look_out(subjects: Subjects, stops: list[Stop]) -> list[Caution]:
    if any(ATTACKS[stop.spec.attack].threat == "white-box" for stop in stops):
        checks.check_gradient(subjects.network, subjects.images)
    return checks.cautions(subjects.network, subjects.images, subjects.labels, subjects.logits)


def _clean(subjects: Subjects) -> Images:
    _, stats = pc_lc_loss(subjects.logits, subjects.labels, return_stats=True)
    return Images(
        label=subjects.labels.tolist(),
        predicted=subjects.logits.argmax(dim=1).tolist(),
        prob_gap=[float(f"{gap:.6g}") for gap in stats.prob_gap.tolist()],
        logit_gap=[float(f"{gap:.6g}") for gap in stats.logit_gap.tolist()],
    )


def _attack(spec: Spec) -> Attack:
    settings = {"attack": spec.attack, **spec.settings}
    return Attack(spec.key, spec.title, spec.source, ATTACKS[spec.attack].threat, settings)


def _manifest(result: Result, subjects: Subjects) -> dict[str, Any]:
    """Everything that decides about the result."""
    return {
        "model": digest([("logits", subjects.logits)]),
        "weights": result.model.sha256,
        "substitute": result.model.facts.get("substitute"),
        "data": result.data.sha256,
        "preset": result.preset,
        "norm": result.norm,
        "epsilons": result.epsilons,
        "seed": result.seed,
        "batch_size": result.batch_size,
        "attacks": [dataclasses.asdict(attack) for attack in result.attacks],
        "versions": [pclc_fast.__version__, torch.__version__],
    }
