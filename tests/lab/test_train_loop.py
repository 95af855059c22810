"""The training loop: what a step computes, what is drawn when, and that it does not wait."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pclc_fast import pc_lc_loss
from pclc_fast.lab.adversarial import ADVERSARIES, Adversary, attack, make_adversary
from pclc_fast.lab.distributed import World
from pclc_fast.lab.loop import Trainer, own_random_state, split_batches
from pclc_fast.lab.losses import make_criterion
from pclc_fast.lab.tally import Tally

WORLD = World(torch.device("cpu"))
IMAGES = 100


class Drawn:
    """Images drawn at random; a store as the loop sees it."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(IMAGES, 1, 8, 8, generator=generator)
        self.labels = torch.randint(10, (IMAGES,), generator=generator)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.images[indices], self.labels[indices]


def network(dropout: float = 0.0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(144, 10)
        )


def as_they_are(images: Tensor, _: torch.Generator) -> Tensor:
    return images


def noisy(images: Tensor, generator: torch.Generator) -> Tensor:
    return images + 0.1 * torch.rand(images.shape, generator=generator)


@pytest.fixture(autouse=True)
def _own_random_state() -> Iterator[None]:
    with own_random_state(WORLD.device):
        yield


def trained(trainer: Trainer, epochs: int, loss: str = "ce", *, batch_size: int = 32) -> Tally:
    criterion, data = make_criterion(loss), Drawn()  # type: ignore[arg-type]
    trainer.start_phase()
    for epoch in range(epochs):
        tally = Tally()
        trainer.start_epoch(epoch)
        batches = split_batches(trainer.order(IMAGES, epoch), batch_size, WORLD)
        done = trainer.train_batches(data, batches, criterion, lr=0.01, tally=tally)
        assert sum(done) == IMAGES
    return tally


