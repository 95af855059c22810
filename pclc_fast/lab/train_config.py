"""The configuration of ``pclc train``: its command line, and config.json of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from tyro.conf import arg

from .adversarial import AdversaryName, make_adversary
from .files import prepare_folder
from .losses import OPTIONS, LossName, make_criterion
from .option_checks import as_typed, check_counts, check_lr, check_seeds

Schedule = Literal["two-phase", "direct"]
Augmentation = Literal["none", "flip-crop", "released"]
Switch = Literal["auto", "on", "off"]
Compilation = Literal["auto", "on", "graphs", "off"]
# What may differ where a run goes on: where things are, not what is computed.
MOVABLE = ("root", "download", "device", "out", "warm_ups", "resume")


@dataclass(frozen=True)
class TrainConfig:
    """Train a network with CE, PC-LC or GCE, by the paper's recipe.

    The network trains with cross-entropy for a number of epochs (the warm-up), then with the chosen
    loss for as many, with a fresh Adam and the learning rate restarted. In each phase the learning
    rate falls to a fifth after a third and again after two thirds of the epochs. Runs that differ
    only after the warm-up share it.

    Ctrl-C stops after the batch and saves; pclc train --resume FOLDER goes on from there. Several
    GPUs: torchrun --nproc-per-node N -m pclc_fast.lab train ... (it stops after the epoch).
    """

    # Line breaks in these texts are kept by --help.
    data: str = "digits"
    """digits, mnist, kmnist, fashion-mnist, cifar10, cifar100, svhn or tiny-imagenet-200.
    Or a folder with train/ and test/ or val/ that hold a folder of images for each class."""
    root: Path = Path("data")
    """Folder with the files of the data sets."""
    download: bool = False
    """Fetch the files of the data set where they are missing."""
    image_size: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: as is)")] = (
        None
    )
    """Height and width that a folder's images are brought to."""
    model: Annotated[
        str | None,
        arg(
            metavar="STR",
            help_behavior_hint="(default: small-cnn for digits, lenet5 for grey, vgg13 for colour)",
        ),
    ] = None
    """small-cnn, lenet5, vgg13, resnet56, cnn3 or timm:NAME."""
    loss: LossName = "pclc"
    """Loss after the warm-up.
    pclc: the paper's Eq. 16.
    pclc-released: what its authors' code computes.
    pclc-soft, pclc-all: the logit constraint on all false classes, by their softmax or alike.
    gce: guided complement entropy."""
    schedule: Schedule = "two-phase"
    """two-phase: cross-entropy, then the loss.
    direct: the loss alone, in one schedule as long as both phases."""
    epochs: Annotated[
        int | None,
        arg(
            metavar="INT",
            help_behavior_hint="(default: the paper's, 50 for grey and 150 for colour images)",
        ),
    ] = None
    """Epochs of a phase."""
    lr: float = 0.01
    """Learning rate of Adam."""
    batch_size: int = 256
    """Images in a training step, over all processes."""
    seeds: tuple[int, ...] = (0,)
    """One run each: initial weights, order of the images, augmentation, dropout, attacks."""
    augmentation: Augmentation = "none"
    """flip-crop: random flip and crop with padding.
    released: flip, rotation and resized crop, as in the authors' code."""
    adversarial: AdversaryName = "none"
    """Attacked copies of each batch join it.
    fgsm: epsilon from 0.1 to 0.3, the paper's for grey images.
    pgd: 5 steps, epsilon from 0 to 0.1, the paper's for CIFAR-10."""
    adversarial_eps: Annotated[
        tuple[float, float] | None,
        arg(metavar="LOW HIGH", help_behavior_hint="(default: as above)"),
    ] = None
    """Another epsilon; each image draws its own from LOW to HIGH."""
    adversarial_steps: Annotated[
        int | None, arg(metavar="INT", help_behavior_hint="(default: as above)")
    ] = None
    """Another number of steps of pgd."""
    margin: float = 0.995
    """xi in Eq. 6."""
    lc_weight: float = 0.05
    """lambda in Eq. 16."""
    lc_cap: float = 0.0
    """How large a logit gap costs nothing."""
    pc_mean: bool = False
    """Divide the PC term by the number of false classes."""
    device: str = "auto"
    """cpu, cuda or cuda:N. auto: a GPU where there is one."""
    bf16: Switch = "auto"
    """bfloat16 autocast. auto: on a GPU.
    On a CPU LeNet-5 takes as long with it as without."""
    compile: Compilation = "auto"
    """torch.compile; graphs: with CUDA graphs, for small networks. auto: on a GPU."""
    out: Annotated[
        Path | None, arg(metavar="PATH", help_behavior_hint="(default: runs/DATA-MODEL-LOSS)")
    ] = None
    """Folder of the run, with a folder for each seed where there are several."""
    warm_ups: Path = Path("runs/warm-ups")
    """Folder where finished warm-ups are kept and found again."""
    resume: Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="(optional)")] = None
    """Go on with the run, or the runs, in this folder.
    Takes no other options than where things are: root, download, device, warm-ups,
    and data where that is a folder."""

    def check(self) -> None:
        """Raise ValueError for the first value that makes no sense; make the folder ``out``."""
        self._check_values()
        if self.resume is None and self.out is not None:
            prepare_folder(self.out)

    def _check_values(self) -> None:
        check_counts(epochs=self.epochs, batch_size=self.batch_size, image_size=self.image_size)
        check_lr(self.lr)
        check_seeds(self.seeds)
        for name in ("margin", "lc_weight", "lc_cap", "pc_mean"):
            if name not in OPTIONS[self.loss] and getattr(self, name) != _DEFAULTS[name]:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} has no meaning with --loss {self.loss}")
        make_criterion(self.loss, self.loss_options())
        make_adversary(self.adversarial, self.adversarial_eps, self.adversarial_steps)

    def loss_options(self) -> dict[str, Any]:
        """The options of the loss, as ``make_criterion`` takes them."""
        return {name: getattr(self, name) for name in OPTIONS[self.loss]}

    def identity(self) -> dict[str, Any]:
        """What is computed, without where, as config.json has it."""
        return {name: value for name, value in self.to_json().items() if name not in MOVABLE}

    def check_is_of_a_run(self) -> None:
        """Raise ValueError where something is left open that a run has decided."""
        if len(self.seeds) != 1:
            raise ValueError(f"a run has one of the seeds {as_typed(self.seeds)}")
        for name in ("model", "epochs", "bf16", "compile"):
            if getattr(self, name) in (None, "auto"):
                raise ValueError(f"{name} is left open")

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON knows them."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: _plain(value) for name, value in values.items()}

    @classmethod
    def from_json(cls, values: object) -> TrainConfig:
        """The inverse of ``to_json``; raises ValueError for anything else."""
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
        names = {f.name for f in dataclasses.fields(cls)}
        if names != set(values):
            raise ValueError(f"these fields are missing or unknown: {sorted(names ^ set(values))}")
        config = cls(**{name: _typed(name, value) for name, value in values.items()})
        config._check_values()
        return config


