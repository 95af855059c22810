"""What would make a result worthless or mean something else, said before it is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor, nn

from .network import Model, Network
from .result import Caution, Norm

_SAMPLE = 64  # images that a model is tried on
_SAME = 1e-3  # how far two answers may differ by the order of additions, relative to the logits
_BATCH_NORM = (nn.modules.batchnorm._BatchNorm,)


def check_epsilons(epsilons: float | Sequence[float] | Tensor, norm: Norm) -> list[float]:
    """Return them ascending; raises TypeError or ValueError where they make no sense."""
    check_norm(norm)
    try:
        values = torch.as_tensor(epsilons, dtype=torch.float64).reshape(-1).tolist()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"eps must be a number or a list of numbers; got {epsilons!r}") from error
    if not values or len(set(values)) < len(values):
        raise ValueError(
            f"eps must be one or more different numbers, each a budget for all images; got "
            f"{values[:8]}"
            + (" (attack_images takes one for each image)" if len(values) > 8 else "")
        )
    if not all(0 <= e < math.inf for e in values):
        raise ValueError(f"eps must be finite and not negative; got {values}")
    if norm == "Linf" and max(values) > 1:
        raise ValueError(
            f"eps in Linf must be from 0 to 1, as pixels are; got {values} (8 of 255 is 8 / 255)"
        )
    return sorted(values)


def check_norm(norm: Norm) -> None:
    """Raise ValueError for anything but the two that there are."""
    if norm not in ("Linf", "L2"):
        raise ValueError(f"norm must be Linf or L2; got {norm!r}")


def check_images(images: Tensor, labels: Tensor) -> None:
    """Raise TypeError or ValueError unless these are images in [0, 1] with a label each."""
    if not isinstance(images, Tensor) or images.dtype != torch.float32:
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(
            f"images must be a float32 tensor in [0, 1]; got {got}"
            + (" (divide by 255)" if got == torch.uint8 else "")
        )
    if images.ndim < 2 or not images.numel():
        raise ValueError(f"images must be [N, ...] and not empty; got {list(images.shape)}")
    low, high = images.min().item(), images.max().item()
    if not (low >= 0 and high <= 1):  # NaN too
        raise ValueError(
            f"images must be in [0, 1]; got values from {low!r} to {high!r}. Budgets and limits "
            "are those of pixels: normalisation belongs inside the model"
        )
    if images.is_inference():
        raise ValueError(
            "images were made under torch.inference_mode(), so nothing can be differentiated with "
            "respect to them: give images.clone()"
        )
    if not isinstance(labels, Tensor) or labels.dtype.is_floating_point or labels.dtype.is_complex:
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"labels must be a tensor of integers; got {got}")
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels must be one for each of {len(images)} images; got {list(labels.shape)}"
        )


def check_seed(seed: int, batch_size: int | None) -> None:
    """Raise ValueError where they make no sense."""
    if not isinstance(seed, Integral) or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be an integer from 0 to 2^63 - 1; got {seed}")
    if batch_size is not None and (not isinstance(batch_size, Integral) or batch_size < 1):
        raise ValueError(f"batch_size must be an integer, at least 1; got {batch_size}")


def check_substitute(logits: Tensor, of_model: Tensor) -> None:
    """Raise ValueError unless a substitute tells the same classes apart as the model."""
    if logits.shape[1] != of_model.shape[1]:
        raise ValueError(
            f"the substitute must give logits [N, {of_model.shape[1]}], as the model does; got "
            f"{list(logits.shape)}"
        )


def check_mode(model: Model | None) -> None:
    """Raise ValueError for a model in train mode, and where nothing can be differentiated."""
    if torch.is_inference_mode_enabled():
        raise ValueError("attacks need gradients: call this outside of torch.inference_mode()")
    if not isinstance(model, nn.Module):
        return
    modules = [model, *(m for m in model.modules() if isinstance(m, _BATCH_NORM))]
    if any(m.training for m in modules):
        raise ValueError(
            "the model is in train mode: dropout would make its answers random, and BatchNorm "
            "would mix the images of a batch and learn from the attacks, so the result would be of "
            "another model than the one that is used. Call model.eval() first"
        )


def clean_logits(network: Network, images: Tensor) -> Tensor:
    """The model's answer to the clean images; raises ValueError where it cannot take them."""
    try:
        return network.logits(images)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, IndexError) as error:
        raise ValueError(
            f"the model cannot take float32 images {list(images.shape)}, of which at most "
            f"{network.batch_size} at a time: {error or type(error).__name__}"
        ) from error


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless these logits [N, K] are some for the labels."""
    classes = logits.shape[1]
    if classes < 2:
        raise ValueError(f"the model must tell at least 2 classes apart; it has {classes}")
    broken = (logits.isnan() | (logits == torch.inf)).any(dim=1)
    if broken.any():
        first = int(broken.nonzero()[0])
        raise ValueError(
            f"the logits of {int(broken.sum())} of {len(labels)} clean images are NaN or +inf "
            f"(first image {first}): no attack could be told from a failure of the model itself"
        )
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        first = int(outside.nonzero()[0])
        raise ValueError(
            f"labels must be from 0 to {classes - 1}, the model's classes; label {first} is "
            f"{int(labels[first])}"
        )


def check_gradient(network: Network, images: Tensor) -> None:
    """Raise ValueError where autograd cannot differentiate the model."""
    try:
        network.look(images[:1], lambda logits: logits.sum(dim=1))
    except RuntimeError as error:
        raise ValueError(
            f"the model cannot be differentiated with respect to its images ({error}): only "
            "attacks without gradients, as square and spsa, can be run against it"
        ) from error


def cautions(network: Network, images: Tensor, labels: Tensor, logits: Tensor) -> list[Caution]:
    """What is not an error, but changes what the result is worth."""
    found = []
    if looks_like_probabilities(logits):
        found.append(
            Caution(
                "softmax",
                "The outputs are between 0 and 1 and sum to 1: probabilities, not logits. Losses "
                "apply a second softmax to them, gradients vanish where the model is sure, and "
                "the accuracy comes out too high. Give the logits before the softmax",
            )
        )
    found += _unsteady(network, images[:_SAMPLE], logits[:_SAMPLE])
    accuracy = (logits.argmax(dim=1) == labels).double().mean().item()
    guessing = 1 / logits.shape[1]
    if accuracy <= guessing:
        found.append(
            Caution(
                "clean-accuracy",
                f"Without an attack {100 * accuracy:.1f} % are correct, no more than by guessing: "
                "do labels, weights and the model's normalisation belong together?",
            )
        )
    return found


def lost_looks(looks: int) -> list[Caution]:
    """What it means that attacked images were answered with NaN, so many times."""
    if not looks:
        return []
    return [
        Caution(
            "nan-logits",
            f"Attacked images were answered with NaN {looks} times. NaN is no class, so this "
            "counts as withstanding the attack, and the accuracy may come out too high: an "
            "attacker can make the model fail in this way",
        )
    ]


def looks_like_probabilities(logits: Tensor) -> bool:
    """Whether every row is a distribution; False for the logits of any usual model."""
    exact = logits.double()
    sums = exact.sum(dim=1)
    return bool((exact >= 0).all() and (exact <= 1).all() and ((sums - 1).abs() < 1e-3).all())


def _unsteady(network: Network, images: Tensor, logits: Tensor) -> list[Caution]:
    """Whether the same images get the same answer, a second time and in another batch."""
    half = -(-len(images) // 2)
    parted = torch.cat([network.logits(part) for part in torch.split(images, half)])
    if not _differ(logits, parted):
        return []
    if _differ(network.logits(images), network.logits(images)):
        return [
            Caution(
                "random-forward",
                "The model answers differently when it is asked again: an image counts as fooled "
                "when it was misclassified in one more look, and no attack here averages over the "
                "randomness, so the accuracy is neither an upper nor a lower bound",
            )
        ]
    return [
        Caution(
            "batch-dependent",
            "What the model answers for an image depends on the others in the batch: attacks "
            "drop images from the batch, so the result depends on the batch size",
        )
    ]


def _differ(a: Tensor, b: Tensor) -> bool:
    a, b = (x.double().nan_to_num(0.0, 0.0, 0.0) for x in (a, b))
    scale = max(1e-12, a.abs().max().item())
    return (a - b).abs().max().item() > _SAME * scale
