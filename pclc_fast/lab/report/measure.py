"""Everything that a report says of one run, as plain values."""

from __future__ import annotations

import json
import statistics
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ..attacks import Preset, Result, Spec, evaluate
from ..attacks.result import Adversarial, Norm
from ..audit import verdict
from ..audit.connected import connected
from ..audit.probes import Probed, gather
from ..recipes import phases
from ..train_config import TrainConfig
from . import gradients
from .embedding import embedding
from .images import samples
from .ranks import ranks
from .results import attacked
from .rows import Run
from .subject import Subject

Say = Callable[[str], None]
_FIGURE_3 = 0.3  # the epsilon of FGSM in the paper's Figure 3
_GRID = 20  # steps of epsilon in Figure 2
_ENDS_OF_GRID = {1: 0.3, 3: 0.1}  # by channels
_MIM_STEPS = 10
_EMBEDDED = 1000  # images, at most
_AFTER = ("gradients", "ranks", "embedding", "audit")  # what needs the network


def measure(
    name: str, subject: Subject, *, images: int, foreign: Sequence[Adversarial], say: Say
) -> Run:
    """Measure a run. ``images`` bounds how many are looked at beyond the results.

    ``foreign`` is how other models were fooled on the same images; ``say`` is told what is done.
    """
    result, missing = subject.result, dict(subject.missing)
    run: Run = {
        "id": name,
        "folder": str(subject.folder),
        **_configuration(subject),
        "model": _model(subject),
        "data": _data(subject),
        "training": _training(subject),
        "attacked": attacked(result, subject.class_names) if result else None,
        "gaps": _gaps(result) if result else None,
        "samples": None,
        **dict.fromkeys(_AFTER),
    }
    if result and subject.aligned and subject.images is not None:
        run["samples"] = samples(result, subject.images, subject.class_names) or None
    if subject.network is not None:
        run |= _of_the_network(subject.network, subject, images, foreign, say)
    if subject.network is not None and run["embedding"] is None:
        missing["embedding"] = (
            "too few images, or features that do not differ or are not a vector each"
            if callable(getattr(subject.network, "features", None))
            else "the model has no features() that gives what its last layer sees"
        )
    for part in _AFTER:
        missing.setdefault(part, missing.get("model", "not measured"))
    missing.setdefault("samples", missing.get("attacked", "nothing was fooled within a budget"))
    return {**run, "missing": {k: v for k, v in missing.items() if run.get(k) is None}}


def _of_the_network(
    network: nn.Module, subject: Subject, count: int, foreign: Sequence[Adversarial], say: Say
) -> dict[str, Any]:
    """What takes looks of its own at the model."""
    assert subject.images is not None
    assert subject.labels is not None
    images, labels = subject.images[:count], subject.labels[:count]
    bare, network = network, connected(network, images[:1])
    say(f"gradients of {len(images)} images")
    slopes = gradients.slopes(network, images, labels)
    say("where fooled images go")
    sweep = _sweep(network, images, labels, subject.result)
    found = Probed(network, images, labels, subject.result if subject.aligned else None, foreign)
    return {
        "gradients": gradients.summary(slopes),
        "ranks": ranks(sweep),
        "embedding": _features(bare, network, subject, say),
        "audit": verdict.to_json(gather(found, say)),
        "gaps": _gaps(subject.result or sweep),
    }


_FIGURE_2 = Preset(
    "figure-2",
    (
        Spec("fgsm", "FGSM", "fgsm", {"loss": "ce"}, "Figure 2"),
        Spec(
            "mim",
            f"MIM-{_MIM_STEPS}",
            "mim",
            {"steps": _MIM_STEPS, "step_size": 2 / _MIM_STEPS, "per_epsilon": True, "loss": "ce"},
            "Figure 2",
        ),
    ),
    carry=True,
)


def _sweep(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, result: Result | None
) -> Result:
    """Figure 2's attacks over a fine grid, in the norm that the model was evaluated in."""
    norm = result.norm if result else "Linf"
    end = _ENDS_OF_GRID.get(images.shape[1], 0.1)
    if result and norm != "Linf":
        end = max(result.epsilons, default=1.0) or 1.0
    grid = [round(end * step / _GRID, 6) for step in range(1, _GRID + 1)]
    return _quietly(network, images, labels, grid, _FIGURE_2, norm)


