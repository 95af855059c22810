"""The attacks stay inside their budget, and they work."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pclc_fast.lab.attacks import budget, fgsm, pgd
from pclc_fast.lab.digits import DigitsData

EPSILONS = (0.0, 0.05, 0.1, 0.3, 1.0)
Attack = Callable[..., Tensor]


def seeded_pgd(*args: object, steps: int = 10, **kwargs: object) -> Tensor:
    return pgd(*args, steps=steps, generator=torch.Generator().manual_seed(0), **kwargs)  # type: ignore[arg-type]


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    return (model(images).argmax(dim=1) == labels).double().mean().item()


@pytest.mark.parametrize("attack", [fgsm, seeded_pgd])
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_pixels_stay_within_the_budget_exactly(
    attack: Attack, epsilon: float, undefended: nn.Module, rng: torch.Generator
) -> None:
    images = torch.rand(256, 1, 8, 8, generator=rng)
    attacked = attack(undefended, images, torch.arange(256) % 10, epsilon=epsilon)
    assert attacked.dtype == torch.float32
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert (attacked.double() - images.double()).abs().max() <= epsilon
    if 0 < epsilon < 1:  # plain float32 arithmetic leaves the budget on these images
        assert ((images + epsilon).double() - images.double()).max() > epsilon


def test_the_budget_is_used_up_to_one_rounding(rng: torch.Generator) -> None:
    images = torch.rand(1000, generator=rng).mul_(0.5).add_(0.25)
    low, high = budget(images, 0.1)
    assert ((high.double() - images.double()) > 0.1 - 1e-7).all()
    assert ((images.double() - low.double()) > 0.1 - 1e-7).all()


def test_fgsm_is_one_step_along_the_sign_of_the_gradient(
    undefended: nn.Module, data: DigitsData
) -> None:
    images, labels = data.test_images[:50].clone().requires_grad_(), data.test_labels[:50]
    F.cross_entropy(undefended(images), labels, reduction="sum").backward()
    assert images.grad is not None
    clear = images.grad.abs() > 1e-6  # where rounding cannot turn the sign
    expected = (images.detach() + 0.1 * images.grad.sign()).clamp(0, 1)
    attacked = fgsm(undefended, data.test_images[:50], labels, epsilon=0.1)
    assert clear.double().mean() > 0.5
    torch.testing.assert_close(attacked[clear], expected[clear], rtol=0, atol=1e-6)


def test_attacks_fool_an_undefended_model_and_pgd_fools_most(
    undefended: nn.Module, data: DigitsData
) -> None:
    measure = functools.partial(accuracy, undefended, labels=data.test_labels)
    clean = measure(data.test_images)
    assert clean > 0.9
    one_step, many_steps = [], []
    for epsilon in (0.05, 0.1, 0.15, 0.2):
        arguments = (undefended, data.test_images, data.test_labels)
        one_step.append(measure(fgsm(*arguments, epsilon=epsilon)))
        many_steps.append(measure(seeded_pgd(*arguments, epsilon=epsilon)))
    assert clean > one_step[0] > one_step[1] > one_step[2] > one_step[3]
    assert all(many <= one for one, many in zip(one_step, many_steps, strict=True))
    assert many_steps[2] < one_step[2] - 0.02


def test_where_the_gradient_is_zero_only_the_random_start_moves() -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.sum(dim=1, keepdim=True) * torch.zeros(1, 10)

    images, labels = torch.full((100, 4), 0.5), torch.zeros(100, dtype=torch.int64)
    assert fgsm(Constant(), images, labels, epsilon=0.1).equal(images)
    moved = seeded_pgd(Constant(), images, labels, epsilon=0.1) - images
    assert moved.abs().max() > 0.095
    assert moved.mean().abs() < 0.01


def test_a_saturated_softmax_still_has_a_gradient() -> None:
    class OnlyTheTrueLogit(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return F.pad(40 * images, (0, 1))  # logits 20 and 0: f_y is 1 in float32

    images, labels = torch.full((1, 1), 0.5), torch.zeros(1, dtype=torch.int64)
    assert fgsm(OnlyTheTrueLogit(), images, labels, epsilon=0.1).item() == pytest.approx(0.4)


def test_a_seed_decides_the_random_start(undefended: nn.Module, data: DigitsData) -> None:
    def attack(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        images, labels = data.test_images[:20], data.test_labels[:20]
        return pgd(undefended, images, labels, epsilon=0.1, steps=2, generator=generator)

    assert attack(0).equal(attack(0))
    assert not attack(0).equal(attack(1))


def test_neither_images_nor_model_are_touched(undefended: nn.Module, data: DigitsData) -> None:
    images = data.test_images[:20].clone()
    undefended.zero_grad()
    for attack in (fgsm, seeded_pgd):
        attacked = attack(undefended, images, data.test_labels[:20], epsilon=0.1)
        assert not attacked.requires_grad
    assert images.equal(data.test_images[:20])
    assert not images.requires_grad
    assert all(parameter.grad is None for parameter in undefended.parameters())
