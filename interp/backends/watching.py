"""One short run of a model, and what went into each of its modules and came out."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from interp.locks import lock_of


@dataclass(frozen=True)
class Seen:
    """What a run of four tokens showed.

    Attributes:
        entered, left: The first tensor into and out of each module, when it was last called.
        calls: How often each was called.
        logits: What came of it.
    """

    entered: dict[nn.Module, Tensor]
    left: dict[nn.Module, Tensor]
    calls: Counter[nn.Module]
    logits: Tensor

    @classmethod
    def of(cls, module: nn.Module, **more: Any) -> "Seen":
        """Run a causal language model."""
        entered, left = {}, {}  # type: dict[nn.Module, Tensor], dict[nn.Module, Tensor]
        calls: Counter[nn.Module] = Counter()

        def before(part: nn.Module, args: tuple, kwargs: dict) -> None:
            _keep(entered, part, (*args, *kwargs.values()))

        def after(part: nn.Module, args: tuple, output: Any) -> None:
            calls[part] += 1
            _keep(left, part, output)

        with lock_of(module):
            handles = [part.register_forward_pre_hook(before, with_kwargs=True) for part in module.modules()]
            handles += [part.register_forward_hook(after) for part in module.modules()]
            try:
                return cls(entered, left, calls, run(module, **more))
            finally:
                for handle in handles:
                    handle.remove()


def _keep(where: dict[nn.Module, Tensor], part: nn.Module, value: Any) -> None:
    if (tensor := next(_tensors(value), None)) is not None:
        where[part] = tensor.clone()  # some families add in place


def short_prompt(module: nn.Module) -> Int[Tensor, "1 pos"]:
    """Four tokens, or as many as a model takes."""
    width = min(4, getattr(module.config, "max_position_embeddings", None) or 4)  # type: ignore[type-var]
    n_vocab: int = module.get_input_embeddings().num_embeddings  # type: ignore[operator, union-attr]
    return (torch.arange(width, device=next(module.parameters()).device)[None] + 1) % n_vocab


@torch.no_grad()
def run(module: nn.Module, **more: Any) -> Tensor:
    """The logits of a short prompt, without dropout."""
    with lock_of(module):
        training = [part for part in module.modules() if part.training]
        module.eval()
        try:
            return module(input_ids=short_prompt(module), use_cache=False, **more).logits
        finally:
            for part in training:
                part.training = True


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same up to rounding."""
    tolerance = max(1e-4, 4 * torch.finfo(b.dtype).eps)
    return a.shape == b.shape and bool(((a - b).abs().max() <= tolerance * b.abs().max()).item())


def is_matrix(module: nn.Module) -> bool:
    """Whether a module has a weight of two axes."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for member in value:
            yield from _tensors(member)
