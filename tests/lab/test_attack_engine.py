"""The engine against loops without its economies, and the arithmetic of budgets and numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pclc_fast.lab.attacks import attack_images
from pclc_fast.lab.attacks.apgd import AutoSteps, checkpoints
from pclc_fast.lab.attacks.balls import BALLS, L2Ball, LinfBall, budget, distances
from pclc_fast.lab.attacks.engine import Found, Lanes, Task
from pclc_fast.lab.attacks.gradient import mim, pgd
from pclc_fast.lab.attacks.network import Looked, Network, equal_parts
from pclc_fast.lab.attacks.noise import Noise
from pclc_fast.lab.attacks.result import Norm
from pclc_fast.lab.attacks.tracing import trace
from pclc_fast.lab.digits import DigitsData
from pclc_fast.lab.models import build_model

NOISE = Noise(0).child("pgd")  # of attack_images for seed 0


def task_of(
    model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, norm: Norm = "Linf"
) -> Task:
    network = Network(model, batch_size=256)
    sizes = torch.full((len(images),), epsilon, dtype=torch.float64)
    ball = BALLS[norm].around(images, sizes)
    positions = torch.arange(len(images))
    return Task(network, labels, network.logits(images), ball, positions, NOISE)


@pytest.fixture(scope="module")
def correct(undefended: nn.Module, data: DigitsData) -> tuple[Tensor, Tensor]:
    images, labels = data.test_images, data.test_labels
    is_correct = undefended(images).argmax(dim=1) == labels
    return images[is_correct][:256], labels[is_correct][:256]


def naive(
    model: nn.Module,
    start: Tensor,
    labels: Tensor,
    low: Tensor,
    high: Tensor,
    *,
    steps: int,
    size: float,
    decay: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The usual loop: every image takes every step. The first iterate that fools counts."""
    images, velocity = start, torch.zeros_like(start)
    fooled, at = torch.zeros(len(labels), dtype=torch.bool), torch.full((len(labels),), -1)
    kept = start.clone()
    for step in range(steps + 1):
        images = images.detach().requires_grad_()
        logits = model(images)
        is_new = (logits.argmax(dim=1) != labels) & ~fooled
        kept[is_new], at[is_new] = images.detach()[is_new], step
        fooled = fooled | is_new
        F.cross_entropy(logits, labels, reduction="sum").backward()
        assert images.grad is not None
        direction = images.grad
        if decay is not None:
            norm = direction.abs().sum(dim=(1, 2, 3), keepdim=True)
            velocity = decay * velocity + torch.where(norm > 0, direction / norm, 0.0)
            direction = velocity
        images = torch.clamp(images.detach() + size * direction.sign(), low, high)
    return fooled, kept, at


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_an_image_gets_the_same_however_many_are_left(threads: int) -> None:
    """To the last bit, also where the fastest kernels for so many would add in another order."""
    images = torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64) % 10
    network = Network(
        build_model("lenet5", (1, 28, 28), 10, mean=[0.1], std=[0.3], seed=0).eval(), 64
    )

    def look(count: int) -> Looked:
        return network.look(
            images[:count],
            lambda logits: F.cross_entropy(logits, labels[:count], reduction="none"),
        )

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = look(64)
        for count in range(1, 40):
            part = look(count)
            assert part.logits.equal(whole.logits[:count])
            assert part.gradient is not None
            assert whole.gradient is not None
            assert part.gradient.equal(whole.gradient[:count])
            assert network.logits(images[:count]).equal(whole.logits[:count])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("count", "sizes"), [(0, [0]), (5, [5]), (6, [3, 3]), (11, [4, 4, 3])])
def test_parts_are_as_long_as_each_other(count: int, sizes: list[int]) -> None:
    lines = torch.arange(count)
    parts = equal_parts(lines, 5)
    assert [len(part) for part in parts] == sizes
    assert torch.cat(parts).equal(lines)


