"""Where is the subject of a fact read, and by what? Patching of the stream, of attention and of MLPs by position.

Meng et al. 2022 (arXiv:2202.05262), Geva et al. 2023 (arXiv:2304.14767).
"""

from dataclasses import dataclass
from typing import Any

from experiments.lab import Arrays, OnModel, Shown
from experiments.lab.subjects import open_model, open_task
from experiments.lab.wording import largest, percent

QUESTION = "Where is the subject of a fact read?"
VERSION = 1


@dataclass(frozen=True)
class Config(OnModel):
    """No options beside those of every experiment on a model."""


def inputs(cfg: Config) -> tuple[Any, ...]:
    model = open_model(cfg)
    return model, open_task(cfg, model, "facts")


def run(cfg: Config) -> Arrays:
    from interp import patching

    model, task = inputs(cfg)
    given = model, task.clean, task.corrupt
    return {
        "stream": patching.patch(*given, model.sites("resid_pre"), task.logit_diff, over=["pos"]),
        "parts": patching.patch(*given, model.sites("attn_out", "mlp_out"), task.logit_diff, over=["pos"]),
    }


def numbers(arrays: Arrays) -> dict[str, float]:
    at_end = arrays["stream"].mean("prompt").isel(pos=-1)
    parts = arrays["parts"].mean("prompt")
    return {
        "moved": _moved(arrays),
        "at_end": float(at_end.isel(layer=-1)),
        "attention": float(parts.sel(kind="attn_out").isel(pos=-1).max()),
        "mlp": float(parts.sel(kind="mlp_out").max()),
    }


def answer(arrays: Arrays) -> str:
    parts = arrays["parts"].mean("prompt")
    reads = largest(parts.sel(kind="attn_out").isel(pos=-1, drop=True))
    share = parts.sel(kind="attn_out", **reads).isel(pos=-1)
    writes = largest(parts.sel(kind="mlp_out"))
    moved = _moved(arrays)
    where = (
        f"From block {moved} on, more than half of the answer is carried" if moved >= 0 else "In no block is most of it"
    )
    return (
        f"{where} at the last word rather than at the subject. Attention of layer {reads['layer']} reads it there: restored alone, it "
        f"gives back {percent(share)}. Of the MLPs, that of layer {writes['layer']} at \u201c{writes['pos']}\u201d gives back most, "
        f"{percent(parts.sel(kind='mlp_out', **writes))}."
    )


def draw(arrays: Arrays) -> Shown:
    from interp import plots

    titles = {"attn_out": "Attention's output restored", "mlp_out": "MLP's output restored"}
    parts = arrays["parts"].mean("prompt")
    stream = plots.heatmap(arrays["stream"].mean("prompt"), "Residual stream restored, entering each block")
    return {"stream": stream} | {kind: plots.heatmap(parts.sel(kind=kind), title) for kind, title in titles.items()}


def _moved(arrays: Arrays) -> int:
    """The first block that more than half of the answer enters at the last word; -1 if there is none."""
    at_end = arrays["stream"].mean("prompt").isel(pos=-1)
    return next((int(layer) for layer in at_end["layer"].values if float(at_end.sel(layer=layer)) > 0.5), -1)
