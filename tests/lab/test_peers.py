"""Our attacks against those of foolbox, ART and adv-lib, on the same model, images and settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from benchmarks import attack_loops
from benchmarks.peers import from_adv_lib, from_art, from_foolbox, missing
from pclc_fast.lab.attacks import Preset, Result, Spec, evaluate
from pclc_fast.lab.digits import DigitsData

MODULES: dict[str, Any] = {"foolbox": from_foolbox, "ART": from_art, "adv-lib": from_adv_lib}
EPSILONS = (0.05, 0.1, 0.15)  # between nearly all images standing and nearly none
# Two images of 433. From seed to seed the share that PGD or APGD fools varies by 0.1 to 0.5 points
# (means of three are compared), the share that Square fools by 0.6 (of eight).
NOISE = 0.005


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


def evaluated(
    victim: Victim, attack: str, epsilon: float | None, *, seed: int = 0, **settings: Any
) -> Result:
    """One attack, through the function that users call; epsilon None: the nearest in L2."""
    is_nearest = epsilon is None
    spec = Spec(attack, attack, attack, settings, has_budget=not is_nearest)
    return evaluate(
        victim.model,
        victim.images,
        victim.labels,
        eps=epsilon,
        norm="L2" if is_nearest else "Linf",
        preset=Preset("one", (spec,)),
        seed=seed,
    )


def ours(victim: Victim, attack: str, epsilon: float, **settings: Any) -> Ours:
    result = evaluated(victim, attack, epsilon, **settings)
    assert result.adversarial is not None
    fooled = torch.zeros_like(victim.labels, dtype=torch.bool)
    fooled[result.cells[0].fooled] = True
    images = victim.images.clone()
    images[result.adversarial.position] = result.adversarial.images
    return Ours(fooled, images)


def rate(fooled: Callable[[int], Tensor], seeds: int = 3) -> float:
    """The share of images that an attack fools, mean over seeds."""
    return torch.stack([fooled(seed).double().mean() for seed in range(seeds)]).mean().item()


def peers_rate(
    victim: Victim, attack: Callable[..., Tensor], epsilon: float, seeds: int = 3, **settings: Any
) -> float:
    def fooled(seed: int) -> Tensor:
        return victim.fooled_by(attack(*victim, epsilon=epsilon, seed=seed, **settings), epsilon)

    return rate(fooled, seeds)


def assert_as_many(found: float, peers: float) -> None:
    """Within a point of accuracy, and not weaker by more than seeds can make it."""
    assert abs(found - peers) <= 0.01
    assert found >= peers - NOISE


def assert_same_images(found: Ours, peers: Tensor, victim: Victim) -> None:
    """The same images fool, and they are the same up to the rounding of float32."""
    torch.testing.assert_close(found.fooled, victim.fooled_by(peers))
    assert 0 < found.fooled.sum() < len(found.fooled)
    torch.testing.assert_close(found.images[found.fooled], peers[found.fooled], rtol=0, atol=1e-6)


@pytest.mark.parametrize("library", MODULES)
def test_fgsm_gives_the_same_images(library: str, victim: Victim) -> None:
    attack = peer(library, "fgsm")
    for epsilon in EPSILONS:
        peers = attack(*victim, epsilon=epsilon)
        assert_same_images(ours(victim, "fgsm", epsilon), peers, victim)


@pytest.mark.parametrize("library", ["foolbox", "ART"])
@pytest.mark.parametrize(("epsilon", "steps", "step_size"), [(0.15, 10, 0.01), (0.1, 25, 0.013)])
def test_bim_and_pgd_without_a_random_start_give_the_same_images(
    epsilon: float, steps: int, step_size: float, library: str, victim: Victim
) -> None:
    settings = {"steps": steps, "step_size": step_size}
    peers = peer(library, "pgd")(*victim, epsilon=epsilon, random_start=False, **settings)
    bim = ours(victim, "bim", epsilon, iterate="last", **settings)
    pgd = ours(victim, "pgd", epsilon, iterate="last", random_start=False, **settings)
    assert_same_images(bim, peers, victim)
    assert_same_images(pgd, peers, victim)


def test_pgd_whose_every_iterate_counts_fools_the_same_images(victim: Victim) -> None:
    settings = {"steps": 25, "step_size": 0.013, "random_start": False}
    attack = peer("adv-lib", "pgd")
    for epsilon in EPSILONS[:2]:
        peers = attack(*victim, epsilon=epsilon, **settings)
        found = ours(victim, "pgd", epsilon, iterate="any", **settings)
        torch.testing.assert_close(found.fooled, victim.fooled_by(peers, epsilon))


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_mim_gives_the_same_images(decay: float, victim: Victim) -> None:
    settings = {"steps": 20, "step_size": 0.01, "decay": decay}
    peers = peer("ART", "mim")(*victim, epsilon=0.1, **settings)
    assert_same_images(ours(victim, "mim", 0.1, iterate="last", **settings), peers, victim)


@pytest.mark.parametrize("library", MODULES)
def test_pgd_from_random_starts_fools_as_many(library: str, victim: Victim) -> None:
    settings = {"steps": 20, "step_size": 0.01, "random_start": True}
    iterate = "any" if library == "adv-lib" else "last"
    fool = partial(ours, victim, "pgd", 0.1, iterate=iterate, **settings)
    assert_as_many(
        rate(lambda seed: fool(seed=seed).fooled),
        peers_rate(victim, peer(library, "pgd"), 0.1, **settings),
    )


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("library", ["ART", "adv-lib"])
def test_apgd_fools_as_many(library: str, loss: str, victim: Victim) -> None:
    settings = {"steps": 25, "loss": loss}
    assert_as_many(
        rate(lambda seed: ours(victim, "apgd", 0.1, seed=seed, **settings).fooled),
        peers_rate(victim, peer(library, "apgd"), 0.1, **settings),
    )


def test_apgd_towards_each_class_fools_as_many(victim: Victim) -> None:
    settings = {"steps": 10, "loss": "dlr", "targets": 9}
    assert_as_many(
        rate(lambda seed: ours(victim, "apgd", 0.1, seed=seed, **settings).fooled, seeds=1),
        peers_rate(victim, peer("adv-lib", "apgd_targeted"), 0.1, steps=10, seeds=1),
    )


def test_square_fools_as_many_as_a_loop_from_the_paper(victim: Victim) -> None:
    assert_as_many(
        rate(lambda seed: ours(victim, "square", 0.1, seed=seed, queries=50).fooled, seeds=8),
        peers_rate(victim, attack_loops.square, 0.1, queries=50, seeds=8),
    )


def test_square_is_not_weaker_than_that_of_a_peer(victim: Victim) -> None:
    """ART's squares miss the last row and column, and its stripes count only where they help."""
    peers = peers_rate(victim, peer("ART", "square"), 0.1, queries=50, p_init=0.8)
    found = rate(lambda seed: ours(victim, "square", 0.1, seed=seed, queries=50).fooled)
    assert found > peers - NOISE


