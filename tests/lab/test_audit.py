"""The audit: each check can pass, fail and say that it was not run; models masked on purpose."""

from __future__ import annotations

import string
from collections.abc import Callable

import pytest
import torch
from report_documents import result
from torch import Tensor, nn

from pclc_fast.lab.audit import probes
from pclc_fast.lab.audit.checks import check_all
from pclc_fast.lab.audit.connected import connected
from pclc_fast.lab.audit.evidence import Evidence, Finding, Gradients, Repeats
from pclc_fast.lab.audit.probes import Probed, gather
from pclc_fast.lab.audit.verdict import judge, to_json
from pclc_fast.lab.digits import DigitsData

N = 100
ALL = torch.ones(N, dtype=torch.bool)


def left(count: int) -> Tensor:
    """The first so many images are standing."""
    return torch.arange(N) < count


def evidence(
    standing: dict[str, int] | None = None, *, at: float = 0.1, worst: int | None = None
) -> Evidence:
    """Attacks that left so many of the images."""
    found = {(attack, at): left(count) for attack, count in (standing or {}).items()}
    reported = {} if worst is None else {0.1: left(worst)}
    return Evidence(10, ALL, [0.1], found, worst=reported)


def finding(key: str, e: Evidence) -> Finding:
    (found,) = (f for f in check_all(e) if f.key == key)
    return found


@pytest.mark.parametrize(
    ("key", "passes", "fails"),
    [
        ("many-steps", {"fgsm": 50, "pgd": 30}, {"fgsm": 50, "pgd": 53}),
        ("rescaled", {"pgd": 50, "pgd-rescaled": 35}, {"pgd": 50, "pgd-rescaled": 33}),
        ("targets", {"pgd": 50, "pgd-targets": 35}, {"pgd": 50, "pgd-targets": 33}),
        ("twice", {"pgd": 50, "pgd-twice": 41}, {"pgd": 50, "pgd-twice": 39}),
        ("restarts", {"pgd": 50, "pgd-restarts": 41}, {"pgd": 50, "pgd-restarts": 39}),
        ("float64", {"pgd": 50, "pgd-float64": 41}, {"pgd": 50, "pgd-float64": 39}),
        ("transfer", {"pgd": 50, "transfer": 48}, {"pgd": 50, "transfer": 47}),
        ("spsa", {"pgd": 50, "spsa": 60}, {"pgd": 50, "spsa": 20}),
        ("square", {"white-box": 10, "pgd": 50, "square": 20}, {"pgd": 50, "square": 20}),
        ("noise", {"noise": 90, "pgd": 92}, {"noise": 50, "pgd": 90}),
    ],
)
def test_attacks_are_compared(key: str, passes: dict[str, int], fails: dict[str, int]) -> None:
    assert finding(key, evidence(passes)).status == "PASS"
    assert finding(key, evidence(fails)).status == "FAIL"
    assert finding(key, evidence({"fgsm": 50})).status == "NOT RUN"


def test_few_images_say_little() -> None:
    for fooled, status in ((1, "PASS"), (2, "FAIL")):
        standing = {("pgd", 0.1): left(8)[:12], ("square", 0.1): left(8 - fooled)[:12]}
        assert finding("square", Evidence(10, ALL[:12], [0.1], standing)).status == status
    for fooled, status in ((3, "PASS"), (5, "FAIL")):
        standing = {("pgd", 0.1): left(8)[:12], ("pgd-targets", 0.1): left(8 - fooled)[:12]}
        assert finding("targets", Evidence(10, ALL[:12], [0.1], standing)).status == status


def test_targeting_is_compared_with_as_much_effort() -> None:
    lost = {"pgd": 50, "pgd-targets": 20}
    assert finding("targets", evidence(lost)).status == "FAIL"
    found = finding("targets", evidence({**lost, "pgd-restarts": 30, "pgd-twice": 40}))
    assert found.status == "PASS"
    assert found.numbers["gain"] == pytest.approx(0.1)


def test_gains_at_the_worst_epsilon_count() -> None:
    e = evidence({"pgd": 50, "pgd-targets": 50})
    more = {("pgd", 0.2): left(40), ("pgd-targets", 0.2): left(10)}
    found = finding("targets", Evidence(10, ALL, [0.1, 0.2], {**e.standing, **more}))
    assert found.status == "FAIL"
    assert found.numbers["epsilon"] == 0.2
    assert found.numbers["gain"] == pytest.approx(0.3)
    assert (found.numbers["plain"], found.numbers["both"]) == pytest.approx((0.4, 0.1))


