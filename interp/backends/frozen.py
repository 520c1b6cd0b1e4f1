"""For a while, every norm of a Hugging Face model is an affine map, with the scale it has; and constants are kept.

LayerNorm and RMSNorm are a linear map times a scalar of each token, plus a bias. With the scalar held, gradients are
those of the affine map, and values are the norm's own: what rounding leaves between the two is counted as bias.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.model import Model
from interp.precision import widened


@dataclass(frozen=True)
class Constant:
    """Something that a run adds whatever its prompt.

    Attributes:
        layer: The block in which it is added; None after the last.
        value: What is added, to each token or to all alike.
        onto: What holds the sum, in the graph of the run.
    """

    layer: int | None
    value: Float[Tensor, "... d"]
    onto: Float[Tensor, "... d"]


@contextmanager
def frozen_norms(model: Model) -> Iterator[Sequence[Constant]]:
    """For a while, every norm's scale is held; gives the constants that a run adds from its first block on.

    Args:
        model: On plain Hugging Face modules.

    Raises:
        ValueError: A norm that is more than a scale and a linear map.
    """
    with model.alone, ExitStack() as stack:
        hooks = _Hooks({module: i for i, block in enumerate(model.blocks) for module in block.modules()})
        add = lambda module, hook: stack.callback(module.register_forward_hook(hook).remove)
        stack.callback(model.blocks[0].register_forward_pre_hook(hooks.begin).remove)
        for module in model.module.modules():
            if "norm" in type(module).__name__.lower() and not list(module.children()):
                add(module, hooks.norm)
            elif isinstance(getattr(module, "bias", None), nn.Parameter):
                add(module, hooks.biased)
        yield hooks.constants


@dataclass
class _Hooks:
    layers: dict[nn.Module, int]
    constants: list[Constant] = field(default_factory=list)
    begun: bool = False

    def begin(self, block: nn.Module, args: tuple) -> None:
        self.begun = True
        self.constants.clear()

    def norm(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        affine, rest = _affine(module, args[0], output)
        return self._keep(module, rest, affine)

    def biased(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return self._keep(module, module.bias.detach(), output)  # type: ignore[union-attr, operator]

    def _keep(self, module: nn.Module, value: Tensor, onto: Tensor) -> Tensor:
        if not self.begun:
            return onto
        own = onto.view_as(onto)
        self.constants.append(Constant(self.layers.get(module), value, own))
        return own.clone()  # some families write into it


def _affine(norm: nn.Module, x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"]) -> tuple[Tensor, Tensor]:
    """What a norm made of x as an affine function of x at the scale that it had, and the constant in it."""
    call: Callable[[Tensor], Tensor] = norm.forward
    d = x.shape[-1]
    with torch.no_grad():
        # What it makes of zero, of a constant and of a vector of which no entry is its mean tells the whole map.
        ones = x.new_ones(d)
        signs = torch.where(torch.arange(d, device=x.device) % 2 == 0, 1.0, -1.0).to(x)
        bias, flat, bent = (widened(call(v[None, None])[0, 0]) for v in (0 * ones, ones, signs))
        centred = bool((flat - bias).abs().max() <= 1e-3 * (bent - bias).abs().max())
        weight = (bent - bias) / (signs - signs.mean() if centred else signs)
    x, wide = widened(x), widened(y)
    line = weight * (x - x.mean(-1, keepdim=True) if centred else x)
    with torch.no_grad():
        gained = wide - bias
        scale = (gained * line).sum(-1, keepdim=True) / (line * line).sum(-1, keepdim=True).clamp(min=1e-30)
    line = scale * line
    rest = (wide - line).detach()
    tolerance = 1e-4 if y.dtype.itemsize >= 4 else 3e-2
    if bool((rest - bias).abs().max() > tolerance * wide.abs().max()):
        raise ValueError(
            f"{type(norm).__name__} is not a linear map times a scale for each token, so that its scale cannot be held"
        )
    return (line + rest).to(y.dtype), rest