class Nearest(NamedTuple):
    """The L2 distances of what C&W found [N]: infinite where it found nothing."""

    ours: Tensor
    peers: Tensor


def carlini_wagner(victim: Victim, library: str, images: int, **of_the_peer: Any) -> Nearest:
    """The first images, 100 steps for each of 4 constants."""
    few = Victim(victim.model, victim.images[:images], victim.labels[:images])
    settings = {"steps": 100, "search_steps": 4}
    attacked = peer(library, "cw_l2")(*few, initial_const=0.1, **settings, **of_the_peer)
    fooled = few.fooled_by(attacked) & (attacked != 0).flatten(1).any(dim=1)  # black: none found
    distance = (attacked - few.images).flatten(1).norm(dim=1)
    cell = evaluated(few, "cw", None, lr=0.02, first_c=0.1, **settings).cells[0]
    ours = torch.full_like(distance, torch.inf)
    ours[cell.fooled] = torch.tensor(cell.distance).float()
    return Nearest(ours, distance.where(fooled, torch.inf))


@pytest.mark.parametrize("library", ["foolbox", "adv-lib"])
def test_carlini_wagner_finds_images_as_near(library: str, victim: Victim) -> None:
    found = carlini_wagner(victim, library, 100, step_size=0.02, abort_early=True)
    by_peer = found.peers.isfinite()
    assert found.ours.isfinite().sum() >= by_peer.sum() > 90
    ratio = (found.ours / found.peers)[by_peer]
    assert ratio.mean() < 1.001
    assert ratio.max() < 1.01


def test_carlini_wagner_finds_images_not_farther_than_with_searched_steps(victim: Victim) -> None:
    """ART's step lengths are searched, Adam's are not: no image by image comparison."""
    found = carlini_wagner(victim, "ART", 12, step_size=0.02)
    by_peer = found.peers.isfinite()
    assert found.ours.isfinite().sum() >= by_peer.sum() > 8
    assert found.ours[by_peer].mean() < found.peers[by_peer].mean()