@pytest.mark.parametrize(
    ("curve", "status"),
    [
        ({0.1: 60, 0.3: 20, 1.0: 0}, "PASS"),
        ({0.1: 60, 0.3: 63, 1.0: 0}, "FAIL"),  # rises
        ({0.1: 60, 0.3: 60, 1.0: 59}, "FAIL"),  # flat, above chance
        ({0.1: 9, 0.3: 9, 1.0: 9}, "PASS"),  # flat at chance
        ({0.1: 60}, "NOT RUN"),
    ],
)
def test_accuracy_has_to_fall(curve: dict[float, int], status: str) -> None:
    standing = {("pgd", epsilon): left(count) for epsilon, count in curve.items()}
    assert finding("falls", Evidence(10, ALL, [0.1], standing)).status == status


def test_large_budgets() -> None:
    for count, chance, unbounded in (
        (0, "PASS", "PASS"),
        (11, "PASS", "FAIL"),
        (40, "FAIL", "FAIL"),
    ):
        standing = {("pgd", 0.5): left(count), ("pgd", 1.0): left(count)}
        e = Evidence(10, ALL, [0.1], standing)
        assert finding("chance", e).status == chance
        assert finding("unbounded", e).status == unbounded


def test_gradients_and_forwards() -> None:
    good, bad = Gradients("pgd", 1, 100, 0, 2, 0), Gradients("pgd", 2, 100, 1, 3, 5)
    assert finding("gradients", Evidence(10, ALL, gradients=[good])).status == "PASS"
    found = finding("gradients", Evidence(10, ALL, gradients=[good, bad]))
    assert found.status == "FAIL"
    assert (found.numbers["step"], found.numbers["worst"]) == (2, 0.09)
    assert found.numbers["vanishing"] == 0.025
    saturated, lost = Gradients("pgd", 1, 100, 1, 49, 0), Gradients("pgd", 1, 100, 0, 51, 0)
    assert finding("gradients", Evidence(10, ALL, gradients=[saturated])).status == "PASS"
    assert finding("gradients", Evidence(10, ALL, gradients=[lost])).status == "FAIL"
    for repeats, status in (
        (Repeats(0, 1e-6), "PASS"),
        (Repeats(1, 1e-6), "FAIL"),
        (Repeats(0, 0.1), "FAIL"),
    ):
        assert finding("repeats", Evidence(10, ALL, repeats=repeats)).status == status
    for classes, sums, status in ((10, False, "PASS"), (10, True, "FAIL"), (3, False, "FAIL")):
        assert finding("logits", Evidence(classes, ALL, sums_to_one=sums)).status == status


def test_what_the_evaluation_missed() -> None:
    assert finding("worst-case", evidence({"pgd": 50}, worst=51)).status == "PASS"
    missed = evidence({"pgd": 50, "square": 40}, worst=42)
    found = finding("worst-case", missed)
    assert (found.status, found.numbers["missed"]) == ("FAIL", 2)
    assert "Do not trust the worst case" in judge(check_all(missed))[1]
    assert finding("worst-case", evidence({"pgd": 50})).status == "NOT RUN"


def test_an_evaluation_says_nothing_of_epsilons_it_did_not_have() -> None:
    evaluated = result(images=N, epsilons=(0.2,))
    found = Evidence(10, ALL, [0.1, 0.2])
    probes._enter_evaluation(found, evaluated)
    assert set(found.worst) == {0.2}
    assert set(found.standing) == {("white-box", 0.2)}


def test_the_verdict_follows_from_the_findings() -> None:
    status, text, counts = judge(check_all(evidence()))
    assert (status, counts["ran"]) == ("NOT RUN", 0)
    assert text.startswith("No check could be run")
    none_right = Evidence(10, ~ALL, [0.1], {("pgd", 0.1): ~ALL}, repeats=Repeats(0, 0.0))
    found = to_json(none_right)
    assert (found["status"], found["counts"]["ran"]) == ("NOT RUN", 1)
    assert found["verdict"].startswith("No attack was judged")
    status, text, counts = judge(check_all(evidence({"fgsm": 50, "pgd": 20})))
    assert (status, counts["failed"], counts["ran"]) == ("PASS", 0, 1)
    assert "no sign that the gradient is masked" in text
    status, text, counts = judge(check_all(evidence({"pgd": 50, "pgd-targets": 0})))
    assert (status, counts["failed"]) == ("FAIL", 1)
    assert "targeting each class in turn finds far more" in text
    assert text.startswith("The model's gradient misleads attacks")
    _, text, _ = judge(check_all(evidence({"pgd": 50, "pgd-restarts": 10})))
    assert text.startswith("A plain attack has not converged on this model")
    _, text, _ = judge(check_all(Evidence(10, ALL, sums_to_one=True)))
    assert text.startswith("The model is not what attacks take it for")


