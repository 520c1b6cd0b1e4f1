"""Products with large matrices, on processors for which torch's choice of a library is not the fastest (decision 9)."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from interp.prepacked import prepacked

LEAST = 2**17  # elements of a matrix, from which on it gains
_WORK = 2**21  # products of numbers in one pair of matrices of a stack, which is a call of its own


def quick_functions(constant: int = 0) -> TorchFunctionMode:
    """For a while, and in this thread alone, `linear` below in the place of torch's own functions, where it serves.

    Every function of torch is looked at, which costs more than a few of them are worth.
    """
    return _Functions(constant)


def linear(
    x: Float[Tensor, "*row inward"],
    weight: Float[Tensor, "outward inward"],
    bias: Float[Tensor, " outward"] | None,
    constant: int = 0,
) -> Float[Tensor, "*row outward"]:
    """x @ weight.T + bias for what `serves` allows, by oneDNN wherever it is faster.

    Torch takes MKL, which leaves half of the speed of processors that are not Intel's unused. The products are as
    exact, though not bit by bit the same. Gradients reach everything that they reach otherwise.
    `torch.backends.mkldnn.flags(enabled=False)` turns it off.

    Args:
        constant: How many rows, the first ones, are constants, and so are the matrices: in the backward pass no work is
            done for them, on any processor.
    """
    product = _Product.apply(x, weight.detach(), None if bias is None else bias.detach(), constant)
    wanted = weight.requires_grad or (bias is not None and bias.requires_grad)
    if torch.is_grad_enabled() and wanted and not constant:
        product = product + _Weights.apply(x.detach(), weight, bias)
    return product


def serves(x: Any, matrix: Any, constant: int = 0) -> bool:
    """Whether a product is large, and one that `linear` can make."""
    return (
        _plain(x, matrix)
        and matrix.numel() >= LEAST
        and x.numel() > 0
        and (constant > 0 or _is_quick(x, matrix))
        and not torch.is_autocast_enabled(x.device.type)
        and not _transformed()
    )


def products_of(
    a: Float[Tensor, "pair row inner"], b: Float[Tensor, "pair inner out"], out: Tensor | None = None
) -> Float[Tensor, "pair row out"]:
    """a @ b for each pair of matrices, by oneDNN if they are large and it is faster.

    Args:
        out: What to write into.
    """
    differentiable = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)
    large = a.shape[1] * b[0].numel() >= _WORK
    if differentiable or not large or not _exact(a, b) or not wanted():
        return torch.bmm(a, b) if out is None else torch.bmm(a, b, out=out)
    out = a.new_empty(*a.shape[:2], b.shape[2]) if out is None else out
    for product, x, y in zip(out, a, b):
        y = y if y.mT.is_contiguous() else y.contiguous()  # in other orders it is slow beyond measure
        product.copy_(_by_onednn(x.contiguous(), y.mT, None))
    return out


def wanted() -> bool:
    """Whether oneDNN is to be taken: it is faster here, and nobody has turned it off."""
    return bool(torch.backends.mkldnn.enabled) and is_faster()


@cache
def is_faster() -> bool:
    """Whether this processor is one for which oneDNN is faster than MKL, and torch has both."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    there = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    there = there and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and str(known.get("cpu_name")).startswith("AMD") and bool(known.get("avx512_f"))


class _Functions(TorchFunctionMode):
    """Sees every function of torch that is called."""

    def __init__(self, constant: int) -> None:
        super().__init__()
        self._constant = constant

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.linear and len(args) >= 2 and kwargs.keys() <= {"bias"}:
            x, weight, bias = (*args, kwargs.get("bias"))[:3]
            if serves(x, weight, self._constant):
                return linear(x, weight, bias, self._constant)
        elif func is torch.addmm and len(args) == 3 and not kwargs:
            bias, x, matrix = args
            if bias.ndim == 1 and serves(x, matrix, self._constant):
                return linear(x, matrix.T, bias, self._constant)
        return func(*args, **kwargs)


def _plain(*tensors: Any) -> bool:
    return all(type(x) in (Tensor, nn.Parameter) for x in tensors)


def _transformed() -> bool:
    """Whether a transform of torch.func is under way, whose tensors stand for others; if torch does not say so, yes."""
    active: Callable[[], bool] | None = getattr(torch._C, "_are_functorch_transforms_active", None)
    return active is None or active()


def _exact(*tensors: Any) -> bool:
    """Whether all are plain tensors of single precision on the processor."""
    return _plain(*tensors) and all(x.dtype is torch.float32 and x.is_cpu for x in tensors)


def _is_quick(x: Tensor, matrix: Tensor) -> bool:
    """Whether oneDNN makes a product, and faster; in other orders of the matrix it is slow beyond measure."""
    return _exact(x, matrix) and (matrix.is_contiguous() or matrix.mT.is_contiguous()) and wanted()


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, prepacked(weight), bias, "none", [], "")


class _Product(torch.autograd.Function):
    """x @ weight.T + bias, of which the weights, and so many of the first rows, are constants."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, constant: int) -> Float[Tensor, "*row out"]:
        ctx.save_for_backward(weight)
        ctx.save_for_forward(weight)
        ctx.constant = constant
        return (_by_onednn if _is_quick(x, weight) else nn.functional.linear)(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,), constant = ctx.saved_tensors, ctx.constant
        found = _Product.apply(grads[0][..., constant:, :] if constant else grads[0], weight.T, None, 0)
        return nn.functional.pad(found, (0, 0, constant, 0)) if constant else found, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _Product.apply(tangents[0], ctx.saved_tensors[0], None, 0)


class _Weights(torch.autograd.Function):
    """Zeros that carry the gradient of the weights: as a node of its own it costs nothing where nobody asks for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Float[Tensor, "*row out"]:
        ctx.save_for_backward(x)
        return x.new_zeros(()).expand(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor | None]:
        grad, x = grads[0].flatten(0, -2), ctx.saved_tensors[0].flatten(0, -2)
        return None, grad.T @ x, grad.sum(0) if ctx.needs_input_grad[2] else None
