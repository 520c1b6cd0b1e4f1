"""What steering does, over doses and beside vectors that should do nothing; and what else it does.

Norm-matched random vectors and side effects: Arditi et al. 2024 (arXiv:2406.11717). Slopes of single prompts, and those
that go the wrong way: Tan et al. 2024 (arXiv:2407.12404).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check, attach, labelled
from interp.metrics import Metric, kl_from, log_prob
from interp.model import Model, Prompts
from interp.progress import Progress
from interp.replay import run_recorded
from interp.resampling import FEWEST_NULLS, bounds_of_shares
from interp.steering.application import Setting, doses_of, steer
from interp.steering.nulls import varied_like
from interp.steering.vector import Vectors, many
from interp.sweep import Cell, sweep
from interp.traces import Tokens

_TAN = "arXiv:2407.12404"
DOSES = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
_LOGITS = 2**26  # so many logits of neutral text are held at a time


@torch.no_grad()
def dose_response(
    model: Model,
    prompts: Prompts,
    vectors: Vectors,
    metric: Metric,
    doses: Sequence[float] = DOSES,
    nulls: Mapping[str, Sequence[Vectors]] | None = None,
    progress: Progress = None,
    **options: Any,
) -> xr.DataArray:
    """The metric under doses of steering, and of vectors that should do nothing.

    Args:
        nulls: By name, such as `{"random": random_like(vectors), "permuted": permuted_like(model, concept, vectors)}`;
            by default "varied": twenty of `varied_like`.
        options: As in `steer`: `op`, `unit`, `where`, `when`.

    Returns:
        Values by (vector, dose, prompt); the first vector is "steered", the others "varied 0", "varied 1", ... Checks:
        the slope against those of the nulls, of which it takes nineteen, and the share of prompts that go the wrong
        way; both are skipped where there are not two different doses.

    Raises:
        ValueError: No doses; what `steer` raises.
    """
    tokens, doses = model.tokens(prompts), doses_of(doses)
    nulls = {"varied": varied_like(model, tokens, vectors)} if nulls is None else nulls
    named = {"steered": vectors} | {f"{name} {i}": v for name, group in nulls.items() for i, v in enumerate(group)}
    cells = [steer(vector, dose, **options) for vector in named.values() for dose in doses]
    swept = sweep(model, tokens, cells, [metric], progress=progress)
    values = swept.values.view(len(named), len(doses), -1)
    coords: dict[str, Sequence[Any]] = {"vector": list(named), "dose": doses, "prompt": range(len(tokens))}
    checks = [_against(values, doses, own, name) for name, own in places_of(nulls, 1).items()]
    checks.append(_wrong_way(values[0], doses))
    how = {"method": "steering", "metric": metric.name} | described(vectors, options) | swept.how
    return labelled(values, metric.name, coords, model, checks, **how)


def described(vectors: Vectors, options: Mapping[str, Any]) -> dict[str, Any]:
    """What belongs into the provenance of a result: the vectors, and the way they are applied."""
    listed = many(vectors)
    plain = {name: str(value) for name, value in (vars(Setting(vectors)) | dict(options)).items()}
    kept = {name: plain[name] for name in ("op", "unit", "where")}
    kept["when"] = "" if options.get("when") is None else f"{options['when'].vector.site} at {options['when'].at}"
    return kept | {"site": ", ".join(str(v.site) for v in listed), "concept": str(listed[0].how.get("concept", ""))}


def slope(values: Float[Tensor, "*vector dose prompt"], doses: Sequence[float]) -> Float[Tensor, "*vector prompt"]:
    """The least-squares slope of the metric over the dose."""
    x = torch.tensor(doses, dtype=torch.float64, device=values.device)
    x = x - x.mean()
    return torch.einsum("d,...dp->...p", x / x.square().sum().clamp(min=1e-12), values.double())


def slopes(values: xr.DataArray, level: float = 0.95) -> xr.Dataset:
    """How single prompts respond: the slope of each, and how many go the wrong way.

    Args:
        values: Of `dose_response`; five doses or more.
        level: Of the interval, which is that of Clopper & Pearson 1934.

    Returns:
        `slope` by (vector, prompt); by vector the `median`, the quartiles `low` and `high`, and the share of prompts
        whose slope is negative, `wrong_way`, with its interval `wrong_way_low` and `wrong_way_high`.
    """
    if values.sizes["dose"] < 5:
        raise ValueError(f"slopes need five doses or more, not {values.sizes['dose']}")
    found = slope(
        torch.tensor(values.transpose("vector", "dose", "prompt").values), values.dose.values.tolist()
    ).numpy()
    axes = {"vector": values["vector"].values}
    low, median, high = np.quantile(found, [0.25, 0.5, 0.75], axis=1)
    wrong = (found < 0).sum(1)
    low_share, high_share = bounds_of_shares(wrong, found.shape[1], level)
    columns = {"median": median, "low": low, "high": high, "wrong_way": wrong / found.shape[1],
               "wrong_way_low": low_share, "wrong_way_high": high_share}  # fmt: skip
    data: dict[str, Any] = {name: ("vector", column) for name, column in columns.items()}
    data["slope"] = (("vector", "prompt"), found)
    return xr.Dataset(data, coords={**axes, "prompt": values.prompt.values}, attrs=values.attrs | {"level": level})


def places_of(nulls: Mapping[str, Sequence[Any]], start: int) -> dict[str, range]:
    """Where the vectors of each kind stand, if all kinds follow each other from some place on."""
    ends = np.cumsum([start, *(len(group) for group in nulls.values())]).tolist()
    return {name: range(a, b) for name, a, b in zip(nulls, ends, ends[1:])}


def p_above(value: float, nulls: Sequence[float]) -> float:
    """How often a null is as high, the value itself counted as one of them; NaN without any."""
    if not len(nulls) or value != value:
        return float("nan")
    return (1 + sum(not null < value for null in nulls)) / (1 + len(nulls))


def beats(name: str, what: str, value: float, nulls: Sequence[float], source: str = "") -> Check:
    """The check that a value is above those of nulls: skipped where they are too few for any value to be."""
    p = p_above(value, nulls)
    status = "skipped" if p != p or len(nulls) < FEWEST_NULLS else "pass" if p <= 0.05 else "fail"
    why = f"p-value of {what}; it takes {FEWEST_NULLS} nulls or more to reach 0.05, and {len(nulls)} were given"
    return Check(name, p, 0.05, status, why, source)


def _against(values: Float[Tensor, "vector dose prompt"], doses: Sequence[float], own: range, kind: str) -> Check:
    mean = slope(values, doses).mean(-1).tolist() if len(set(doses)) > 1 else [float("nan")] * len(values)
    what = f"the mean slope over two doses or more, against {kind} vectors"
    return beats(f"slope against {kind} vectors", what, mean[0], [mean[i] for i in own], _TAN)


def _wrong_way(values: Float[Tensor, "dose prompt"], doses: Sequence[float]) -> Check:
    if len(set(doses)) < 2:
        why = "a prompt has a direction over two different doses or more; one was given"
        return Check("share of prompts that go the wrong way", float("nan"), 0.1, "skipped", why, _TAN)
    wrong = int((slope(values, doses) < 0).sum())
    low, high = bounds_of_shares(wrong, values.shape[-1])
    why = (
        f"share of prompts that move the wrong way as the dose grows, {low:.2f} to {high:.2f} at 95 % "
        "(Clopper-Pearson); up to half were seen in the paper, which gives no threshold"
    )
    share = wrong / values.shape[-1]
    return Check.at_most("share of prompts that go the wrong way", share, 0.1, why, _TAN)


@torch.no_grad()
def side_effects(
    model: Model,
    texts: Prompts,
    vectors: Vectors,
    doses: Sequence[float] = DOSES,
    progress: Progress = None,
    **options: Any,
) -> xr.Dataset:
    """What the same steering does to text that has nothing to do with the concept.

    It is measured at the positions that can be affected: from the first steered one on. With the default `where` that
    is the last position of each text; give texts that end in many ways, or steer all positions.

    Args:
        options: As in `steer`.

    Returns:
        By (dose, prompt): `kl`, the mean KL divergence (nats) from the unsteered next-token distributions, and `loss`,
        the mean cross-entropy (nats) of the text's own next tokens; `loss_before` by prompt; and `perplexity` by dose,
        with `perplexity_before`. NaN where the text does not go on.
    """
    doses = doses_of(doses)
    kl, loss, before = costs(model, texts, [Setting(vectors, dose, **options) for dose in doses], progress)
    coords: dict[str, Sequence[Any]] = {"dose": doses, "prompt": range(len(before))}
    how = {"method": "side effects of steering"} | described(vectors, options)
    arrays = {name: labelled(value, name, coords, model, **how) for name, value in (("kl", kl), ("loss", loss))}
    arrays["loss_before"] = labelled(before, "loss before", {"prompt": coords["prompt"]}, model, **how)
    data = xr.Dataset(arrays, attrs=attach([], how))
    means = {"perplexity": data.loss.mean("prompt"), "perplexity_before": data.loss_before.mean("prompt")}
    return data.assign({name: mean.copy(data=np.exp(mean.values)) for name, mean in means.items()})


def costs(
    model: Model, texts: Prompts, settings: Sequence[Setting], progress: Progress
) -> tuple[Float[Tensor, "setting text"], Float[Tensor, "setting text"], Float[Tensor, " text"]]:
    """KL divergence and loss under settings that steer the same positions, from these on, and the loss before."""
    tokens, cells = model.tokens(texts), [setting.edits for setting in settings]
    (*_, steered) = replace(settings[0], dose=0.5).edits  # which no operator takes for nothing
    reach = torch.as_tensor(steered.first(tokens)).expand(len(tokens)).to(model.device)
    n_decoded = tokens.ids.shape[1] - int(reach.min())
    size = max(1, _LOGITS // (n_decoded * model.shape.d_vocab))
    parts = [
        _measured(model, tokens.rows(rows), reach[rows], n_decoded, cells, progress)
        for rows in (slice(start, start + size) for start in range(0, len(tokens), size))
    ]
    kl, loss, before = (torch.cat(part, -1) for part in zip(*parts))
    return kl, loss, before


def _measured(
    model: Model, tokens: Tokens, reach: Tensor, n_decoded: int, cells: Sequence[Cell], progress: Progress
) -> tuple[Tensor, Tensor, Tensor]:
    """The same of some texts, of which the last positions are decoded."""
    width, first = tokens.ids.shape[1], tokens.mask.argmax(1)
    columns = range(width - n_decoded, width)
    places = {str(c): first.clamp(min=c) for c in columns}  # where a column is padding, of what does not count
    sites = [edit.site for cell in cells for edit in cell]
    placed = replace(tokens, roles={**tokens.roles, **places})
    trace, recording = run_recorded(model, placed, sites, (), last_only=n_decoded == 1)
    logits = trace.logits[:, -n_decoded:].unbind(1)
    counted = torch.stack([(tokens.mask[:, c] == 1) & (reach <= c) for c in columns])  # (column, prompt)
    divergences = [kl_from(some).reading(str(c)) for some, c in zip(logits, columns)]
    words = [log_prob(tokens.ids[:, c + 1]).reading(str(c)) for c in columns[:-1]]
    values = sweep(model, recording or placed, cells, [*divergences, *words], progress=progress).values
    kl = _mean(values[:n_decoded], counted[:, None])
    loss = _mean(-values[n_decoded:], counted[:-1, None])
    before = [-word.of(some) for word, some in zip(words, logits)]
    return kl, loss, _mean(torch.stack(before) if before else values[:0, 0], counted[:-1])


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean over the first axis of what counts; NaN where nothing does."""
    return torch.where(counted, values, 0).sum(0) / torch.where(counted.sum(0) > 0, counted.sum(0), torch.nan)
