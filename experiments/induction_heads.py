"""Which heads continue what was said before? Prefix matching beside patching, head by head.

Olsson et al. 2022 (arXiv:2209.11895).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.lab import Arrays, OnModel, Shown, option
from experiments.lab.subjects import open_induction, open_model
from experiments.lab.wording import between, head, largest

if TYPE_CHECKING:
    from interp import Model
    from interp.tasks import Task

QUESTION = "Which heads continue what was said before?"
VERSION = 1


@dataclass(frozen=True)
class Config(OnModel):
    period: int = option(12, "how many tokens there are before they repeat")


def inputs(cfg: Config) -> tuple[Any, ...]:
    model = open_model(cfg)
    return model, open_induction(cfg, model, cfg.period)


def run(cfg: Config) -> Arrays:
    from interp import patching, stats

    model, task = inputs(cfg)
    heads = patching.patch(model, task.clean, task.corrupt, model.sites("z"), task.logit_diff, over=["head"])
    return {"heads": heads, "heads_table": stats.summary(heads, seed=cfg.seed), "attention": _attention(model, task)}


def numbers(arrays: Arrays) -> dict[str, float]:
    looking, effect = arrays["attention"].mean("prompt"), arrays["heads_table"]["mean"]
    return {
        "attention": float(looking.max()),
        "restored": float(effect.max()),
        "agreement": _rank_correlation(looking, effect),
    }


def answer(arrays: Arrays) -> str:
    looking, table = arrays["attention"].mean("prompt"), arrays["heads_table"]
    most, best = largest(looking), largest(table["mean"])
    found = numbers(arrays)
    carrier = "it also" if most == best else f"head {head(best)}"
    return (
        f"Head {head(most)} puts {found['attention']:.2f} of its attention on what followed the word before; {carrier} restores "
        f"most of the answer, {between(table, **best)}. Over all heads, looking there and carrying the answer agree in rank "
        f"to {found['agreement']:.2f}."
    )


def draw(arrays: Arrays) -> Shown:
    from interp import plots
    from interp.plots.style import dress

    looking, table = arrays["attention"].mean("prompt"), arrays["heads_table"]
    both = _beside(looking, table["mean"])
    both.update_xaxes(title="attention to what followed before").update_yaxes(title="share of the answer restored")
    return {
        "effect": plots.heatmap(
            table["mean"].rename("share"), "Heads restored (★ p ≤ 0.05)", significant=table["significant"]
        ),
        "attention": plots.heatmap(looking, "Attention from the last word to what followed before"),
        "both": dress(both, "Looking there, and carrying the answer"),
    }


def _beside(looking: Any, effect: Any) -> Any:
    """A point a head; those that do a tenth of the most either way have their names beside them, the rest under the pointer."""
    import numpy as np
    import plotly.graph_objects as go

    names = [f"L{layer}H{number}" for layer in looking["layer"].values for number in looking["head"].values]
    x, y = looking.values.ravel(), effect.transpose(*looking.dims).values.ravel()
    far = [bool(out) for out in (abs(x) > 0.1 * np.nanmax(abs(x))) | (abs(y) > 0.1 * np.nanmax(abs(y)))]
    points = go.Scatter(
        x=x, y=y, text=[name if out else "" for name, out in zip(names, far)], hovertext=names, mode="markers+text",
        textposition="top center", cliponaxis=False, marker_size=9, marker_color="#2a5d9f",
        hovertemplate="%{hovertext}<br>attention %{x:.3f}<br>restored %{y:.3f}<extra></extra>",
    )  # fmt: skip
    return go.Figure(points)


def _attention(model: "Model", task: "Task") -> Any:
    """How much each head looks from the last token to the one after its earlier occurrence, by (layer, head, prompt)."""
    import torch

    from interp.arrays import labelled

    sites = model.sites("pattern")
    trace = model.run(task.clean, read=sites, last_only=True)
    rows, source = torch.arange(len(task), device=model.device), task.clean.role("source")
    seen = torch.stack([trace[site][rows, :, -1, source].T for site in sites])
    coords: dict[str, Any] = {
        "layer": [s.layer for s in sites],
        "head": range(seen.shape[1]),
        "prompt": range(len(task)),
    }
    return labelled(seen, "attention", coords, model, method="prefix matching", site="pattern")


def _rank_correlation(a: Any, b: Any) -> float:
    from interp.stats import spearman

    return spearman(a.values.ravel(), b.transpose(*a.dims).values.ravel())
