"""captum's methods at any site: one adapter, and the usual ones by name.

captum: Kokhlikyan et al. 2020 (arXiv:2009.07896). For integrated gradients take `integrated_gradients`, which knows
when it has converged.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool
from torch import Tensor

from interp.attribution.baselines import Baseline, baseline_of, held
from interp.attribution.function import SiteFunction
from interp.attribution.labels import label
from interp.attribution.straight import Attributed
from interp.grid import Roles
from interp.metrics import Metric, as_metric
from interp.model import Model, Prompts
from interp.precision import widened
from interp.sites import Site

Method = Callable[[SiteFunction], Any]  # makes a captum method of a function


def by_captum(
    model: Model,
    clean: Prompts,
    site: Site,
    metric: Metric,
    method: Method,
    *,
    over: Sequence[str] = ("pos",),
    roles: Roles = (),
    baseline: Baseline | None = None,
    grouped: bool = False,
    average: bool = False,
    seed: int = 0,
    **options: Any,
) -> xr.DataArray:
    """Any captum method that takes a function, at any site.

    Args:
        method: The method, such as `captum.attr.Saliency`, or `lambda f: NoiseTunnel(Saliency(f))`.
        over: Axes of the site that have a share for each index; other axes are summed over.
        roles: Names of positions; if given, `pos` in `over` runs over these.
        baseline: What is passed on as `baselines`, for methods that take them; see `integrated_gradients`.
        grouped: Pass a `feature_mask`, so that a perturbation changes all that has one index of `over` together.
        average: Average over the entries of other axes instead of adding them up; grouped methods always do, for they
            give every member of a group the share of the whole group.
        seed: Of whatever the method draws at random.
        options: What else its `attribute` takes.

    Returns:
        Attributions by (*over, prompt), NaN at padding.

    Raises:
        ValueError: Axes or a baseline that do not fit the site; a site that the model cannot edit.
    """
    of = Attributed.run(model, model.tokens(clean), site, [as_metric(metric)], over, roles)
    function = SiteFunction(model, of.tokens, site, metric, of.value)
    if baseline is not None:
        options["baselines"] = held(model, of.tokens, site, of.value, baseline)
    if grouped:
        options["feature_mask"] = _groups(of.value, site, over)
    made = method(function)
    with _seeded(seed, model.device):
        value = of.value.detach().clone().requires_grad_()
        scores = made.attribute(value, additional_forward_args=(function.rows,), **options).detach()
    values = of.grid.total(widened(scores), site.axes, of.tokens)
    if grouped or average:
        values = values / of.grid.total(torch.ones_like(scores), site.axes, of.tokens)
    return label(values, of, {}, method=_name(made), metric=metric.name, seed=seed)


def gradient_x_input(model: Model, clean: Prompts, site: Site, metric: Metric, **options: Any) -> xr.DataArray:
    """The gradient times what the site holds: what the linearised metric loses when it is put to zero.

    Shrikumar et al. 2017 (arXiv:1704.02685). Args, returns and errors as for `by_captum`.
    """
    from captum.attr import InputXGradient

    return by_captum(model, clean, site, metric, InputXGradient, **options)


def saliency(model: Model, clean: Prompts, site: Site, metric: Metric, **options: Any) -> xr.DataArray:
    """The size of the gradient, summed over entries: how sensitive the metric is there, without a sign.

    Simonyan et al. 2014 (arXiv:1312.6034). Args, returns and errors as for `by_captum`.
    """
    from captum.attr import Saliency

    return by_captum(model, clean, site, metric, Saliency, **options)


def smooth_grad(
    model: Model, clean: Prompts, site: Site, metric: Metric, noise: float = 0.1, draws: int = 16, **options: Any
) -> xr.DataArray:
    """Gradient times input under Gaussian noise, averaged.

    SmoothGrad: Smilkov et al. 2017 (arXiv:1706.03825).

    Args:
        noise: Its standard deviation, as a share of that of what the site holds, padding left out.
        draws: How often noise is drawn. Further args, returns and errors as for `by_captum`.
    """
    from captum.attr import InputXGradient, NoiseTunnel

    if draws < 1 or noise < 0:
        raise ValueError(f"noise is a share from 0 on, drawn at least once; noise={noise}, draws={draws} were given")
    trace = model.run(clean, read=[site], last_only=True)
    value = trace[site][trace.tokens.mask.bool()] if "pos" in site.axes else trace[site]
    spread = float(value.std()) * noise
    tunnel = lambda f: NoiseTunnel(InputXGradient(f))
    more: dict[str, Any] = {"nt_type": "smoothgrad", "nt_samples": draws, "nt_samples_batch_size": 1, "stdevs": spread}
    return by_captum(model, clean, site, metric, tunnel, **more, **options)


def gradient_shap(
    model: Model, clean: Prompts, baseline: Baseline, site: Site, metric: Metric, draws: int = 16, **options: Any
) -> xr.DataArray:
    """Expected gradients: at random points on paths from baselines drawn at random among those of all prompts.

    Lundberg & Lee 2017 (arXiv:1705.07874), Erion et al. 2021 (arXiv:1906.10670).

    Args:
        baseline: As for `integrated_gradients`; every prompt is compared with those of all prompts.
        draws: Random points for each prompt. Further args, returns and errors as for `by_captum`.

    Raises:
        ValueError: Prompts of different lengths.
    """
    from captum.attr import GradientShap

    tokens = model.tokens(clean)
    if not bool(tokens.mask.all()):
        raise ValueError("prompts of different lengths cannot be baselines of each other; give prompts of one length")
    more: dict[str, Any] = {"n_samples": draws, "stdevs": 0.0}
    return by_captum(model, tokens, site, metric, GradientShap, baseline=baseline_of(baseline), **more, **options)


def feature_ablation(
    model: Model, clean: Prompts, baseline: Baseline, site: Site, metric: Metric, **options: Any
) -> xr.DataArray:
    """What the metric loses when each index of `over` alone is put to the baseline: leave one out.

    Args, returns and errors as for `by_captum`.
    """
    from captum.attr import FeatureAblation

    return by_captum(
        model, clean, site, metric, FeatureAblation, baseline=baseline_of(baseline), grouped=True, **options
    )


def shapley(
    model: Model, clean: Prompts, baseline: Baseline, site: Site, metric: Metric, draws: int = 25, **options: Any
) -> xr.DataArray:
    """What the metric loses when an index of `over` is put to the baseline, averaged over orders drawn at random.

    Shapley values, sampled: Castro et al. 2009 (doi:10.1016/j.cor.2008.04.004).

    Args:
        draws: How many orders. Further args, returns and errors as for `by_captum`.
    """
    from captum.attr import ShapleyValueSampling

    more: dict[str, Any] = {"grouped": True, "n_samples": draws}
    return by_captum(
        model, clean, site, metric, ShapleyValueSampling, baseline=baseline_of(baseline), **more, **options
    )


def occlusion(
    model: Model, clean: Prompts, baseline: Baseline, site: Site, metric: Metric, window: int = 2, **options: Any
) -> xr.DataArray:
    """What the metric loses when a window of positions is put to the baseline, averaged over windows that hold each.

    Zeiler & Fergus 2014 (arXiv:1311.2901). Positions next to an end are in fewer windows; windows lie within a prompt,
    which captum's own do not where prompts are padded.

    Args:
        window: How many positions. Further args, returns and errors as for `by_captum`.
    """
    tokens = model.tokens(clean)
    shortest = int(tokens.mask.sum(-1).min())
    if "pos" not in site.axes or not 1 <= window <= shortest:
        raise ValueError(
            f"windows are of 1 to {shortest} positions, the shortest prompt's, of a site that has them; "
            f"window={window} at {site} was given"
        )
    method = lambda f: Occlusion(f, tokens.mask.bool(), window)
    return by_captum(model, tokens, site, metric, method, baseline=baseline_of(baseline), average=True, **options)


@dataclass(frozen=True)
class Occlusion:
    """Windows of positions without padding, each put to the baseline; called as captum calls its methods."""

    function: SiteFunction
    present: Bool[Tensor, "prompt pos"]
    window: int

    @torch.no_grad()
    def attribute(self, inputs: Tensor, baselines: Tensor, additional_forward_args: tuple[Tensor, ...]) -> Tensor:
        """The mean loss over the windows that hold each position, at all entries there."""
        whole = self.function(inputs, *additional_forward_args)
        lost, windows = (torch.zeros(self.present.shape, device=whole.device, dtype=whole.dtype) for _ in range(2))
        for start in range(self.present.shape[1] - self.window + 1):
            place = slice(start, start + self.window)
            if bool((inside := self.present[:, place].all(-1)).any()):
                changed = inputs.clone()
                changed[:, place] = baselines[:, place]
                loss = whole - self.function(changed, *additional_forward_args)
                lost[:, place] += torch.where(inside, loss, 0)[:, None]
                windows[:, place] += inside[:, None]
        mean = lost / windows.clamp(min=1)
        return mean.reshape(*mean.shape, *(1,) * (inputs.ndim - 2)).expand_as(inputs)


def _groups(value: Tensor, site: Site, over: Sequence[str]) -> Tensor:
    """Numbers of the groups that entries belong to: one for each combination of indices along some axes."""
    sizes = [size if axis in over else 1 for axis, size in zip(site.axes, value.shape)]
    numbers = torch.arange(int(np.prod(sizes[1:])), device=value.device).reshape(1, *sizes[1:])
    return numbers.expand(1, *value.shape[1:]).contiguous()  # captum takes a view of it


def _name(method: Any) -> str:
    """What a captum method, or one inside another, is called."""
    inner = getattr(method, "attribution_method", None)
    return type(method).__name__ + (f" of {type(inner).__name__}" if inner is not None else "")


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a seed of one's own; captum draws from the global generators of both torch and NumPy."""
    state = np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)
