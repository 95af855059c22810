"""The public loss: a drop-in for F.cross_entropy and nn.CrossEntropyLoss."""

from __future__ import annotations

from typing import Any, Generic, Literal, Self, TypedDict, TypeVar, Unpack, overload

import torch
from torch import Tensor

from .autograd import loss_and_stats
from .dispatch import check_name, choose
from .options import Options, check_flag, make_options
from .reference import LossStats
from .tensors import check_tensors

Reduction = Literal["none", "mean", "sum"]
LcMode = Literal["hard", "soft", "all"]


class LossOptions(TypedDict, total=False):
    """The options that pc_lc_loss, reference_pc_lc_loss and PCLCLoss share."""

    ignore_index: int
    reduction: Reduction
    margin: float
    pc_weight: float
    lc_weight: float
    lc_cap: float
    lc_mode: LcMode
    pc_mean: bool
    ce_weight: float
    label_smoothing: float


class _KernelOptions(LossOptions, total=False):
    backend: str | None


@overload
def pc_lc_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    return_stats: Literal[False] = False,
    **options: Unpack[_KernelOptions],
) -> Tensor: ...


@overload
def pc_lc_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    return_stats: Literal[True],
    **options: Unpack[_KernelOptions],
) -> tuple[Tensor, LossStats]: ...


@overload
def pc_lc_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    return_stats: bool,
    **options: Unpack[_KernelOptions],
) -> Any: ...


def pc_lc_loss(
    input: Tensor,  # (K,), (N, K) or (N, K, d1, ...)
    target: Tensor,  # (), (N,) or (N, d1, ...)
    weight: Tensor | None = None,  # (K,)
    *,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    margin: float = 0.995,
    pc_weight: float = 1.0,
    lc_weight: float = 0.05,
    lc_cap: float = 0.0,
    lc_mode: LcMode = "hard",
    pc_mean: bool = False,
    ce_weight: float = 0.0,
    return_stats: bool = False,
    backend: str | None = None,
    label_smoothing: float = 0.0,
) -> Any:
    r"""Probabilistically compact loss with logit constraints, in one pass over the logits.

    With ``f = softmax(input)``, true class ``y`` and largest false logit ``a_j``, a row costs ::

        ce_weight * -log f_y                                       Eq. 2
        + pc_weight * sum_{k != y} max(0, f_k + margin - f_y)      Eq. 6
        + lc_weight * max(0, a_y - a_j - lc_cap)                   Eqs. 15, 16

    The equations are those of Li et al., "Improving Adversarial Robustness via Probabilistically
    Compact Loss with Logit Constraints", AAAI 2021; the defaults are the paper's.

    Args:
        input: logits, ``(K,)``, ``(N, K)`` or ``(N, K, d1, ...)``, of float16, bfloat16, float32 or
            float64. Never written to. Read in place where the rows of K logits are contiguous
            (``(N, K)`` with any row stride, channels_last), copied once otherwise; Triton's kernels
            also copy rows that are aligned to fewer bytes than they would be without gaps.
        target: class indices, ``()``, ``(N,)`` or ``(N, d1, ...)``, of uint8 or int8 to int64.
        weight: a non-negative factor of each class, ``(K,)``, of the same dtypes as the logits, any
            of them; no gradient flows to it.
        ignore_index: rows with this target cost nothing, and their logits are not read.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``, which divides by the summed weights of the
            rows that are not ignored.
        margin: the probability margin, xi in Eq. 6; above 0. It and the other coefficients are
            finite numbers, the others 0 or more.
        pc_weight: factor of the PC term.
        lc_weight: factor of the logit constraint, lambda in Eq. 16.
        lc_cap: how large a logit gap costs nothing, C' in Eq. 15.
        lc_mode: which false classes the constraint presses on: ``"hard"``, the largest (Eq. 16);
            ``"soft"``, all by their softmax among the false classes (the authors' released code; it
            has no cap); ``"all"``, all alike, by their mean.
        pc_mean: divide the PC term by K - 1, as the authors' released code does.
        ce_weight: factor of the cross-entropy term.
        return_stats: return ``(loss, LossStats)``.
        backend: a name from :func:`backends`; None chooses.
        label_smoothing: for call sites of F.cross_entropy that pass it; must be 0.

    Returns:
        The loss in float32 (float64 for float64 logits): ``()``, or the shape of ``target`` with
        ``reduction="none"``. A row that holds NaN or +inf, or nothing but -inf, has the loss and
        gradient NaN. Where every row is ignored the mean is NaN and the gradient 0.

    Raises:
        TypeError: an argument is of the wrong type or dtype.
        ValueError: shapes or devices do not fit, or an option or a class weight is out of range.
        IndexError: a target on the CPU is neither a class nor ``ignore_index``. On a GPU its row
            becomes NaN instead, unless PCLC_FAST_DEBUG=1 is set in the environment; so it does
            where the values are out of sight, as of a target that ``torch.func.vmap`` maps over.
        RuntimeError: the backend asked for cannot run here.

    Example:
        >>> import torch
        >>> from pclc_fast import pc_lc_loss
        >>> logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 4.0, 1.0]], requires_grad=True)
        >>> target = torch.tensor([0, 1])
        >>> loss, stats = pc_lc_loss(logits, target, return_stats=True)
        >>> print(f"{loss.item():.4f}")
        0.6878
        >>> loss.backward()
        >>> stats.runner_up.tolist(), stats.correct.tolist()
        ([1, 2], [True, True])
    """
    options = make_options(
        ignore_index=ignore_index,
        reduction=reduction,
        margin=margin,
        pc_weight=pc_weight,
        lc_weight=lc_weight,
        lc_cap=lc_cap,
        lc_mode=lc_mode,
        pc_mean=pc_mean,
        ce_weight=ce_weight,
        label_smoothing=label_smoothing,
    )
    return _evaluate(input, target, weight, options, return_stats, backend)


