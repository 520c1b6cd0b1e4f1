"""For a while, modules do what they do in a quicker way, which stands in the place of their `forward` (decision 9)."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import MethodType
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from torch import Tensor, nn

from interp.prepacked import forget, prepack
from interp.products import LEAST, linear, quick_functions, serves, wanted

_GELUS = ("NewGELUActivation", "FastGELUActivation")  # transformers' `gelu_new` and `gelu_fast`, spelled out in 8 steps

_KNOWN: WeakKeyDictionary[nn.Module, list[ReferenceType[nn.Module]]] = WeakKeyDictionary()


@contextmanager
def quick(root: nn.Module, constant: int = 0) -> Iterator[None]:
    """For a while, let a module and those inside it take the quicker way, if they have one; in one thread at a time.

    What they give is the same up to rounding, and every hook sees what it sees otherwise.

    Args:
        constant: How many rows of each product with a matrix are constants, the first ones, and so are the matrices: in
            the backward pass no work is done for them, on any processor.
    """
    products = constant > 0 or wanted()
    served = [module for module in _served(root) if _is_gelu(module) or (products and _is_large_matrix(module))]
    forget(())
    free = [module for module in served if _is_free(module)]
    # Where a library has put its own, as nnsight does, the functions of torch that it calls in the end are looked at.
    functions = quick_functions(constant) if products and len(free) < len(served) else nullcontext()
    before = [vars(module).get("forward") for module in free]
    try:
        for module in free:
            way = _gelu if _is_gelu(module) else _product(constant)
            vars(module)["forward"] = MethodType(way, module)  # which a copy of the module binds to itself
        with functions:
            yield
    finally:
        for module, outer in zip(free, before):
            vars(module).pop("forward", None)
            if outer is not None:
                vars(module)["forward"] = outer


def prepack_matrices(root: nn.Module, keep: bool) -> None:
    """Keep the matrices that have a quicker way in its own order, too, or no longer.

    Those that are another parameter's memory, too, are left out: a change is counted for the one that it is made by.
    """
    owners = [module for module in root.modules() if _is_large_matrix(module)]
    forget(owners)
    if keep:
        shared = Counter(parameter.data_ptr() for parameter in {id(p): p for p in root.parameters()}.values())
        prepack(owner for owner in owners if shared[owner.weight.data_ptr()] == 1)  # type: ignore[union-attr, operator]


def _served(root: nn.Module) -> list[nn.Module]:
    """The modules that may have a quicker way, looked for once: one that comes later only is not quick."""
    if root not in _KNOWN:
        _KNOWN[root] = [ref(module) for module in root.modules() if _is_gelu(module) or _is_large_matrix(module)]
    return [module for found in _KNOWN[root] if (module := found()) is not None]


def _gelu(module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    if kwargs or args[0].dtype.itemsize < 4:  # in half precision the rounding of its own steps is kept
        return type(module).forward(module, *args, **kwargs)
    return nn.functional.gelu(args[0], approximate="tanh")


def _product(constant: int) -> Callable[..., Tensor]:
    def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        weight: Any = module.weight if type(module) is nn.Linear else module.weight.T  # type: ignore[operator]
        if kwargs or not serves(args[0], weight, constant):
            return type(module).forward(module, *args, **kwargs)
        return linear(args[0], weight, module.bias, constant)  # type: ignore[arg-type]

    return forward


def _is_free(module: nn.Module) -> bool:
    """Whether nothing but ours stands in the place of `forward`."""
    there = vars(module).get("forward")
    return there is None or getattr(there, "__module__", "") == __name__


def _is_gelu(module: nn.Module) -> bool:
    return type(module).__name__ in _GELUS and "transformers" in type(module).__module__


def _is_large_matrix(module: nn.Module) -> bool:
    name = type(module).__name__
    known = type(module) is nn.Linear or (name == "Conv1D" and "transformers" in type(module).__module__)
    return known and module.weight.numel() >= LEAST  # type: ignore[union-attr, operator]