def test_a_step_is_what_plain_pytorch_does() -> None:
    trainer = Trainer(network(), WORLD, seed=0, augment=as_they_are)
    plain, data = copy.deepcopy(trainer.network), Drawn()
    trained(trainer, epochs=2)
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    for epoch in range(2):
        for batch in trainer.order(IMAGES, epoch).split(32):
            optimizer.zero_grad()
            F.cross_entropy(plain(data.images[batch]), data.labels[batch]).backward()
            optimizer.step()
    for found, expected in zip(trainer.network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_statistics_are_means_over_all_images() -> None:
    trainer = Trainer(network(), WORLD, seed=0, augment=as_they_are)
    data, criterion = Drawn(), make_criterion("pclc")
    trainer.start_phase()
    tally = Tally()
    batches = split_batches(torch.arange(IMAGES), 32, WORLD)  # the last one is smaller
    before = copy.deepcopy(trainer.network)
    list(trainer.train_batches(data, batches, criterion, lr=0.0, tally=tally))
    with torch.no_grad():
        loss, stats = pc_lc_loss(before(data.images), data.labels, return_stats=True)
    expected = {
        "loss": loss.item(),
        "accuracy": stats.correct.double().mean().item(),
        "prob_gap": stats.prob_gap.mean().item(),
        "logit_gap": stats.logit_gap.mean().item(),
    }
    assert tally.means(WORLD) == pytest.approx(expected, rel=1e-5)
    tested = trainer.test(data, IMAGES, criterion).means(WORLD)
    assert tested == pytest.approx(expected, rel=1e-5)


def test_a_tally_goes_on_where_it_was() -> None:
    data, criterion = Drawn(), make_criterion("pclc")
    logits = torch.randn(IMAGES, 10, generator=torch.Generator().manual_seed(1))
    whole, tally = Tally(), Tally()
    for number, batch in enumerate(torch.arange(IMAGES).split(30)):
        loss, stats = criterion(logits[batch], data.labels[batch])
        whole.add(loss, stats, clean=len(batch) // 2)
        tally.add(loss, stats, clean=len(batch) // 2)
        if number == 1:
            tally = Tally.from_tensors(tally.to_tensors(), WORLD.device)
    assert tally.means(WORLD) == whole.means(WORLD)
    assert "adversarial_accuracy" in whole.means(WORLD)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    one, other = (Trainer(network(), WORLD, seed=s, augment=as_they_are) for s in (0, 1))
    first = one.order(IMAGES, 0)
    assert sorted(first.tolist()) == list(range(IMAGES))
    torch.rand(3)
    assert one.order(IMAGES, 0).equal(first)
    assert not one.order(IMAGES, 1).equal(first)
    assert not other.order(IMAGES, 0).equal(first)


def test_what_is_random_starts_anew_in_each_epoch() -> None:
    """Dropout and augmentation of an epoch do not depend on what was drawn before it."""
    results = []
    for draws in (0, 5):
        trainer = Trainer(network(dropout=0.5), WORLD, seed=0, augment=noisy)
        torch.rand(draws)
        trained(trainer, epochs=1)
        results.append(trainer.weights())
    assert all(results[0][name].equal(results[1][name]) for name in results[0])
    fixed = Trainer(network(), WORLD, seed=0, augment=as_they_are)
    trained(fixed, epochs=1)
    assert not fixed.weights()["0.weight"].equal(results[0]["0.weight"])


def test_nothing_is_read_from_the_device_within_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(network(), WORLD, seed=0, augment=noisy, adversary=ADVERSARIES["fgsm"])
    trainer.start_phase()
    batches = split_batches(trainer.order(IMAGES, 0), 32, WORLD)
    tally, probe = Tally(), torch.ones(1)
    # GCE: with PC-LC, on a CPU alone, backward looks whether the gradient upstream is 1.
    steps = trainer.train_batches(Drawn(), batches, make_criterion("gce"), lr=0.01, tally=tally)

    def waits(*_: object) -> None:
        raise AssertionError("the host waits for the device")

    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
            patch.setattr(Tensor, name, waits)
        with pytest.raises(AssertionError, match="the host waits"):  # it would be noticed
            bool(probe)
        patch.setattr("pclc_fast.lab.adversarial._gradient", lambda _, images, __: images)
        assert sum(steps) == IMAGES
    assert tally.means(WORLD)["loss"] < 0


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_attacked_images_stay_in_their_budget(name: str) -> None:
    adversary = ADVERSARIES[name]  # type: ignore[index]
    assert adversary is not None
    data, model = Drawn(), network().eval()
    generator = torch.Generator().manual_seed(0)
    attacked = attack(model, data.images, data.labels, adversary, generator)
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    change = (attacked - data.images).abs().flatten(1).amax(dim=1)
    assert change.max() <= adversary.high + 1e-6
    assert (change >= adversary.low - 1e-6).all()
    assert change.std() > 0.02  # every image has an epsilon of its own
    with torch.no_grad():
        before = F.cross_entropy(model(data.images), data.labels)
        after = F.cross_entropy(model(attacked), data.labels)
    assert after > before


def test_another_epsilon_and_more_steps() -> None:
    assert make_adversary("none", None, None) is None
    assert make_adversary("pgd", None, None) == ADVERSARIES["pgd"]
    adversary = make_adversary("pgd", (0.3, 0.3), 10)
    assert adversary == Adversary(0.3, 0.3, steps=10, random_start=True)
    assert make_adversary("fgsm", (0.0, 0.1), None) == Adversary(0.0, 0.1, 1, random_start=False)


def test_fgsm_is_one_step_along_the_sign() -> None:
    adversary = Adversary(0.1, 0.1, steps=1, random_start=False)
    data, model = Drawn(), network().eval()
    images = data.images.clone().requires_grad_()
    F.cross_entropy(model(images), data.labels, reduction="sum").backward()
    assert images.grad is not None
    expected = (data.images + 0.1 * images.grad.sign()).clamp(0, 1)
    found = attack(model, data.images, data.labels, adversary, torch.Generator().manual_seed(0))
    sure = images.grad.abs() > 1e-6
    torch.testing.assert_close(found[sure], expected[sure])


def test_pgd_starts_anywhere_and_can_cross_its_budget() -> None:
    """The start is uniform within epsilon; the steps add up to two and a half of it."""
    adversary = Adversary(0.1, 0.1, steps=10, random_start=True)
    model, seen = network().eval(), []
    model.register_forward_hook(lambda _, x, __: seen.append(x[0].detach()))
    images = 0.3 + 0.4 * Drawn().images  # no pixel ends at 0 or 1
    attack(model, images, Drawn().labels, adversary, torch.Generator().manual_seed(0))
    start = (seen[0] - images) / 0.1
    assert start.abs().max() == pytest.approx(1, abs=0.01)
    assert start.std() == pytest.approx(3**-0.5, rel=0.05)
    assert (seen[1] - seen[0]).abs().max() == pytest.approx(2.5 / 10 * 0.1, rel=1e-4)


def test_adversarial_training_is_one_to_one_and_leaves_the_mode() -> None:
    seen: list[tuple[bool, int]] = []
    model = network()
    trainer = Trainer(model, WORLD, seed=0, augment=as_they_are, adversary=ADVERSARIES["pgd"])
    hook = model.register_forward_hook(lambda m, x, _: seen.append((m.training, len(x[0]))))
    tally = trained(trainer, epochs=1, batch_size=50)
    hook.remove()
    assert seen == 2 * [*5 * [(False, 50)], (True, 100)]
    assert set(tally.means(WORLD)) == {
        "loss",
        "accuracy",
        "prob_gap",
        "logit_gap",
        "adversarial_accuracy",
    }


def test_bfloat16_autocast_trains_in_float32_weights() -> None:
    trainer = Trainer(network(), WORLD, seed=0, augment=as_they_are, bf16=True)
    dtypes: list[torch.dtype] = []
    trainer.network.register_forward_hook(lambda _, __, logits: dtypes.append(logits.dtype))
    tally = trained(trainer, epochs=1, loss="pclc")
    assert set(dtypes) == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in trainer.network.parameters())
    assert tally.means(WORLD)["loss"] > 0


def test_only_whole_batches_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str | None, bool, int]] = []

    class Compiled(nn.Module):
        def __init__(self, inner: nn.Module, mode: str | None) -> None:
            super().__init__()
            self.inner, self.mode = inner, mode

        def forward(self, images: Tensor) -> Tensor:
            seen.append((self.mode, self.inner.training, len(images)))
            return self.inner(images)

    monkeypatch.setattr(torch, "compile", lambda network, mode: Compiled(network, mode))
    fgsm, results = ADVERSARIES["fgsm"], []
    for compile in ("off", "on", "graphs"):
        trainer = Trainer(network(), WORLD, seed=0, augment=noisy, adversary=fgsm, compile=compile)
        trained(trainer, epochs=1)
        results.append(trainer.weights())
    step = [(False, 32), (True, 64)]  # the last of an epoch's four batches has 4 images
    assert seen == [(mode, *call) for mode in (None, "reduce-overhead") for call in 3 * step]
    assert all(results[0][name].equal(weights[name]) for name in results[0] for weights in results)


