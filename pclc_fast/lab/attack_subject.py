"""What ``pclc attack`` attacks: the model of a run, or what a factory makes, and its images."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as safetensors_tensors
from torch import Tensor, nn

from .attack_config import AttackConfig
from .attacks.result import Result
from .attacks.result import Subject as Described
from .data import ImageData, load_dataset
from .errors import RunError
from .models import build_model
from .run_folder import RunFolder
from .train_config import TrainConfig

_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Subject:
    """A model in evaluation mode and the images it is evaluated on, on one device."""

    name: str
    folder: Path  # where results go unless they are sent elsewhere
    network: nn.Module
    facts: dict[str, Any]  # about the model
    images: Tensor  # [N, C, H, W], float32, in [0, 1]
    labels: Tensor  # [N], int64
    data_name: str
    class_names: tuple[str, ...]
    data_sha256: str  # of the whole data set

    @property
    def classes(self) -> int:
        return len(self.class_names)

    def model(self, result: Result) -> Described:
        """The model with its name."""
        return dataclasses.replace(
            result.model, name=self.name, facts={**result.model.facts, **self.facts}
        )

    def data(self, result: Result) -> Described:
        """The images with their name."""
        facts = {"class_names": list(self.class_names), "data_set_sha256": self.data_sha256}
        return dataclasses.replace(
            result.data, name=f"{self.data_name} test", facts={**result.data.facts, **facts}
        )


def run_folders(path: Path) -> list[Path]:
    """The run in ``path``, or those of its seeds; raises RunError where there is none."""
    if (path / _CONFIG).exists():
        return [path]
    found = sorted(p.parent for p in path.glob(f"seed-*/{_CONFIG}"))
    if not found:
        raise RunError(f"{path} is not the folder of a run: it has no {_CONFIG}", code=2)
    return found


def subject_of_run(folder: Path, options: AttackConfig) -> Subject:
    """The model that was trained, with the test images of its data set."""
    config = RunFolder(folder).config()
    data = _data(options, config)
    network = network_of_run(folder, config, data)
    facts = {name: getattr(config, name) for name in ("model", "loss", "schedule", "adversarial")}
    facts["seed"] = config.seeds[0]
    return _subject(str(folder), folder, network, facts, data, options)


def subject_of_factory(options: AttackConfig) -> Subject:
    """What --model makes, with the weights of --weights, and the test images of --data."""
    assert options.model is not None
    assert options.weights is not None
    network = _made(options.model)
    _load_weights(network, options.weights)
    facts = {"factory": options.model, "weights": str(options.weights)}
    data = _data(options, None)
    return _subject(options.model, options.weights.parent, network, facts, data, options)


def substitute_of(folder: Path, subject: Subject) -> nn.Module:
    """The model of another run, for the images of a subject."""
    config = RunFolder(folder).config()
    channels, height, width = subject.images.shape[1:]
    like = [0.0] * channels, [1.0] * channels  # its own come with its weights
    network = _built(config, (channels, height, width), subject.classes, *like)
    _load_weights(network, folder / _WEIGHTS)
    return _channels_last(network).to(subject.images.device)


def network_of_run(folder: Path, config: TrainConfig, data: ImageData) -> nn.Module:
    """Build a run's network and load its weights; raises RunError where that fails."""
    if not (folder / _WEIGHTS).exists():
        raise RunError(
            f"{folder} has no {_WEIGHTS}: it is not finished. pclc train --resume {folder} "
            "goes on with it",
            code=2,
        )
    network = _built(config, data.shape, data.classes, data.mean, data.std)
    _load_weights(network, folder / _WEIGHTS)
    return _channels_last(network)


def _built(
    config: TrainConfig,
    shape: tuple[int, int, int],
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> nn.Module:
    try:
        return build_model(str(config.model), shape, classes, mean=mean, std=std, seed=0)
    except ValueError as error:
        raise RunError(f"the run's network does not fit these images: {error}", code=2) from error


def _channels_last(network: nn.Module) -> nn.Module:
    """As in training; on a CPU, attacks on LeNet-5 take half the time."""
    return network.to(memory_format=torch.channels_last)


def _subject(
    name: str,
    folder: Path,
    network: nn.Module,
    facts: dict[str, Any],
    data: ImageData,
    options: AttackConfig,
) -> Subject:
    device = _device(options.device)
    count = options.n_ex or len(data.test_labels)
    images = data.test_images[:count].float().div_(data.brightest)
    return Subject(
        name,
        folder,
        network.to(device).eval(),
        facts,
        images.to(device),
        data.test_labels[:count].to(device),
        data.name,
        data.class_names,
        data.sha256,
    )


def _data(options: AttackConfig, config: TrainConfig | None) -> ImageData:
    name = options.data or (config.data if config else "")
    root = options.root or (config.root if config else Path("data"))
    size = options.image_size or (config.image_size if config else None)
    try:
        return load_dataset(name, root=root, image_size=size)
    except (OSError, ValueError) as error:
        raise RunError(str(error), code=2) from error


def _made(name: str) -> nn.Module:
    """Import a factory, from the working folder too, and call it."""
    module, _, factory = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        made = getattr(importlib.import_module(module), factory)()
    except Exception as error:  # whatever somebody's module does
        raise RunError(
            f"--model {name} cannot be made: {type(error).__name__}: {error}", code=2
        ) from error
    if not isinstance(made, nn.Module):
        raise RunError(
            f"--model {name} must make a torch.nn.Module; it made {type(made).__name__}", code=2
        )
    return made


def _load_weights(network: nn.Module, path: Path) -> None:
    try:
        network.load_state_dict(safetensors_tensors(path.read_bytes()))
    except SafetensorError as error:
        raise RunError(
            f"{path} cannot be used as the model's weights: it is no safetensors file ({error}). "
            "safetensors.torch.save_file writes one; what torch.save writes is not read",
            code=2,
        ) from error
    except (OSError, RuntimeError) as error:
        raise RunError(f"{path} cannot be used as the model's weights: {error}", code=2) from error
    network.eval()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise RunError(f"--device {name} cannot be used: {error}", code=2) from error
