"""The strongest steering within a budget of side effects, chosen on some prompts and reported on others.

The budget is a KL divergence on neutral text, as in Arditi et al. 2024 (arXiv:2406.11717); baselines and the split into
choice and report follow Wu et al. 2025 (arXiv:2501.17148).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check, labelled
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.progress import Progress
from interp.resampling import bounds_of_shares
from interp.stats import interval
from interp.steering.application import Setting, doses_of, setting_of
from interp.steering.comparison import prefixed, swept
from interp.steering.evaluation import beats, costs, described, places_of, side_effects
from interp.steering.nulls import varied_like
from interp.steering.vector import Vectors, many

_AXBENCH = "arXiv:2501.17148"


@dataclass(frozen=True)
class Tuned:
    """What was chosen, and from what.

    Attributes:
        name: Of the candidate.
        setting: Its vectors, dose and way of applying them.
        table: By (candidate, dose): `effect`, the mean change of the metric; `flipped`, the share of prompts that it
            took across zero; `kl` on neutral text, and `kl_high`, the upper end of its interval.
    """

    name: str
    setting: Setting
    table: xr.Dataset

    def __repr__(self) -> str:
        chosen = f"{self.name!r} at dose {self.setting.dose:g}"
        return f"Tuned({chosen}, of {self.table.sizes['candidate']} candidates at {self.table.sizes['dose']} doses)"


@torch.no_grad()
def tune(
    model: Model,
    candidates: Mapping[str, Vectors],
    prompts: Prompts,
    metric: Metric,
    neutral: Prompts,
    doses: Sequence[float],
    budget: float = 0.1,
    progress: Progress = None,
    **options: Any,
) -> Tuned:
    """The candidate and the dose that flip most prompts within the budget; of several, those of the least side effects.

    Side effects have heavy tails: a few texts make up most of the mean. Give hundreds of neutral texts.

    Args:
        candidates: Vectors by name, of other sites perhaps, or found by other methods.
        prompts: To choose by; those that the result is reported for must be others.
        metric: Above zero where the model does what it is steered to do.
        neutral: Text on which steering should change nothing.
        budget: Of the KL divergence (nats); the upper end of its interval over texts must stay within it.
        options: As in `steer`: `op`, `unit`, `where`, `when`.

    Raises:
        ValueError: No candidates; no dose within the budget; prompts of which none can be flipped.
    """
    doses = doses_of(doses)
    if not candidates:
        raise ValueError("candidates are vectors by name, such as {'layer 2': vector}; none was given")
    settings = [Setting(vectors, dose, **options) for vectors in candidates.values() for dose in doses]
    before, *after = swept(model, model.tokens(prompts), metric, settings, progress)
    flipped = [k / n for k, n in (_flipped(before, values) for values in after)]
    effect = [float((values - before).mean()) for values in after]
    kl, *_ = costs(model, neutral, settings, progress)
    spread = interval(xr.DataArray(kl.cpu().numpy(), dims=("setting", "prompt")))
    table = np.array([effect, flipped, spread["mean"], spread["high"]]).reshape(4, -1, len(doses))
    axes: dict[str, Sequence[Any]] = {"candidate": list(candidates), "dose": doses}
    names = ("effect", "flipped", "kl", "kl_high")
    how: dict[str, Any] = {"method": "choice of steering", "metric": metric.name, "budget": budget}
    how |= described([v for vectors in candidates.values() for v in many(vectors)], options)
    data = xr.Dataset(
        {name: labelled(torch.tensor(part), name, axes, model, **how) for name, part in zip(names, table)}
    )
    i, j = _best(data, budget)
    name = list(candidates)[i]
    return Tuned(name, Setting(candidates[name], doses[j], **options), data)


def _flipped(before: Float[Tensor, " prompt"], after: Float[Tensor, " prompt"]) -> tuple[int, int]:
    """How many prompts went above zero, and how many were not there before."""
    below = before <= 0
    if not bool(below.any()):
        raise ValueError("the metric is above zero in all prompts already; give prompts that steering can flip")
    return int((after[below] > 0).sum()), int(below.sum())


def _best(table: xr.Dataset, budget: float) -> tuple[int, int]:
    within = (table.kl_high <= budget).values
    if not within.any():
        least = float(table.kl_high.min())
        raise ValueError(
            f"no dose stays within a KL divergence of {budget}; the least is {least:.3g}, give smaller doses"
        )
    flipped = np.where(within, table.flipped.values, -np.inf)
    cost = np.where(flipped == flipped.max(), table.kl.values, np.inf)
    i, j = np.unravel_index(cost.argmin(), cost.shape)
    return int(i), int(j)


@torch.no_grad()
def evaluate(
    model: Model,
    setting: Setting | Vectors,
    prompts: Prompts,
    metric: Metric,
    neutral: Prompts | None = None,
    nulls: Mapping[str, Sequence[Vectors]] | None = None,
    prefix: str | None = None,
    budget: float = 0.1,
    progress: Progress = None,
) -> xr.Dataset:
    """One setting on prompts that it was not chosen by: beside nulls, a prompting baseline, and its cost.

    Args:
        setting: Of `tune`, or any; or vectors, which are added once.
        metric: Above zero where the model does what it is steered to do.
        neutral: Text on which to measure side effects, if there is any that has the steered positions.
        nulls: As in `dose_response`; by default fifty of `varied_like`.
        prefix: Text put before each prompt, the baseline that needs no access to the model.

    Returns:
        `metric` by (way, prompt), of "unsteered", "steered", "prompted" and the nulls; `flipped`, the share of prompts
        taken across zero, by way; `kl` on neutral text by text. The attribute `verdict` says in words whether the
        vector reads the concept, and whether it steers: p <= 0.05 against every kind of null and half of the prompts
        flipped. Checks give the figures.
    """
    tokens = model.tokens(prompts)
    setting = setting_of(setting)
    nulls = {"varied": varied_like(model, tokens, setting.vectors, 50)} if nulls is None else nulls
    others = {f"{name} {i}": v for name, group in nulls.items() for i, v in enumerate(group)}
    settings = [setting, *(replace(setting, vectors=v) for v in others.values())]
    values = swept(model, tokens, metric, settings, progress)
    ways = ["unsteered", "steered", *others]
    if prefix is not None:
        prompted = metric(model.run(prefixed(model, tokens, prefix), last_only=metric.last_only))
        values, ways = torch.cat([values, prompted[None].to(values)]), [*ways, "prompted"]
    options = {name: value for name, value in vars(setting).items() if name not in ("vectors", "dose")}
    parts: dict[str, xr.DataArray] = {}
    if neutral is not None:
        cost = side_effects(model, neutral, setting.vectors, [setting.dose], progress, **options)
        parts["kl"] = cost["kl"].isel(dose=0, drop=True).rename(prompt="text")
    shares = [_flipped(values[0], value) for value in values]
    effects = (values - values[0]).mean(-1).tolist()
    kl = float(parts["kl"].mean()) if parts else float("nan")
    checks = _checks(shares, effects, places_of(nulls, 2), "prompted" in ways, kl, budget)
    how = {"method": "steering, held-out report", "metric": metric.name, "dose": setting.dose}
    how |= described(setting.vectors, options) | {"prefix": prefix or ""}
    how["verdict"] = _verdict(setting.vectors, shares[1][0] / shares[1][1], checks)
    parts["metric"] = labelled(values, "metric", {"way": ways, "prompt": range(len(tokens))}, model, checks, **how)
    flipped = torch.tensor([k / n for k, n in shares])
    parts["flipped"] = labelled(flipped, "flipped", {"way": ways}, model, checks, **how)
    return xr.Dataset(parts, attrs=parts["metric"].attrs)


def _checks(
    shares: list[tuple[int, int]],
    effects: list[float],
    nulls: Mapping[str, range],
    prompted: bool,
    kl: float,
    budget: float,
) -> list[Check]:
    k, n = shares[1]
    low, high = bounds_of_shares(k, n)
    why = f"{k} of {n} prompts, {low:.2f} to {high:.2f} at 95 % (Clopper-Pearson)"
    rows = [Check.at_least("share of prompts flipped", k / n, 0.5, why)]
    for kind, group in nulls.items():
        most = max((shares[i][0] / shares[i][1] for i in group), default=float("nan"))
        what = f"the mean effect against {len(group)} {kind} vectors, of which none flips more than {most:.2f}"
        rows.append(beats(f"effect against {kind} vectors", what, effects[1], [effects[i] for i in group]))
    if prompted:
        ratio = effects[1] / (effects[-1] or 1e-12)
        why = "mean effect over that of the prompt alone, which is hard to beat"
        rows.append(Check.at_least("effect over prompting", ratio, 1.0, why, _AXBENCH))
    why = "mean KL divergence (nats) on neutral text"
    return [*rows, Check.at_most("side effects", kl, budget, why, "arXiv:2406.11717", otherwise="fail")]


def _verdict(vectors: Vectors, flipped: float, checks: Sequence[Check]) -> str:
    """Whether it reads, by what extraction found out, and whether it steers."""
    found = {c.status for v in many(vectors) for c in v.checks if c.name == "held-out AUROC of the reader"}
    reads = "reading was not tested" if not found or "skipped" in found else (
        "reads the concept" if found == {"pass"} else "does not read the concept"
    )  # fmt: skip
    against = {check.status for check in checks if check.name.startswith("effect against")}
    if flipped < 0.5 or "fail" in against:
        steers = "does not steer it"
    else:
        steers = "steers it" if against == {"pass"} else "whether it steers was not tested"
    but = "but" if (reads == "reads the concept") != (steers == "steers it") else "and"
    cost = ", at a cost above the budget" if checks[-1].status == "fail" else ""
    return f"{reads}, {but} {steers}{cost}"
