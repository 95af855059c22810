"""Everything that a report says of one run, as plain values."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks import Result, evaluate
from ..attacks.presets import Preset
from ..audit.probes import audit
from ..recipes import phases
from . import gradients
from .embedding import embedding
from .images import samples
from .ranks import FINE, ranks
from .results import attacked
from .rows import Run
from .subject import Subject

Say = Callable[[str], None]
_FIGURE_3 = 0.3  # the epsilon of FGSM in Figure 3
_STEPS = 20  # of epsilon, in Figure 2
_EMBEDDED = 1000  # images, at most


def measure(name: str, subject: Subject, *, images: int, say: Say) -> Run:
    """Measure a run; ``images`` bounds how many are looked at beyond the results.

    ``say`` is told what is being done.
    """
    result, missing = subject.result, dict(subject.missing)
    run: Run = {
        "id": name,
        "folder": str(subject.folder),
        **_about(subject),
        "model": _model(subject),
        "data": _data(subject),
        "training": _training(subject),
        "attacked": attacked(result, subject.class_names) if result else None,
        "gaps": _gaps(result) if result else None,
        "gradients": None,
        "ranks": None,
        "embedding": None,
        "samples": None,
        "audit": None,
    }
    if result and subject.aligned and subject.images is not None:
        run["samples"] = samples(result, subject.images, subject.class_names)
    if subject.network is not None and subject.images is not None and subject.labels is not None:
        shown, labels = subject.images[:images], subject.labels[:images]
        run |= _of_the_network(name, subject.network, shown, labels, subject, say)
    say("audit")
    run["audit"] = audit(subject, images)
    for part in ("gradients", "ranks", "embedding", "audit"):
        missing.setdefault(part, missing.get("model", "not measured"))
    missing.setdefault("samples", missing.get("attacked", "nothing was fooled within a budget"))
    return {**run, "missing": missing}
