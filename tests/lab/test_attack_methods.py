"""Each attack on models whose nearest adversarial image is known in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pclc_fast.lab.attacks import attack_images, evaluate
from pclc_fast.lab.attacks.balls import distances, norms
from pclc_fast.lab.attacks.objectives import OBJECTIVES, objective, rescale
from pclc_fast.lab.attacks.preset import Preset, Spec
from pclc_fast.lab.attacks.result import Norm

GRADIENT: dict[str, tuple[str, dict[str, Any]]] = {
    "fgsm": ("fgsm", {}),
    "bim": ("bim", {"steps": 10, "step_size": 0.2, "per_epsilon": True}),
    "pgd": ("pgd", {"steps": 20, "step_size": 0.2, "per_epsilon": True}),
    "pgd-margin": ("pgd", {"steps": 20, "step_size": 0.2, "per_epsilon": True, "loss": "margin"}),
    "pgd-rescaled": (
        "pgd",
        {"steps": 20, "step_size": 0.2, "per_epsilon": True, "rescaled": True},
    ),
    "mim": ("mim", {"steps": 10, "step_size": 0.2, "per_epsilon": True}),
    "apgd-ce": ("apgd", {"steps": 30}),
    "apgd-t": ("apgd", {"steps": 30, "loss": "margin", "targets": 9}),
    "multi-targeted": ("multi-targeted", {"steps": 30, "targets": 9}),
    "focused": (
        "focused",
        {"scouting": 10, "scouts": 9, "steps": 30, "targets": 2, "restarts": 2},
    ),
    "md": ("margin-decomposition", {"steps": 40}),
    "spsa": ("spsa", {"steps": 60, "samples": 32}),
}
SCORES: dict[str, tuple[str, dict[str, Any]]] = {
    "square": ("square", {"queries": 300}),
}


class Linear(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T + self.bias


def problem(norm: Norm, classes: int = 2) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A linear model; images far from 0 and 1; labels; the distance at which each is fooled."""
    rng = torch.Generator().manual_seed(classes)
    weight = torch.randn(classes, 12, generator=rng)
    images = torch.rand(24, 1, 3, 4, generator=rng) * 0.1 + 0.45
    bias = -(weight * 0.5).sum(dim=1)
    model = Linear(weight, bias).eval()
    logits = model(images).detach()
    labels = logits.argmax(dim=1)
    across = weight[labels].unsqueeze(1) - weight  # [N, K, 12]
    size = across.abs().sum(dim=2) if norm == "Linf" else across.norm(dim=2)
    apart = logits.gather(1, labels.unsqueeze(1)) - logits
    nearest = (apart / size).nan_to_num(torch.inf).masked_fill(size == 0, torch.inf)
    return model, images, labels, nearest.min(dim=1).values.double()


@pytest.mark.parametrize("name", [*GRADIENT, *SCORES])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_linear_model_falls_at_its_exact_margin(name: str, norm: Norm) -> None:
    attack, settings = {**GRADIENT, **SCORES}[name]
    if norm == "L2" and attack in ("square", "spsa"):
        pytest.skip("moves along signs")
    model, images, labels, nearest = problem(norm)
    for factor, expected in ((0.98, False), (1.1, True)):
        for line in range(0, len(images), 4):
            epsilon = nearest[line].item() * factor
            found = attack_images(
                model,
                images[line : line + 1],
                labels[line : line + 1],
                attack,
                epsilon=epsilon,
                norm=norm,
                **settings,
            )
            assert found.fooled.item() is expected
            if expected:
                changed = found.images
                assert distances(norm, changed, images[line : line + 1]).item() <= epsilon
                assert (model(changed).argmax(dim=1) != labels[line]).all()


@pytest.mark.parametrize("name", ["apgd-t", "multi-targeted", "focused"])
def test_with_many_classes_the_nearest_one_is_reached_too(name: str) -> None:
    attack, settings = GRADIENT[name]
    model, images, labels, nearest = problem("Linf", classes=10)
    for line in range(6):
        for factor, expected in ((0.98, False), (1.03, True)):
            part = slice(line, line + 1)
            epsilon = nearest[line].item() * factor
            found = attack_images(
                model, images[part], labels[part], attack, epsilon=epsilon, **settings
            )
            assert found.fooled.item() is expected