@pytest.mark.parametrize("decay", [None, 1.0])
@pytest.mark.parametrize("epsilon", [0.05, 0.15])
def test_leaving_early_changes_nothing_but_the_cost(
    undefended: nn.Module, correct: tuple[Tensor, Tensor], epsilon: float, decay: float | None
) -> None:
    images, labels = correct
    task = task_of(undefended, images, labels, epsilon)
    size, steps = epsilon / 8, 20
    before = task.network.forwards
    if decay is None:
        found = pgd(task, steps=steps, step_size=size)
        noise = NOISE.uniform(torch.arange(len(images)), 0, images.shape[1:])
        start = torch.clamp(images + epsilon * (2 * noise - 1), *budget(images, epsilon))
    else:
        found, start = mim(task, steps=steps, step_size=size, decay=decay), images
    options = {"steps": steps, "size": size, "decay": decay}
    fooled, kept, at = naive(undefended, start, labels, *budget(images, epsilon), **options)
    assert fooled.any()
    assert not fooled.all()
    assert found.fooled.equal(fooled)
    assert found.step.equal(at)
    assert found.images[fooled].equal(kept[fooled])  # to the last bit
    forwards, backwards = task.network.forwards - before, task.network.backwards
    assert forwards < found.naive_forwards == len(images) * (steps + 1)
    assert backwards < found.naive_backwards == len(images) * steps
    # An image that is fooled at a step took part in that look, and in none after it.
    assert forwards == sum(int(a) + 1 if a >= 0 else steps + 1 for a in at)


def test_an_undefended_model_costs_a_third_of_the_naive_loop(
    undefended: nn.Module, correct: tuple[Tensor, Tensor]
) -> None:
    task = task_of(undefended, *correct, 0.2)
    before = task.network.forwards + task.network.backwards
    found = pgd(task, steps=40, step_size=0.01)
    cost = task.network.forwards + task.network.backwards - before
    assert 3 * cost < found.naive_forwards + found.naive_backwards


def test_a_batch_of_one_and_of_all_find_the_same(
    undefended: nn.Module, correct: tuple[Tensor, Tensor]
) -> None:
    images, labels = correct
    options = {"epsilon": 0.1, "steps": 8, "step_size": 0.3, "per_epsilon": True, "restarts": 2}
    whole = attack_images(undefended, images, labels, "pgd", batch_size=512, **options)
    parts = attack_images(undefended, images, labels, "pgd", batch_size=20, **options)
    assert whole.fooled.equal(parts.fooled)
    assert whole.step.equal(parts.step)
    assert whole.images.equal(parts.images)


def test_restarts_in_a_batch_find_what_one_after_the_other_find(
    undefended: nn.Module, correct: tuple[Tensor, Tensor]
) -> None:
    images, labels = correct
    task = task_of(undefended, images, labels, 0.06)
    together = pgd(task, steps=5, step_size=0.015, restarts=3)
    alone = []
    for run in range(3):
        noise = NOISE.uniform(torch.arange(len(images)), run, images.shape[1:])
        start = torch.clamp(images + 0.06 * (2 * noise - 1), *budget(images, 0.06))
        options = {"steps": 5, "size": 0.015, "decay": None}
        alone.append(naive(undefended, start, labels, *budget(images, 0.06), **options))
    steps = torch.stack([at.where(at >= 0, 99) for _, _, at in alone])
    earliest = steps.min(dim=0)
    assert together.fooled.equal(torch.stack([fooled for fooled, _, _ in alone]).any(dim=0))
    assert together.step[together.fooled].equal(earliest.values[together.fooled])
    kept = torch.stack([kept for _, kept, _ in alone])
    first = kept[(steps == earliest.values).int().argmax(dim=0), torch.arange(len(images))]
    assert together.images[together.fooled].equal(first[together.fooled])


