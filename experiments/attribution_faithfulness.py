"""Which attribution method names the words that matter? Deletion and sufficiency against random orders and leave one out.

DeYoung et al. 2020 (arXiv:1911.03429).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from experiments.lab import Arrays, OnModel, Shown, option
from experiments.lab.arrays import together
from experiments.lab.options import chosen
from experiments.lab.subjects import open_model, open_task
from experiments.lab.wording import listed, percent, within

if TYPE_CHECKING:
    import xarray as xr

    from interp import Model
    from interp.attribution.baselines import Baseline
    from interp.tasks import Task

QUESTION = "Which attribution method is faithful?"
VERSION = 1
_ONE, _RANDOM = "leave one out", "random"


@dataclass(frozen=True)
class Config(OnModel):
    task: Literal["ioi", "facts", "agreement", "greater_than"] = option("ioi", "the behaviour whose words are ranked")
    methods: tuple[str, ...] = option(
        ("IG", "gradient-x-input", "saliency", "linearised", "relevance", "rollout"), "which methods to compare"
    )
    baseline: Literal["mean", "corrupt"] = option(
        "mean", "what words give way to: the mean embedding, or the corrupt ones"
    )
    shares: tuple[float, ...] = option((0.1, 0.2, 0.3, 0.5), "how many of a prompt's words are taken")
    draws: int = option(20, "random orders")


def inputs(cfg: Config) -> tuple[Any, ...]:
    model = open_model(cfg)
    return model, open_task(cfg, model, cfg.task)


def run(cfg: Config) -> Arrays:
    from interp import attribution, stats
    from interp.attribution.baselines import EMBED

    names = chosen(cfg.methods, _METHODS, "methods")
    model, task = inputs(cfg)
    baseline = task.corrupt if cfg.baseline == "corrupt" else attribution.mean_baseline(model, task.clean, EMBED)
    scores = {name: _METHODS[name](model, task, baseline) for name in names}
    curves = attribution.curves(
        model, task.clean, baseline, scores, task.logit_diff, EMBED, shares=cfg.shares, draws=cfg.draws, seed=cfg.seed
    )
    gains = _gains(curves)
    return {
        "scores": together(scores, "order", "attribution"),
        "curves": curves,
        "gains": gains,
        "gains_table": stats.summary(gains.sel(order=names), seed=cfg.seed),
        "reference_table": stats.interval(gains.sel(order=_ONE), seed=cfg.seed),
    }


def numbers(arrays: Arrays) -> dict[str, float]:
    mean = arrays["gains_table"]["mean"].sum("curve")
    found = {str(name): float(mean.sel(order=name)) for name in mean["order"].values}
    reference = float(arrays["reference_table"]["mean"].sum("curve"))
    return {
        "best": max(found.values()),
        "skill": _skill(max(found.values()), reference),
        "faithful": len(_faithful(arrays)),
        **found,
    }


def answer(arrays: Arrays) -> str:
    table, found = arrays["gains_table"], numbers(arrays)
    order = [
        str(name)
        for name in table["mean"].sum("curve").sortby(table["mean"].sum("curve"), ascending=False)["order"].values
    ]
    good = _faithful(arrays)
    best = order[0]
    without, only = (within(table, order=best, curve=curve) for curve in ("deletion", "sufficiency"))
    verdict = f"{best} the most" if best in good else "None for certain"
    skill = (
        f", {percent(found['skill'])} of what leaving each word out finds" if found["skill"] == found["skill"] else ""
    )
    lost = [name for name in order if name not in good]
    return (
        f"{verdict}: without the words that it puts first {without} logits more are lost than without random ones, "
        f"and with nothing else {only} fewer{skill}. {_ahead(arrays, order)}Better than random words both ways are "
        f"{listed([name for name in order if name in good])}; not told from them, or worse: {listed(lost)}."
    )


def draw(arrays: Arrays) -> Shown:
    from interp import plots

    titles = {
        "comprehensiveness": "Lost without the first words (higher is better)",
        "sufficiency": "Lost with nothing but the first words (lower is better)",
    }
    total = arrays["gains"].sum("curve").drop_sel(order=_RANDOM)
    shown = {kind: _curves(arrays["curves"][kind], title) for kind, title in titles.items()}
    mean = arrays["scores"].mean("prompt")
    sizes = (mean / abs(mean).max("pos")).rename("of the largest")
    return shown | {
        "gain": plots.distributions(total.rename("logits"), "Both ways beyond random words, a dot a prompt"),
        "scores": plots.heatmap(sizes.rename(order="method"), "Mean attribution by method and place", diverging=True),
        "methods": _rows(arrays),
    }


def _curves(curves: "xr.DataArray", title: str) -> Any:
    """A curve for each method, with its band; the two orders that are no methods are dashed."""
    from interp import plots, stats

    bands: dict[str, Any] = {str(name): curves.sel(order=name) for name in curves["order"].values}
    for name, values in bands.items():
        bands[name] = values.mean("prompt") if name in (_ONE, _RANDOM) else stats.interval(values)
    figure = plots.lines(bands, "share", title, "logits")
    for name, colour in ((_ONE, "#111"), (_RANDOM, "#999")):
        figure.update_traces(line=dict(color=colour, dash="dash"), selector=dict(name=name))
    beside = dict(orientation="v", x=1.02, xanchor="left", y=1, yanchor="top")
    return figure.update_xaxes(tickformat=".0%", title="share of the words").update_layout(height=440, legend=beside)


def _gains(curves: "xr.Dataset") -> "xr.DataArray":
    """How much better than random orders each order is, mean over shares: by (curve, order, prompt)."""
    import xarray as xr

    lost, kept = (curves[kind].mean("share") for kind in ("comprehensiveness", "sufficiency"))
    both = [lost - lost.sel(order=_RANDOM, drop=True), kept.sel(order=_RANDOM, drop=True) - kept]
    return xr.concat(both, "curve").assign_coords(curve=["deletion", "sufficiency"]).rename("logits")


def _faithful(arrays: Arrays) -> list[str]:
    """The methods that are better than random orders by both curves, corrected over all."""
    table = arrays["gains_table"]
    good = (table["significant"] & (table["low"] > 0)).all("curve")
    return [str(name) for name in good["order"].values[good.values]]


def _ahead(arrays: Arrays, order: list[str]) -> str:
    """By how much the best method is ahead of the next, prompt by prompt, in words."""
    from interp import stats

    if len(order) < 2:
        return ""
    total = arrays["gains"].sum("curve")
    by = stats.interval(total.sel(order=order[0]) - total.sel(order=order[1]))
    told = "" if float(by["low"]) > 0 else "not told from the next: "
    return f"It is {told}{within(by)} ahead of {order[1]}. "


def _skill(gain: float, reference: float) -> float:
    return gain / reference if reference > 0 else float("nan")


def _rows(arrays: Arrays) -> Any:
    import pandas as pd

    table, reference = arrays["gains_table"], float(arrays["reference_table"]["mean"].sum("curve"))
    good = _faithful(arrays)
    rows = []
    for name in table["order"].values:
        row: dict[str, Any] = {"method": str(name)}
        for curve in table["curve"].values:
            row |= {str(curve): within(table, order=name, curve=curve)}
            row |= {f"p, {curve}": round(float(table["p"].sel(order=name, curve=curve)), 4)}
        row["share of leave one out"] = round(_skill(float(table["mean"].sel(order=name).sum()), reference), 2)
        rows.append(row | {"better than random": "yes" if str(name) in good else "no"})
    return pd.DataFrame(rows)


def _integrated(model: "Model", task: "Task", baseline: "Baseline") -> "xr.DataArray":
    from interp import attribution
    from interp.attribution.baselines import EMBED

    # Where the path is degenerate a check fails, and the curves say what that does to the order.
    return attribution.integrated_gradients(model, task.clean, baseline, EMBED, task.logit_diff, refuse=False)


def _by_captum(name: str) -> "Method":
    def attribute(model: "Model", task: "Task", baseline: "Baseline") -> "xr.DataArray":
        from interp import attribution
        from interp.attribution.baselines import EMBED

        return getattr(attribution, name)(model, task.clean, EMBED, task.logit_diff)  # type: ignore[no-any-return]

    return attribute


def _linearised(model: "Model", task: "Task", baseline: "Baseline") -> "xr.DataArray":
    from interp import attribution

    return attribution.linearised(model, task.clean, task.logit_diff).sel(term="token", drop=True)


def _relevance(model: "Model", task: "Task", baseline: "Baseline") -> "xr.DataArray":
    from interp import attribution

    return attribution.relevance(model, task.clean, task.logit_diff)


def _rollout(model: "Model", task: "Task", baseline: "Baseline") -> "xr.DataArray":
    """Beyond what uniform attention gives, to the last word."""
    from interp import attribution

    return attribution.rollout(model, task.clean)["excess"].isel(query=-1, drop=True).rename(key="pos")


Method = Callable[["Model", "Task", "Baseline"], "xr.DataArray"]
_METHODS: Mapping[str, Method] = {
    "IG": _integrated,
    "gradient-x-input": _by_captum("gradient_x_input"),
    "saliency": _by_captum("saliency"),
    "linearised": _linearised,
    "relevance": _relevance,
    "rollout": _rollout,
}