_FGSM = Preset("figure-3", (Spec("fgsm", "FGSM", "fgsm", {"loss": "ce"}, "Figure 3"),))


def _quietly(
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    eps: Any,
    preset: Preset,
    norm: Norm = "Linf",
) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the evaluation has said them
        return evaluate(network, images, labels, eps=eps, norm=norm, preset=preset)


def _features(
    bare: nn.Module, network: nn.Module, subject: Subject, say: Say
) -> dict[str, Any] | None:
    """Clean images and those that one step of FGSM fools, in the plane of their features."""
    assert subject.images is not None
    assert subject.labels is not None
    if not callable(getattr(bare, "features", None)):
        return None
    say("features")
    images, labels = subject.images[:_EMBEDDED], subject.labels[:_EMBEDDED]
    found = _quietly(network, images, labels, _FIGURE_3, _FGSM).adversarial
    assert found is not None
    fooled = found.images.to(images.device)
    true = labels[found.position.to(labels.device)]
    return embedding(bare, images, labels, fooled, true, _FIGURE_3)


def _configuration(subject: Subject) -> dict[str, str]:
    """What runs of one configuration share, and the same in words."""
    config = subject.config
    if config is None:
        result = subject.result
        about = f"{result.model.name}, {result.data.name}" if result else ""
        return {"key": str(subject.folder), "about": about}
    facts = {k: v for k, v in config.identity().items() if k != "seeds"}
    facts["norm"] = subject.result.norm if subject.result else "Linf"
    epochs = " + ".join(f"{phase.epochs} epochs {phase.loss}" for phase in phases(config))
    words = [str(config.model), epochs]
    if config.adversarial != "none":
        words.append(f"adversarial training: {config.adversarial}")
    return {"key": json.dumps(facts, sort_keys=True), "about": ", ".join(words)}


def _model(subject: Subject) -> dict[str, Any]:
    result, config = subject.result, subject.config
    found: dict[str, Any] = {"sha256": result.model.sha256 if result else None, "facts": {}}
    if result:
        found["facts"] |= {"name": result.model.name, **result.model.facts}
    if subject.weights_sha256:
        found["facts"]["file_sha256"] = subject.weights_sha256
    if config:
        found["facts"]["network"] = config.model
    return found


def _data(subject: Subject) -> dict[str, Any]:
    result, data = subject.result, subject.data
    found: dict[str, Any] = {
        "set": subject.config.data if subject.config else None,
        "name": result.data.name if result else None,
        "sha256": result.data.sha256 if result else None,
        "facts": dict(result.data.facts) if result else {},
    }
    if data is not None:
        found["facts"] |= {"set": data.name, "set_sha256": data.sha256, "classes": data.classes}
    return found


def _training(subject: Subject) -> dict[str, Any] | None:
    config = subject.config
    if config is None:
        return None
    settings = {k: v for k, v in config.to_json().items() if k in _SETTINGS and v is not None}
    planned = sum(phase.epochs for phase in phases(config))
    facts = {**settings, "epochs_done": len(subject.metrics), "epochs_planned": planned}
    if subject.metrics:
        last = subject.metrics[-1]
        facts |= {f"last_{k}": last[k] for k in _LAST if last.get(k) is not None}
        facts["seconds"] = round(sum(row.get("seconds", 0.0) for row in subject.metrics), 1)
    return facts


_LAST = ("loss", "accuracy", "test_accuracy", "prob_gap", "logit_gap")
_SETTINGS = tuple(
    name
    for name in TrainConfig.__dataclass_fields__
    if name not in ("root", "download", "out", "warm_ups", "resume")
)


def _gaps(result: Result) -> dict[str, Any]:
    """Over all images: of the true class over the largest false one."""
    gaps = {"probability": result.images.prob_gap, "logit": result.images.logit_gap}
    return {
        name: {"mean": statistics.fmean(values), "median": statistics.median(values)}
        for name, values in gaps.items()
    }
