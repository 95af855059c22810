"""The presets as data."""

from __future__ import annotations

from .preset import Preset, Spec

STRONG = Preset(
    "strong",
    (
        Spec("pgd-rescaled", "PGD-10, rescaled margin", "pgd", {"steps": 10, "step_size": 0.25, "per_epsilon": True, "loss": "margin", "rescaled": True}),
        Spec("apgd-ce", "APGD-CE", "apgd", {"steps": 100, "loss": "ce", "rescaled": True}),
        Spec("multi-targeted", "PGD-100 on rescaled margins, 9 targets", "multi-targeted", {"steps": 100, "targets": 9}),
        Spec("apgd-t", "APGD-T", "apgd", {"steps": 100, "loss": "dlr", "targets": 9}),
    ),
    cumulative=True, carry=True,
)