def test_it_goes_on_from_a_batch() -> None:
    """Nothing but the last, smaller batch is left."""
    trainer = Trainer(network(), WORLD, seed=0, augment=as_they_are)
    trainer.start_phase()
    batches = split_batches(trainer.order(IMAGES, 0), 32, WORLD)
    tally, criterion = Tally(), make_criterion("ce")
    steps = trainer.train_batches(Drawn(), batches, criterion, lr=0.01, tally=tally, start=3)
    assert list(steps) == [4]


def test_a_test_of_few_images_has_a_share_for_each_process() -> None:
    """A last batch of one image would leave nothing to the second process: NaN."""
    for rank, expected in ((0, [49, 1]), (1, [49])):
        trainer = Trainer(network(), WORLD, seed=0, augment=as_they_are)
        trainer.world = World(WORLD.device, rank, 2)
        shares: list[int] = []
        trainer.network.register_forward_hook(lambda _, x, __, s=shares: s.append(len(x[0])))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(World, "same_buffers", lambda *_: None)
            patch.setattr("pclc_fast.lab.loop._TEST_BATCH", 49)
            trainer.test(Drawn(), 99, make_criterion("ce"))
        assert shares == expected


def test_batches_too_small_for_all_processes_are_left_out() -> None:
    sizes = [len(b) for b in split_batches(torch.arange(13), 4, World(torch.device("cpu"), 0, 2))]
    assert sizes == [4, 4, 4]
    assert [len(b) for b in split_batches(torch.arange(13), 4, WORLD)] == [4, 4, 4, 1]
