"""Our attacks against those of other libraries and of a study, on LeNet-5 and MNIST.

    python -m benchmarks.attacks union RUN --root FOLDER_WITH_MNIST   # everything else
    python -m benchmarks.attacks strong RUN --root FOLDER_WITH_MNIST  # the preset, beside it
    python -m benchmarks.attacks speed RUN --root FOLDER_WITH_MNIST   # PGD-40; on a CE model

RUN is the folder of a finished ``pclc train``. Each writes results/attacks-NAME-WHAT.json, with its
command and environment, and prints a table. It needs the extra [peers], and adv-lib:
``pip install --no-deps adv-lib``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pclc_fast.lab.attack_subject import network_of_run
from pclc_fast.lab.data import load_dataset
from pclc_fast.lab.run_folder import RunFolder

from .attack_speed import speed, speed_lines
from .attack_strong import strong, strong_lines
from .attack_union import lines, union
from .environment import cpu_model, environment
from .peers import LIBRARIES, missing, versions

EPSILONS = (0.1, 0.2, 0.3)
_RESULTS = Path(__file__).parent / "results"


class Subject(NamedTuple):
    """A trained network, the first test images, and what identifies them."""

    network: nn.Module
    images: Tensor  # [N, 1, 28, 28], float32, in [0, 1]
    labels: Tensor  # [N]
    facts: dict[str, Any]


def main() -> None:
    arguments = _arguments()
    for library in LIBRARIES:
        if reason := missing(library):
            sys.exit(reason)
    torch.set_num_threads(arguments.threads)
    start, subject = time.perf_counter(), load(arguments.run, arguments.root, arguments.images)
    path = _RESULTS / f"attacks-{arguments.run.name}-{arguments.what}.json"
    measured = _MEASURE[arguments.what](subject, arguments)
    command = f"python -m benchmarks.attacks {shlex.join(sys.argv[1:])}"
    document = {
        "environment": {
            **environment(command, time.perf_counter() - start),
            "threads": arguments.threads,
            **versions(),
        },
        "subject": subject.facts,
        **measured,
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print("wrote", path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=_MEASURE)
    parser.add_argument("run", type=Path, help="folder of a finished pclc train")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder that holds MNIST/")
    parser.add_argument("--images", type=int, default=1000, help="the first so many test images")
    parser.add_argument("--eps", type=float, nargs="+", default=EPSILONS, help="ascending")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--substitute", type=Path, help="union: a run to transfer attacks from")
    parser.add_argument("--rounds", type=int, default=5, help="speed: how often all are timed")
    return parser.parse_args()


def load(run: Path, root: Path, count: int) -> Subject:
    config = RunFolder(run).config()
    data = load_dataset(config.data, root=root)
    network = network_of_run(run, config, data)
    network.eval().requires_grad_(False)  # so that nobody computes gradients of the weights
    facts = {
        "run": run.name,
        "model": config.model,
        "loss": config.loss,
        "schedule": config.schedule,
        "weights_sha256": hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest(),
        "images": f"the first {count} of {config.data} test",
    }
    images = data.test_images[:count].float() / data.brightest
    return Subject(network, images, data.test_labels[:count], facts)


def _union(subject: Subject, arguments: argparse.Namespace) -> dict[str, Any]:
    substitute = None
    if arguments.substitute is not None:
        other = load(arguments.substitute, arguments.root, arguments.images)
        substitute, subject.facts["substitute"] = other.network, other.facts
    attacks = lines(substitute)
    found = union(*subject[:3], arguments.eps, attacks, tell=lambda text: print(text, flush=True))
    return {"union": found}


def _strong(subject: Subject, arguments: argparse.Namespace) -> dict[str, Any]:
    path = _RESULTS / f"attacks-{arguments.run.name}-union.json"
    others = json.loads(path.read_text(encoding="utf-8"))
    if others["subject"]["weights_sha256"] != subject.facts["weights_sha256"]:
        sys.exit(f"{path} is of other weights: run union again")
    if others["subject"]["images"] != subject.facts["images"]:
        sys.exit(f"{path} is of other images: run union again")
    found = strong(*subject[:3], arguments.eps, others["union"])
    print("\n".join(strong_lines(found)))
    return found


def _speed(subject: Subject, arguments: argparse.Namespace) -> dict[str, Any]:
    found = speed(*subject[:3], arguments.eps, arguments.rounds)
    print("\n".join(speed_lines(found)))
    return {"cpu": cpu_model(), **found}


_MEASURE = {"union": _union, "strong": _strong, "speed": _speed}

if __name__ == "__main__":
    main()