def test_the_last_iterate_counts_where_that_is_asked_for(
    undefended: nn.Module, correct: tuple[Tensor, Tensor]
) -> None:
    images, labels = correct
    task = task_of(undefended, images, labels, 0.1)
    found = pgd(task, steps=5, step_size=0.1, iterate="last")
    assert found.fooled.equal(undefended(found.images).argmax(dim=1) != labels)
    assert set(found.step[found.fooled].tolist()) == {5}
    some = pgd(task, steps=5, step_size=0.1)
    assert (some.fooled | ~found.fooled).all()


def test_what_happened_at_each_step_adds_up(
    undefended: nn.Module, correct: tuple[Tensor, Tensor]
) -> None:
    images, labels = correct
    found = pgd(task_of(undefended, images, labels, 0.1), steps=6, step_size=0.025)
    seen = trace(found.sums)
    assert seen.active[0] == len(images)
    for step in range(6):
        assert seen.active[step + 1] == seen.active[step] - seen.fooled[step]
    assert sum(seen.fooled) == int(found.fooled.sum())
    assert None not in seen.loss[:6]
    assert seen.loss[6] is seen.gradient[6] is None  # the last look needs no gradient
    assert not any(seen.zero + seen.non_finite)


def test_zero_and_broken_gradients_are_counted_and_move_nothing() -> None:
    class Odd(nn.Module):
        """Dark images have no gradient, bright ones one that is not a number."""

        def forward(self, images: Tensor) -> Tensor:
            total, kind = images.sum(dim=1), images.detach()[:, 0]
            slope = torch.where(kind < 0.3, 0.0, total)
            broken = torch.where(kind > 0.7, total * 0, 1.0).sqrt()
            return torch.stack([5 + slope + broken, torch.zeros_like(total)], dim=1)

    images = torch.tensor([0.1, 0.9, 0.5]).unsqueeze(1).repeat(1, 4)
    labels = torch.zeros(3, dtype=torch.int64)
    found = mim(task_of(Odd(), images, labels, 0.1), steps=3, step_size=0.05)
    seen = trace(found.sums)
    assert seen.zero[:3] == [1, 1, 1]
    assert seen.non_finite[:3] == [1, 1, 1]
    assert found.images[:2].equal(images[:2])
    assert not found.images[2].equal(images[2])


@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.1, 0.3, 1.0])
def test_projections_are_exact(epsilon: float, rng: torch.Generator) -> None:
    clean = torch.rand(64, 3, 8, 8, generator=rng)
    far = clean + torch.randn(clean.shape, generator=rng)
    sizes = torch.full((64,), epsilon, dtype=torch.float64)
    for norm, ball in (("Linf", LinfBall), ("L2", L2Ball)):
        projected = ball.around(clean, sizes).project(far)
        assert projected.min() >= 0
        assert projected.max() <= 1
        distance = distances(norm, projected, clean)
        assert (distance <= epsilon).all()
        if epsilon == 0.05:
            assert (distance > epsilon * (0.999 if norm == "Linf" else 0.9)).all()


def test_the_budget_is_used_up_to_one_rounding(rng: torch.Generator) -> None:
    images = torch.rand(1000, generator=rng).mul_(0.5).add_(0.25)
    low, high = budget(images, 0.1)
    assert ((high.double() - images.double()) > 0.1 - 1e-7).all()
    assert ((images.double() - low.double()) > 0.1 - 1e-7).all()
    assert ((images + 0.1).double() - images.double()).max() > 0.1  # plain arithmetic leaves it