def reference_pc_lc_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    return_stats: bool = False,
    **options: Unpack[LossOptions],
) -> Any:
    """:func:`pc_lc_loss` by its definition in plain PyTorch, the oracle of every kernel.

    It takes the same arguments except ``backend``, returns and raises the same, runs on any device
    and can be differentiated any number of times.

    Example:
        >>> import torch
        >>> from pclc_fast import reference_pc_lc_loss
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
        >>> round(reference_pc_lc_loss(logits, torch.tensor([0]), lc_weight=0.0).item(), 4)
        0.9943
    """
    return pc_lc_loss(
        input, target, weight, return_stats=return_stats, backend="reference", **options
    )


def _evaluate(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    return_stats: bool,
    backend: str | None,
) -> Any:
    check_flag("return_stats", return_stats)
    check_tensors(input, target, weight)
    loss, stats = loss_and_stats(
        input, target, weight, options, with_stats=return_stats, backend=choose(input, backend)
    )
    return (loss, stats) if return_stats else loss


V = TypeVar("V")


class _Option(Generic[V]):
    """An option of :class:`PCLCLoss` as an attribute that is checked when it is assigned."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, module: None, owner: type) -> Self: ...

    @overload
    def __get__(self, module: PCLCLoss, owner: type) -> V: ...

    def __get__(self, module: PCLCLoss | None, owner: type) -> Self | V:
        if module is None:  # asked of the class
            return self
        value: V = self._all(module)[self.name]
        return value

    def __set__(self, module: PCLCLoss, value: V) -> None:
        module._options = make_options(**{**self._all(module), self.name: value})

    def _all(self, module: PCLCLoss) -> dict[str, Any]:
        return {**module._options.keywords(), "label_smoothing": 0.0}  # it has no other value


class PCLCLoss(torch.nn.Module):
    """:func:`pc_lc_loss` as a module, a drop-in for ``nn.CrossEntropyLoss``.

    It takes the options of :func:`pc_lc_loss`. Every one of them is an attribute too; the
    coefficients can be assigned between epochs without recompiling a compiled model, unless it runs
    the reference, whose graph holds their values. ``weight`` is a buffer. Call it with ``input``
    and ``target``; see :func:`pc_lc_loss` for shapes and errors.

    Example:
        >>> import torch
        >>> from pclc_fast import PCLCLoss
        >>> criterion = PCLCLoss(pc_weight=0.0, lc_weight=0.0, ce_weight=1.0)  # warm-up: CE
        >>> criterion.pc_weight, criterion.lc_weight, criterion.ce_weight = 1.0, 0.05, 0.0
        >>> criterion
        PCLCLoss(margin=0.995, pc_weight=1.0, lc_weight=0.05, lc_cap=0.0, ce_weight=0.0, \
ignore_index=-100, reduction='mean', lc_mode='hard', pc_mean=False)
        >>> criterion(torch.zeros(4, 10), torch.arange(4)).shape
        torch.Size([])
    """

    margin = _Option[float]()
    pc_weight = _Option[float]()
    lc_weight = _Option[float]()
    lc_cap = _Option[float]()
    ce_weight = _Option[float]()
    label_smoothing = _Option[float]()
    ignore_index = _Option[int]()
    reduction = _Option[str]()
    lc_mode = _Option[str]()
    pc_mean = _Option[bool]()
    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,  # (K,)
        *,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        margin: float = 0.995,
        pc_weight: float = 1.0,
        lc_weight: float = 0.05,
        lc_cap: float = 0.0,
        lc_mode: LcMode = "hard",
        pc_mean: bool = False,
        ce_weight: float = 0.0,
        return_stats: bool = False,
        backend: str | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self._options = make_options(
            ignore_index=ignore_index,
            reduction=reduction,
            margin=margin,
            pc_weight=pc_weight,
            lc_weight=lc_weight,
            lc_cap=lc_cap,
            lc_mode=lc_mode,
            pc_mean=pc_mean,
            ce_weight=ce_weight,
            label_smoothing=label_smoothing,
        )
        check_flag("return_stats", return_stats)
        check_name(backend)
        self.return_stats = return_stats
        self.backend = backend
        self.register_buffer("weight", weight)

    @classmethod
    def released(cls, weight: Tensor | None = None, **options: Any) -> PCLCLoss:
        """The loss that the authors' released code computes, which is not the paper's.

        PC is divided by K - 1 and the logit constraint is soft. Relative to PC, lc_weight then
        weighs K - 1 times as much. ``options`` are those of :class:`PCLCLoss`.
        """
        return cls(weight, **{"pc_mean": True, "lc_mode": "soft", **options})

    def forward(self, input: Tensor, target: Tensor) -> Any:
        """Return the loss, or with ``return_stats`` the loss and :class:`LossStats`."""
        return _evaluate(input, target, self.weight, self._options, self.return_stats, self.backend)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self._options.keywords().items())