def test_fgsm_takes_the_whole_budget_along_the_sign() -> None:
    model, images, labels, _ = problem("Linf")
    found = attack_images(model, images, labels, "fgsm", epsilon=0.01)
    assert isinstance(model, Linear)
    ahead = (model.weight[1 - labels] - model.weight[labels]).sign().reshape(images.shape)
    torch.testing.assert_close(found.images, images + 0.01 * ahead, rtol=0, atol=1e-7)


def test_carlini_and_wagner_find_the_distance_to_the_plane() -> None:
    model, images, labels, nearest = problem("L2")
    found = attack_images(
        model, images, labels, "cw", epsilon=10.0, norm="L2", steps=150, lr=0.001, search_steps=9
    )
    assert found.fooled.all()
    distance = norms(found.images - images)
    assert (distance >= nearest * 0.9999).all()
    assert (distance <= nearest * 1.05).all()


def test_carlini_and_wagner_keep_to_their_confidence_and_budget() -> None:
    model, images, labels, nearest = problem("L2")
    options: dict[str, Any] = {"norm": "L2", "steps": 100, "lr": 0.01, "search_steps": 6}
    sure = attack_images(model, images, labels, "cw", epsilon=10.0, confidence=0.5, **options)
    logits = model(sure.images)
    apart = (logits.gather(1, 1 - labels.unsqueeze(1)) - logits.gather(1, labels.unsqueeze(1)))[
        :, 0
    ]
    assert sure.fooled.all()
    assert (apart >= 0.5).all()
    median = nearest.median().item()
    near = attack_images(model, images, labels, "cw", epsilon=median, **options)
    assert not near.fooled[nearest > median].any()
    assert near.fooled[nearest < 0.9 * median].all()


def test_spsa_estimates_the_slope() -> None:
    """Of a linear margin the estimate is the mean of (w . v) v over its directions v."""
    model, images, labels, nearest = problem("Linf")
    assert isinstance(model, Linear)
    epsilon = nearest.max().item() * 0.5
    found = attack_images(
        model, images, labels, "spsa", epsilon=epsilon, steps=40, samples=200, lr=0.005
    )
    ahead = (model.weight[1 - labels] - model.weight[labels]).reshape(images.shape)
    stays = ~found.fooled
    steep = ahead[stays].abs() > 0.5
    moved = (found.images - images)[stays]
    assert (moved.sign() == ahead[stays].sign())[steep].all()
    assert moved.abs()[steep].min() > 0.9 * epsilon


def test_a_transfer_follows_the_substitute_alone() -> None:
    model, images, labels, nearest = problem("Linf")
    assert isinstance(model, Linear)
    opposite = Linear(-model.weight.detach(), -model.bias.detach()).eval()
    settings: dict[str, Any] = {"method": "pgd", "steps": 10, "step_size": 0.3, "per_epsilon": True}
    epsilon = nearest.max().item() * 1.1
    options = {"epsilon": epsilon, **settings}
    same = attack_images(model, images, labels, "transfer", substitute=model, **options)
    assert same.fooled.all()
    wrong = attack_images(model, images, labels, "transfer", substitute=opposite, **options)
    assert not wrong.fooled.any()


def test_random_noise_is_weaker_than_any_gradient() -> None:
    model, images, labels, nearest = problem("Linf")
    epsilon = nearest.median().item() * 1.2
    noise = attack_images(model, images, labels, "random-noise", epsilon=epsilon, tries=50)
    exact = nearest < epsilon
    assert not noise.fooled[~exact].any()
    assert noise.fooled.sum() < exact.sum()


def test_squares_need_no_square_images() -> None:
    rng = torch.Generator().manual_seed(0)
    for shape in ((3, 5, 2), (6,), (1, 1, 1)):
        size = torch.Size(shape).numel()
        model = Linear(torch.randn(2, size, generator=rng) + 3, torch.zeros(2)).eval()
        images = torch.rand(8, *shape, generator=rng)
        labels = model(images).argmax(dim=1)
        found = attack_images(model, images, labels, "square", epsilon=0.2, queries=30)
        assert (distances("Linf", found.images, images) <= 0.2).all()


class Decoy(nn.Module):
    """One false class stays near and never wins; the others are far away, but can be reached.

    Untargeted losses follow the near one, away from the others. PC-LC does that to LeNet-5.
    """

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        near = 5 - 0.1 * x[:, 1:3].sum(dim=1, keepdim=True)
        far = 600 * (x[:, 1:3] - 0.5) - 50
        return torch.cat([torch.full_like(near, 10.0), near, far], dim=1)


