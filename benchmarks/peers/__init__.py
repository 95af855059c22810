"""Attacks of other libraries, each a function on the images and with the settings that ours get.

    attack(model, images, labels, *, epsilon, ..., seed) -> adversarial images

``model`` is an nn.Module in evaluation mode, ``images`` [N, C, H, W] float32 in [0, 1], ``labels``
[N] int64; pixels stay within ``epsilon`` up to rounding. What a peer does otherwise than ours is
said where it is called. Used by tests/lab/test_peers.py and benchmarks.attacks.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

Attack = Callable[..., Tensor]
LIBRARIES = {  # and what is imported of each
    "foolbox": "foolbox.attacks",
    "ART": "art.attacks.evasion",
    "adv-lib": "adv_lib.attacks",
}
_INSTALL = {
    "foolbox": 'pip install -e ".[peers]"',
    "ART": 'pip install -e ".[peers]"',
    "adv-lib": 'pip install -e ".[peers]" && pip install --no-deps adv-lib',
}
_DISTRIBUTIONS = ("foolbox", "adversarial-robustness-toolbox", "adv-lib")


def versions() -> dict[str, str]:
    """The version of each library."""
    return {name: version(name) for name in _DISTRIBUTIONS}


@cache
def missing(library: str) -> str | None:
    """Why a library cannot be used here; None where it can."""
    try:
        load(LIBRARIES[library])
    except ImportError as error:
        return f"{library} cannot be used ({error}): {_INSTALL[library]}"
    return None


def load(module: str) -> types.ModuleType:
    """Import a peer's module, whose import may warn of what its own dependencies deprecate.

    adv-lib imports visdom at its top, for plots that nobody here asks for. The last release of
    visdom does not build with a current setuptools, which is also why adv-lib is no part of the
    extra. An empty module serves where it is missing.
    """
    if module.startswith("adv_lib") and find_spec("visdom") is None:
        sys.modules["visdom"] = types.ModuleType("visdom")
        sys.modules["visdom"].__spec__ = importlib.machinery.ModuleSpec("visdom", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", SyntaxWarning)
        return importlib.import_module(module)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Peers draw from the global generators: seed them, and leave them as they were."""
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)
