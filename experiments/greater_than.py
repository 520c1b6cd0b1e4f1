"""How does the model know which years can follow? Patching of heads and MLPs under the probability of later years.

Hanna et al. 2023 (arXiv:2305.00586).
"""

from dataclasses import dataclass
from typing import Any

from experiments.lab import Arrays, OnModel, Shown
from experiments.lab.subjects import open_model, open_task
from experiments.lab.wording import head, largest, percent, within

QUESTION = "What tells the model that a war ends after it began?"
VERSION = 2


@dataclass(frozen=True)
class Config(OnModel):
    """No options beside those of every experiment on a model."""


def inputs(cfg: Config) -> tuple[Any, ...]:
    model = open_model(cfg)
    return model, open_task(cfg, model, "greater_than")


def run(cfg: Config) -> Arrays:
    from interp import patching, stats

    model, task = inputs(cfg)
    given = model, task.clean, task.corrupt
    # Not as shares: after a war that began in 02, the corrupt prompt's 01 leaves hardly a gap to divide by.
    heads = patching.patch(*given, model.sites("z"), task.prob_diff, over=["head"], normalize=False)
    parts = patching.patch(*given, model.sites("attn_out", "mlp_out"), task.prob_diff, normalize=False)
    return {
        "margin": _margin(model, task, task.clean),
        "corrupt_margin": _margin(model, task, task.corrupt),
        "heads": heads,
        "heads_table": stats.summary(heads, seed=cfg.seed),
        "parts": parts,
        "parts_table": stats.summary(parts, seed=cfg.seed),
    }


def numbers(arrays: Arrays) -> dict[str, float]:
    margin = arrays["margin"]
    return {
        "margin": float(margin.mean()),
        "right": float((margin > 0).mean()),
        "gap": float((margin - arrays["corrupt_margin"]).mean()),
        "head": float(arrays["heads_table"]["mean"].max()),
        "mlp": float(arrays["parts_table"]["mean"].sel(kind="mlp_out").max()),
    }


def answer(arrays: Arrays) -> str:
    heads, parts = arrays["heads_table"], arrays["parts_table"]
    best, mlp = largest(heads["mean"]), largest(parts["mean"].sel(kind="mlp_out"))
    found = numbers(arrays)
    return (
        f"Later years are {found['margin']:.2f} more probable than the others, and more probable in {percent(found['right'])} of "
        f"the prompts. What began in the first years of a century leaves {found['gap']:.2f} less of that; of the heads, "
        f"{head(best)} alone gives back most, {within(heads, **best)}, and of the MLPs that of layer {mlp['layer']}, "
        f"{within(parts, kind='mlp_out', **mlp)}."
    )


def draw(arrays: Arrays) -> Shown:
    import plotly.graph_objects as go

    from interp import plots
    from interp.plots.style import dress

    heads, parts, margin = arrays["heads_table"], arrays["parts_table"], arrays["margin"]
    curves = {str(kind): parts[["mean", "low", "high"]].sel(kind=kind) for kind in parts["kind"].values}
    shown = {
        "heads": plots.heatmap(
            heads["mean"].rename("change"), "Heads restored (★ p ≤ 0.05)", significant=heads["significant"]
        ),
        "parts": plots.lines(curves, "layer", "Attention and MLP of each layer restored", "change in probability"),
    }
    if "year" in margin.coords:
        dots = go.Scatter(x=margin["year"].values, y=margin.values, mode="markers", marker_color="#2a5d9f")
        figure = go.Figure(dots).update_xaxes(title="year in which it began")
        figure.update_yaxes(title="later years minus others", zeroline=True, zerolinecolor="#888")
        shown = {"margin": dress(figure, "One dot for each prompt"), **shown}
    return shown


def _margin(model: Any, task: Any, tokens: Any) -> Any:
    """Probability of the right years minus that of the wrong ones, by prompt; with the first year, where it is known."""
    from interp.arrays import labelled

    values = task.prob_diff(model.run(tokens, last_only=True))
    array = labelled(values, task.prob_diff.name, {"prompt": range(len(task))}, model, method="forward pass")
    years = task.labels.get("year")
    return array if years is None else array.assign_coords(year=("prompt", [int(year) for year in years]))