def test_each_image_may_have_a_budget_of_its_own(
    undefended: nn.Module, correct: tuple[Tensor, Tensor]
) -> None:
    images, labels = correct[0][:40], correct[1][:40]
    task = task_of(undefended, images, labels, 0.0)
    sizes = torch.linspace(0, 0.3, 40, dtype=torch.float64)
    mixed = Task(**{**vars(task), "ball": LinfBall.around(images, sizes)})
    found = pgd(mixed, steps=5, step_size=0.3, per_epsilon=True, iterate="last")
    assert (distances("Linf", found.images, images) <= sizes).all()
    assert found.images[0].equal(images[0])
    options = {"steps": 5, "step_size": 0.3, "per_epsilon": True, "iterate": "last"}
    public = attack_images(undefended, images, labels, "pgd", epsilon=sizes, **options)
    assert public.images.equal(found.images)
    with pytest.raises(ValueError, match=r"one for each of 40 images; got \[39\]"):
        attack_images(undefended, images, labels, "pgd", epsilon=sizes[1:], **options)
    one = task_of(undefended, images, labels, sizes[20].item())
    same = pgd(one, steps=5, step_size=0.3, per_epsilon=True, iterate="last")
    assert found.images[20].equal(same.images[20])


def test_what_an_image_draws_does_not_depend_on_its_batch() -> None:
    noise, positions = Noise(3), torch.arange(50)
    whole = noise.uniform(positions, 7, (4, 5))
    assert whole[11:14].equal(noise.uniform(positions[11:14], 7, (4, 5)))
    draws = torch.tensor([7, 8, 7])
    assert noise.uniform(positions[:3], draws, (4, 5))[2].equal(whole[2])
    assert not noise.uniform(positions[:3], draws, (4, 5))[1].equal(whole[1])
    others = [Noise(4), noise.child("a"), noise.child("b")]
    drawn = [whole, *(other.uniform(positions, 7, (4, 5)) for other in others)]
    assert len({d.sum().item() for d in drawn}) == 4


def test_the_numbers_are_as_random_as_they_should_be() -> None:
    noise, positions = NOISE, torch.arange(1000)
    uniform = noise.uniform(positions, 0, (100,)).double()
    assert uniform.min() >= 0
    assert uniform.max() < 1
    counts = torch.histc(uniform, bins=100, min=0, max=1)
    assert ((counts - 1000).square() / 1000).sum() < 150  # chi-squared, 99 degrees: p < 0.001
    centred = uniform - 0.5
    for neighbour in (centred[1:] * centred[:-1], centred[:, 1:] * centred[:, :-1]):
        assert neighbour.mean().abs() < 4 / 12 / neighbour.numel() ** 0.5
    normal = noise.normal(positions, 1, torch.Size((100,))).double()
    assert normal.mean().abs() < 0.013
    assert normal.var().item() == pytest.approx(1, abs=0.02)
    signs = noise.signs(positions, 2, (100,))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert signs.mean().abs() < 0.013


def test_nothing_is_found_where_nothing_was_tried(undefended: nn.Module) -> None:
    task = task_of(undefended, torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64), 0.1)
    found = Found.nothing(task, steps=3)
    assert not found.fooled.any()
    assert found.step.eq(-1).all()


def test_auto_steps_halve_where_they_stall() -> None:
    """Croce and Hein's two conditions, at the checkpoints 11 and 21 of 50 steps."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    images, labels = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.int64)
    lanes = Lanes.of(task_of(model, images, labels, 0.1), restarts=1, targets=0)
    rule = AutoSteps(50, lanes)
    assert checkpoints(50)[:3] == [11, 21, 30]
    values, size = torch.zeros(3), {}
    for step in range(22):
        steadily, often = float(step), float(step if step % 11 < 8 else 7)  # often: 8 of 11
        low_after = step - 100.0 if step > 11 else float(step)  # never again as good as before
        values = torch.tensor([steadily, often, low_after])
        looked = Looked(torch.zeros(3, 3), values, torch.ones_like(images))
        rule.move(step, images, looked, lanes)
        size[step] = [round(s, 3) for s in rule.memory["size"].tolist()]
    assert size[10] == [0.2, 0.2, 0.2]
    assert size[11] == [0.2, 0.1, 0.2]
    assert size[21][0] == 0.2
    assert size[21][2] == 0.1
