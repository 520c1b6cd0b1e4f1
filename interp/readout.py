"""A metric as a linear function of the last residual stream, with the final norm's scale held as it was in a run.

Near zero a norm is linear, for its epsilon outweighs what it is given; elsewhere LayerNorm and RMSNorm are that linear
map times a scalar of each input. So the map is the gradient of the unembedding at zero, the scalar is how much less the
model's own logits gained, and both come from the unembedding alone, whatever the norm, its weights and its backend.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.arguments import check_differentiable
from interp.metrics import Metric
from interp.model import Model
from interp.precision import widened


@dataclass(frozen=True)
class Readout:
    """What a metric reads from the last residual stream of each prompt.

    Attributes:
        weight: The direction read, mean centring, the norm's weights and its scale included; in single precision at
            least.
        bias: The metric of a stream of zeros: the norm's bias, unembedded, and that of the unembedding.
    """

    weight: Float[Tensor, "prompt d_model"]
    bias: Float[Tensor, " prompt"]

    def of(self, change: Float[Tensor, "*cell prompt d_model"]) -> Float[Tensor, "*cell prompt"]:
        """How much something added to the stream moves the metric."""
        return (widened(change) * self.weight).sum(-1)


def readout(model: Model, metric: Metric, resid: Float[Tensor, "prompt d_model"]) -> Readout:
    """The readout of a metric at the norm's scale for each prompt's last residual stream.

    Where a model caps its logits, this is the metric of the logits before the cap, for the cap is not linear.

    Raises:
        ValueError: A metric that is not linear in the logits; a final norm that is not finite at zero.
    """
    check_differentiable()
    with torch.no_grad():
        logits = model.unembed(resid)
    check_linear(metric, logits)
    with torch.enable_grad():
        zero = torch.zeros_like(resid).requires_grad_()
        at_zero = uncapped(model, model.unembed(zero))
        bias = metric.of_logits(at_zero)
        gain = widened(uncapped(model, logits)) - widened(at_zero.detach())
        trusted = gain * _passed(model, logits) ** 2  # a logit near the cap says little of what was capped
        trusted = trusted / trusted.norm(dim=-1, keepdim=True)  # half precision would overflow
        (pulled,) = torch.autograd.grad(at_zero, zero, trusted.to(at_zero.dtype), retain_graph=True)
        (slope,) = torch.autograd.grad(bias.sum(), zero)
    scale = (trusted * gain).sum(-1) / (widened(pulled) * widened(resid)).sum(-1)
    if not bool(scale.isfinite().all()):
        raise ValueError(f"the final norm of {model.name} is not finite at zero, so that its scale cannot be held")
    return Readout((scale[:, None] * widened(slope)).detach(), widened(bias.detach()))


def uncapped(model: Model, logits: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch vocab"]:
    """Logits as they were before the model's soft cap, if it has one."""
    cap = model.logit_cap
    most = 1 - torch.finfo(logits.dtype).eps  # what is rounded to the cap was not infinite
    return logits if cap is None else cap * (logits / cap).clamp(-most, most).atanh()


def check_linear(metric: Metric, logits: Float[Tensor, "prompt vocab"]) -> None:
    """Refuse a metric that cannot be shared out, because it is no linear function of the logits.

    Raises:
        ValueError: Such a metric.
    """
    if not is_linear(metric, logits):
        raise ValueError(
            f"{metric.name} is not linear in the logits, so that no component has a share of it; "
            f"use metrics.logit or metrics.logit_diff"
        )


def is_linear(metric: Metric, logits: Float[Tensor, "prompt vocab"]) -> bool:
    """Whether a metric is a linear function of such logits, plus a constant; tried on random ones."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(logits.shape, generator=generator).to(logits.device) for _ in range(2))
    straight = metric.of_logits(a) + 2 * (metric.of_logits(b) - metric.of_logits(0 * b))
    size = metric.of_logits(a).abs().max() + metric.of_logits(b).abs().max()
    return bool((metric.of_logits(a + 2 * b) - straight).abs().max() <= 1e-4 * size)


def _passed(model: Model, logits: Tensor) -> Tensor:
    """How much the model's soft cap lets through at each logit."""
    cap = model.logit_cap
    return torch.ones_like(logits) if cap is None else 1 - (logits / cap) ** 2
