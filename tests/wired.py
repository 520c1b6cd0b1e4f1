"""Tiny models whose edges are tested, in float64 as far as their norms go, and pairs of prompts for them."""

import tiny
import torch
from torch import Tensor, nn

import interp
from interp import metrics

METRIC = metrics.logit_diff(4, 5)
EXACT = {torch.float32: 1e-5, torch.float64: 1e-10}


class WideNorm(nn.Module):
    """A root-mean-square norm that keeps float64, which transformers' own rounds to float32."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight = norm.weight.data + ("Gemma" in type(norm).__name__)
        self.eps = getattr(norm, "variance_epsilon", None) or norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * (x.pow(2).mean(-1, keepdim=True) + self.eps).rsqrt()


def model_of(family: str, dtype: torch.dtype = torch.float64, **changes) -> interp.Model:
    module = tiny.build(family, dtype, **changes)
    if dtype == torch.float64:
        for name, norm in list(module.named_modules()):
            if "RMSNorm" in type(norm).__name__:
                module.set_submodule(name, WideNorm(norm))
    return interp.load(module.eval(), tokenizer=tiny.tokenizer())


def pair(model: interp.Model) -> tuple[interp.Tokens, interp.Tokens]:
    """Two prompts, the second padded, and others that differ from the third position on."""
    ids = torch.randint(1, 30, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, :1] = 0
    other = ids.clone()
    other[:, 3:5] = ids[:, 3:5] % 29 + 1
    return model.tokens((ids, mask)), model.tokens((other, mask))