def test_what_is_left_is_said() -> None:
    for worst, end in ((12, "= {epsilon}: the model is not robust there."), (13, "= {epsilon}.")):
        found = to_json(evidence({"fgsm": 50, "pgd": 20}, worst=worst))
        expected = {"left": worst / N, "images": N, "epsilon": 0.1}
        assert found["counts"] | expected == found["counts"]
        assert found["verdict"].endswith(end)
    assert "left" not in to_json(evidence())["counts"]
    standing = {("pgd", 0.1): left(60), ("square", 0.1): left(55), ("pgd", 0.2): left(30)}
    found = to_json(Evidence(10, ALL, [0.1, 0.2], standing, worst={0.1: left(58)}))
    expected = {"first": 0.55, "smallest": 0.1, "left": 0.3, "epsilon": 0.2}
    assert found["counts"] | expected == found["counts"]
    assert "leaves {first:percent} % of {images:count} images at" in found["verdict"]
    assert found["verdict"].endswith("{smallest} and {left:percent} % at {epsilon}.")


def test_every_text_shows_numbers_that_are_there() -> None:
    everything = evidence(dict.fromkeys(("fgsm", "pgd", "pgd-twice", "square", "noise"), 40))
    for found in check_all(everything):
        fields = {f for _, f, _, _ in string.Formatter().parse(found.text) if f}
        assert fields <= set(found.numbers)
        assert bool(found.numbers) == (found.status != "NOT RUN")


class Wrapped(nn.Module):
    """A model with something after it, or before."""

    def __init__(
        self,
        model: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda images: images,
        after: Callable[[Tensor], Tensor] = lambda logits: logits,
    ) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.model(self.before(images)))


def with_decoy(logits: Tensor) -> Tensor:
    """Large logits, and the class after the largest always 3 below it: what gradients follow."""
    top, first = (10 * logits).max(dim=1, keepdim=True)
    decoy = (first + 1) % logits.shape[1]
    near = torch.maximum((10 * logits).gather(1, decoy), top - 3)
    return (10 * logits).scatter(1, decoy, near)


@pytest.fixture
def one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is masked shows it at any epsilon."""
    monkeypatch.setattr(probes, "_GREY", (0.2,))


def audited(model: nn.Module, data: DigitsData) -> dict[str, Finding]:
    probed = Probed(model.eval(), data.test_images[:8], data.test_labels[:8])
    return {f.key: f for f in check_all(gather(probed, lambda _: None))}


def failed(findings: dict[str, Finding]) -> set[str]:
    return {key for key, found in findings.items() if found.status == "FAIL"}


def test_a_usual_model_passes(undefended: nn.Module, data: DigitsData) -> None:
    findings = audited(undefended, data)
    assert failed(findings) == set()
    idle = {key for key, found in findings.items() if found.status == "NOT RUN"}
    assert idle == {"worst-case", "transfer"}  # there is no evaluation, and no other model


@pytest.mark.usefixtures("one_budget")
def test_logits_times_ten_thousand_fail(undefended: nn.Module, data: DigitsData) -> None:
    masked = Wrapped(undefended, after=lambda logits: 1e4 * logits)
    assert {"gradients", "rescaled"} <= failed(audited(masked, data))


@pytest.mark.usefixtures("one_budget")
def test_a_quantised_input_fails(undefended: nn.Module, data: DigitsData) -> None:
    masked = Wrapped(undefended, before=lambda images: (images * 8).round() / 8)
    assert {"gradients", "unbounded"} <= failed(audited(masked, data))


@pytest.mark.usefixtures("one_budget")
def test_a_model_without_a_gradient_fails(undefended: nn.Module, data: DigitsData) -> None:
    masked = Wrapped(undefended, before=lambda images: (images > 0.5).float())
    findings = audited(masked, data)
    assert findings["gradients"].numbers["zero"] == 1
    assert {"gradients", "unbounded"} <= failed(findings)
    assert findings["float64"].status == "NOT RUN"  # it computes in float32 whatever it is given


def test_a_model_that_normalises_in_place_has_a_gradient(undefended: nn.Module) -> None:
    model, images = (
        Wrapped(undefended, before=lambda images: images.sub_(0.5)),
        torch.rand(1, 1, 8, 8),
    )
    before = images.clone()
    assert connected(model.eval(), images) is model
    assert images.equal(before)


@pytest.mark.usefixtures("one_budget")
def test_a_decoy_class_fails(undefended: nn.Module, data: DigitsData) -> None:
    assert "targets" in failed(audited(Wrapped(undefended, after=with_decoy), data))


@pytest.mark.usefixtures("one_budget")
def test_a_random_forward_fails(undefended: nn.Module, data: DigitsData) -> None:
    random = Wrapped(undefended, after=lambda logits: logits + torch.randn_like(logits))
    assert "repeats" in failed(audited(random, data))
