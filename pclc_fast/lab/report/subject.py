"""What a report is about: a run's configuration, weights, test images and attack results.

Any of them may be missing, as after an interruption; then the report says so and has the rest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as safetensors_tensors
from torch import Tensor, nn

from ..attack_config import AttackConfig
from ..attack_subject import subject_of_factory
from ..attacks import Result, load_result
from ..attacks.result import Adversarial
from ..data import ImageData, load_dataset
from ..errors import RunError
from ..models import build_model
from ..run_folder import RunFolder
from ..train_config import TrainConfig
from .evaluations import result_folders, together

_CONFIG, _MODEL, _METRICS = "config.json", "model.safetensors", "metrics.jsonl"
_UNATTACKED = 1000  # images that are looked at where none were attacked, at most


@dataclass
class Subject:
    """What was found of a run; ``missing`` says why something was not."""

    folder: Path
    config: TrainConfig | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)  # an epoch each
    weights_sha256: str | None = None
    network: nn.Module | None = None  # in evaluation mode, on the device
    data: ImageData | None = None
    images: Tensor | None = None  # [N, C, H, W], the evaluated ones or all of the test, in [0, 1]
    labels: Tensor | None = None  # [N], int64
    result: Result | None = None
    names: list[str] = field(default_factory=list)  # of the classes
    aligned: bool = False  # whether ``images`` are those of ``result``
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def class_names(self) -> list[str]:
        """As the data set has them; numbers where it is not there."""
        if self.names:
            return self.names
        classes = self.result.model.facts.get("classes", 0) if self.result else 0
        return [str(label) for label in range(classes)]


def find_folders(given: Sequence[Path]) -> list[Path]:
    """The runs in the given folders: each itself, or those of its seeds.

    Raises:
        RunError: there is none in one of them.
    """
    found: list[Path] = []
    for folder in given:
        inside = [folder] if _is_run(folder) else sorted(filter(_is_run, folder.glob("seed-*")))
        if not inside:
            raise RunError(
                f"{folder} holds neither a run of pclc train nor a result of pclc attack", code=2
            )
        found += inside
    return list(dict.fromkeys(found))


def _is_run(folder: Path) -> bool:
    return (folder / _CONFIG).exists() or bool(result_folders(folder))


def load_subject(
    folder: Path,
    root: Path | None,
    device: torch.device,
    made: AttackConfig | None = None,  # the model of a folder that is not a run's
) -> Subject:
    """Read what there is of a run; ``root`` takes the place of the one that its data were in.

    Raises:
        RunError: config.json is there and cannot be used, or the model cannot be made.
    """
    subject = Subject(folder)
    _load_result(subject)
    if not (folder / _CONFIG).exists():
        if made is not None:
            _make_network(subject, made)
        else:
            subject.missing["model"] = "say which model it is by --model, --weights and --data"
        return subject
    subject.config = config = RunFolder(folder).config()
    subject.metrics = _metrics(folder / _METRICS)
    try:
        subject.data = data = load_dataset(
            config.data, root=root or config.root, image_size=config.image_size
        )
    except (OSError, ValueError, RunError) as error:
        subject.missing["model"] = f"its data cannot be read: {error}"
        return subject
    subject.names = list(data.class_names)
    _load_network(subject, data, device)
    _place_images(subject, data, device)
    return subject


def _load_result(subject: Subject) -> None:
    folders = result_folders(subject.folder)
    if not folders:
        begun = any(subject.folder.glob("**/attacks.parts"))
        subject.missing["attacked"] = (
            f"the attack is not finished, go on by pclc attack {subject.folder}"
            if begun
            else f"not attacked yet: pclc attack {subject.folder}"
        )
        return
    try:
        subject.result = together([load_result(folder) for folder in folders])
    except ValueError as error:
        subject.missing["attacked"] = str(error)


def _make_network(subject: Subject, made: AttackConfig) -> None:
    """Take what a factory makes, with the images that were attacked."""
    count = 0 if subject.result is None else subject.result.clean.images
    found = subject_of_factory(dataclasses.replace(made, n_ex=count, out=subject.folder))
    subject.network, subject.images, subject.labels = found.network, found.images, found.labels
    subject.names = list(found.class_names)
    if subject.result is not None:
        subject.aligned = found.labels.tolist() == subject.result.images.label


def _metrics(path: Path) -> list[dict[str, Any]]:
    """Every whole line."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _load_network(subject: Subject, data: ImageData, device: torch.device) -> None:
    path, config = subject.folder / _MODEL, subject.config
    assert config is not None
    assert config.model is not None  # filled in before a run begins
    if not path.exists():
        hint = f"pclc train --resume {subject.folder}"
        subject.missing["model"] = f"training is not finished, go on by {hint}"
        return
    network = build_model(
        config.model, data.shape, data.classes, mean=data.mean, std=data.std, seed=0
    )
    content = path.read_bytes()
    try:
        network.load_state_dict(safetensors_tensors(content))
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        subject.missing["model"] = f"{path} cannot be used: {reason}"
        return
    subject.weights_sha256 = hashlib.sha256(content).hexdigest()
    subject.network = network.to(device).eval()


def _place_images(subject: Subject, data: ImageData, device: torch.device) -> None:
    """The images that were evaluated, in their order; all of the test where none were."""
    first, count = 0, min(len(data.test_labels), _UNATTACKED)
    if subject.result is not None:
        evaluated = subject.result.images.label
        start = int(subject.result.data.facts.get("first", 0))
        subject.aligned = data.test_labels[start : start + len(evaluated)].tolist() == evaluated
        if subject.aligned:
            first, count = start, len(evaluated)
        else:
            subject.missing["samples"] = "the data found now are not those that were attacked"
    images = data.test_images[first : first + count].to(device)
    subject.images = images.float().div_(data.brightest)
    subject.labels = data.test_labels[first : first + count].to(device)


def foreign(subject: Subject, others: Sequence[Subject]) -> list[Adversarial]:
    """How other models were fooled on the images of one, place by place."""
    if not subject.aligned or subject.result is None:
        return []
    found = []
    for other in others:
        same = other.result is not None and other.result.data.sha256 == subject.result.data.sha256
        if other is not subject and same and other.result and other.result.adversarial:
            found.append(other.result.adversarial)
    return found
