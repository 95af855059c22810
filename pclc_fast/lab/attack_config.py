"""The configuration of ``pclc attack``: what its command line offers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .files import prepare_folder


@dataclass(frozen=True)
class AttackConfig:
    """Attack a trained model and report what is left of its accuracy.

    RUN is a folder that pclc train made. Any other model: --model package.module:factory
    --weights w.safetensors --data DATA, where factory() returns a torch.nn.Module that takes
    images in [0, 1] and gives logits.

    Finished parts are kept as they come: after Ctrl-C, or a crash, the same command goes on.
    """

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of a run, or of the runs of several seeds."""
    model: str | None = None
    """package.module:factory, instead of a run."""
    weights: Path | None = None
    """The weights of --model, a safetensors file."""
    data: str | None = None
    """A data set as pclc train --data takes it. None: that of the run."""
    root: Annotated[Path | None, tyro.conf.arg(aliases=["--data-dir"])] = None
    """Folder with the files of the data sets. None: that of the run, else data."""
    image_size: int | None = None
    """Height and width that a folder's images are brought to. None: as the run had it."""
    preset: Annotated[
        Literal["strong", "paper", "released"], tyro.conf.arg(aliases=["--version"])
    ] = "strong"
    """strong: what decides, each attack on what the others left. paper: the attacks of the paper's
    tables. released: those of its authors' notebook."""
    attacks: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--attacks-to-run"])] = ()
    """Run only these, by the names that the preset or another one has for them."""
    norm: Literal["Linf", "L2"] = "Linf"
    """In which the budgets are."""
    epsilon: Annotated[tuple[float, ...], tyro.conf.arg(aliases=["--eps", "--epsilons"])] = ()
    """Budgets, of pixels from 0 to 1. None given: the paper's for such images, which are in
    Linf."""
    n_ex: Annotated[int, tyro.conf.arg(aliases=["--images"])] = 1000
    """Attack the first so many test images. 0: all."""
    batch_size: Annotated[int | None, tyro.conf.arg(aliases=["--bs"])] = None
    """Images at a time. None: 256, on a GPU 1024."""
    seed: int = 0
    """Random starts and directions."""
    individual: bool = False
    """Run every attack on every image, not only on what the others left."""
    substitute: Path | None = None
    """Folder of a run on which transfer attacks are crafted: in the paper cnn3 for lenet5, resnet56
    for vgg13."""
    device: str = "auto"
    """cpu, cuda or cuda:N. auto: a GPU where there is one."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["--save-dir"])] = None
    """Folder for attacks.json and adversarial.safetensors. None: attacks/PRESET in the folder of
    the run, or of the weights."""
    overwrite: bool = False
    """Put the result in the place of one that is there."""

    def check(self) -> None:
        """Raise ValueError for the first value that makes no sense."""
        if (self.run is None) == (self.model is None):
            raise ValueError(
                "give either the folder of a run, or --model package.module:factory with --weights "
                "and --data"
            )
        if self.model is not None:
            missing = [n for n in ("weights", "data") if getattr(self, n) is None]
            if not all(self.model.partition(":")):
                raise ValueError(f"--model must be package.module:factory; got {self.model}")
            if missing:
                raise ValueError(f"--model needs --{', --'.join(missing)} too")
        elif self.weights is not None:
            raise ValueError("--weights goes with --model; a run has its own")
        if self.n_ex < 0:
            raise ValueError(f"--n-ex must be positive, or 0 for all images; got {self.n_ex}")
        for name, value in (("batch-size", self.batch_size), ("image-size", self.image_size)):
            if value is not None and value < 1:
                raise ValueError(f"--{name} must be at least 1; got {value}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed must be from 0 to 2^63 - 1; got {self.seed}")
        if self.out is not None:
            prepare_folder(self.out)