def given(config: TrainConfig, arguments: Sequence[str]) -> Mapping[str, Any]:
    """The options that ``arguments``, which were parsed to ``config``, name, as JSON knows them."""
    words = (word.partition("=")[0] for word in arguments if word.startswith("--"))
    names = {word.removeprefix("--").replace("-", "_") for word in words}
    return {name: value for name, value in config.to_json().items() if name in names}


_DEFAULTS = {f.name: f.default for f in dataclasses.fields(TrainConfig)}
_TYPES = get_type_hints(TrainConfig)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _typed(name: str, value: Any) -> Any:
    """Give a value from JSON the type of its field, or raise ValueError."""
    accepted = get_args(_TYPES[name]) or (_TYPES[name],)
    if value is None and type(None) in accepted:
        return None
    if Path in accepted and isinstance(value, str):
        return Path(value)
    if name == "seeds":
        if isinstance(value, list) and all(type(seed) is int for seed in value):
            return tuple(value)
    elif name == "adversarial_eps":
        if isinstance(value, list) and [type(bound) for bound in value] == [float, float]:
            return tuple(value)
    elif float in accepted and type(value) is int:
        return float(value)
    elif value in [a for a in accepted if isinstance(a, str)] or type(value) in accepted:
        return value
    raise ValueError(f"{name} cannot be {value!r}")