def test_a_decoy_class_fools_one_gradient_and_not_all_targets() -> None:
    images, labels = torch.full((8, 1, 2, 2), 0.5), torch.zeros(8, dtype=torch.int64)
    settings = {"steps": 40, "step_size": 0.05, "per_epsilon": True}
    options: dict[str, Any] = {"epsilon": 0.12, "random_start": False, **settings}
    for loss in ("ce", "margin", "dlr"):
        found = attack_images(Decoy().eval(), images, labels, "pgd", loss=loss, **options)
        assert not found.fooled.any()
    result = evaluate(Decoy().eval(), images, labels, eps=0.12)
    assert result.worst_case(0.12).correct == 0


def test_a_saturated_softmax_hides_nothing_from_rescaled_logits() -> None:
    model, images, labels, nearest = problem("Linf", classes=10)
    steep = Linear(model.weight.detach() * 1e4, model.bias.detach() * 1e4).eval()  # type: ignore[operator]
    epsilon = nearest.max().item() * 1.2
    options: dict[str, Any] = {"steps": 20, "step_size": 0.2, "per_epsilon": True}
    plain = attack_images(steep, images, labels, "bim", epsilon=epsilon, **options)
    assert plain.fooled.sum() < len(images) // 2
    assert evaluate(steep, images, labels, eps=epsilon).worst_case(epsilon).correct == 0


def test_objectives_rise_where_a_false_logit_does(rng: torch.Generator) -> None:
    logits = torch.randn(64, 6, generator=rng, dtype=torch.float64)
    ranked = logits.argsort(dim=1, descending=True)
    labels, targets = ranked[:, 0], ranked[:, 1]
    step = torch.full((64, 1), 1e-3, dtype=torch.float64)
    higher = logits.scatter_add(1, targets.unsqueeze(1), step)
    for name in set(OBJECTIVES) - {"pc-lc"}:  # whose constraint rewards a large gap
        climbed = objective(name)
        assert (climbed(higher, labels, None) > climbed(logits, labels, None)).all(), name
        assert (climbed(higher, labels, targets) > climbed(logits, labels, targets)).all(), name


def test_objectives_by_their_formulas() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0, -2.0]])
    labels, targets = torch.tensor([0]), torch.tensor([2])
    f = logits.softmax(dim=1)[0]
    expected = {
        ("ce", None): -f[0].log(),
        ("ce", 2): f[2].log(),
        ("exact-ce", None): -f[0].log(),
        ("margin", None): -2.0,
        ("margin", 2): -3.0,
        ("prob-margin", None): f[1] - f[0],
        ("prob-margin", 2): f[2] - f[0],
        ("dlr", None): -2.0 / 3.0,
        ("dlr", 2): -3.0 / 4.0,
        ("pc-lc", None): (f[1:] + 0.995 - f[0]).clamp(min=0).sum() + 0.05 * 2,
    }
    for (name, target), value in expected.items():
        found = objective(name)(logits, labels, targets if target else None)
        assert found.item() == pytest.approx(float(value), rel=1e-5), (name, target)


def test_rescaling_keeps_the_order_and_bounds_the_spread(rng: torch.Generator) -> None:
    logits = torch.randn(32, 10, generator=rng) * 10 ** torch.linspace(-6, 6, 32).unsqueeze(1)
    scaled = rescale(logits)
    assert scaled.argsort(dim=1).equal(logits.argsort(dim=1))
    torch.testing.assert_close(rescale(1e3 * logits), scaled, rtol=1e-4, atol=1e-4)
    assert scaled.softmax(dim=1).max() < 0.999
    masked = torch.tensor([[1.0, 0.0, -torch.inf]])
    assert rescale(masked)[0, :2].isfinite().all()
    assert rescale(torch.ones(1, 3)).isfinite().all()


def test_an_attack_of_ones_own_settings_is_a_preset() -> None:
    model, images, labels, nearest = problem("L2")
    specs = (Spec("mine", "Mine", "pgd", {"steps": 20, "step_size": 0.2, "per_epsilon": True}),)
    ranked = nearest.sort().values
    epsilon = (ranked[11] + ranked[12]).item() / 2
    result = evaluate(model, images, labels, eps=epsilon, norm="L2", preset=Preset("own", specs))
    assert result.worst_case(epsilon).correct == int((nearest > epsilon).sum())
    assert result.attacks[0].settings == {
        "attack": "pgd", "steps": 20, "step_size": 0.2, "per_epsilon": True
    }  # fmt: skip
