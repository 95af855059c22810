"""Our attacks against those of foolbox, ART and adv-lib, on the same model, images and settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from benchmarks.peers import from_adv_lib, from_art, from_foolbox, missing
from pclc_fast.lab.attacks import Preset, Spec, evaluate
from pclc_fast.lab.digits import DigitsData

MODULES: dict[str, Any] = {"foolbox": from_foolbox, "ART": from_art, "adv-lib": from_adv_lib}
EPSILONS = (0.05, 0.1, 0.15)  # between nearly all images standing and nearly none
POINT = 0.01


class Victim(NamedTuple):
    """A model, and the images that it knows."""

    model: nn.Module
    images: Tensor
    labels: Tensor

    def fooled_by(self, images: Tensor, epsilon: float = 1.0) -> Tensor:
        """Which of a peer's images fool the model: [N], bool."""
        assert (images - self.images).abs().max() <= epsilon + 1e-6
        with torch.no_grad():
            found: Tensor = self.model(images).argmax(dim=1) != self.labels
        return found


class Ours(NamedTuple):
    fooled: Tensor  # [N], bool
    images: Tensor  # [N, ...]; the clean ones where nothing was found


@pytest.fixture(scope="module")
def victim(undefended: nn.Module, data: DigitsData) -> Victim:
    undefended.eval()
    with torch.no_grad():
        correct = undefended(data.test_images).argmax(dim=1) == data.test_labels
    return Victim(undefended, data.test_images[correct], data.test_labels[correct])


def peer(library: str, attack: str) -> Callable[..., Tensor]:
    """A peer's attack; skips the test where the peer is not installed."""
    reason = missing(library)
    if reason:
        pytest.skip(reason)
    found: Callable[..., Tensor] = getattr(MODULES[library], attack)
    return found


def ours(
    victim: Victim, attack: str, epsilon: float | None, *, seed: int = 0, **settings: Any
) -> Ours:
    """One attack, through the function that users call."""
    spec = Spec(attack, attack, attack, settings, norm="L2" if epsilon is None else "Linf")
    result = evaluate(
        victim.model,
        victim.images,
        victim.labels,
        eps=epsilon,
        preset=Preset("one", (spec,)),
        seed=seed,
    )
    assert result.adversarial is not None
    fooled = torch.zeros_like(victim.labels, dtype=torch.bool)
    fooled[result.cells[0].fooled] = True
    images = victim.images.clone()
    images[result.adversarial.position] = result.adversarial.images
    return Ours(fooled, images)


def assert_same_images(found: Ours, peers: Tensor, victim: Victim) -> None:
    """The same images fool, and they are the same up to the rounding of float32."""
    torch.testing.assert_close(found.fooled, victim.fooled_by(peers))
    assert 0 < found.fooled.sum() < len(found.fooled)
    torch.testing.assert_close(found.images[found.fooled], peers[found.fooled], rtol=0, atol=1e-6)


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("library", MODULES)
def test_fgsm_gives_the_same_images(library: str, epsilon: float, victim: Victim) -> None:
    peers = peer(library, "fgsm")(victim.model, victim.images, victim.labels, epsilon=epsilon)
    assert_same_images(ours(victim, "fgsm", epsilon), peers, victim)


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("library", ["foolbox", "ART"])
@pytest.mark.parametrize(
    "settings", [{"steps": 10, "step_size": 0.01}, {"steps": 40, "step_size": 0.013}]
)
def test_bim_and_pgd_without_a_random_start_give_the_same_images(
    settings: dict[str, Any], library: str, epsilon: float, victim: Victim
) -> None:
    peers = peer(library, "pgd")(*victim, epsilon=epsilon, random_start=False, **settings)
    for attack in ({"attack": "bim"}, {"attack": "pgd", "random_start": False}):
        found = ours(victim, epsilon=epsilon, iterate="last", **attack, **settings)
        assert_same_images(found, peers, victim)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_pgd_whose_every_iterate_counts_fools_the_same_images(
    epsilon: float, victim: Victim
) -> None:
    settings = {"steps": 40, "step_size": 0.013, "random_start": False}
    peers = peer("adv-lib", "pgd")(*victim, epsilon=epsilon, **settings)
    found = ours(victim, "pgd", epsilon, iterate="any", **settings)
    torch.testing.assert_close(found.fooled, victim.fooled_by(peers, epsilon))


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_mim_gives_the_same_images(decay: float, epsilon: float, victim: Victim) -> None:
    settings = {"steps": 40, "step_size": 0.01, "decay": decay}
    peers = peer("ART", "mim")(*victim, epsilon=epsilon, **settings)
    assert_same_images(ours(victim, "mim", epsilon, iterate="last", **settings), peers, victim)
