"""The exact effect of every edge and node of the embedded model on every task: `python -m interp.zoo.truth OUT`.

Nothing is estimated: each edge alone, and all edges out of each writer and into each reader, are exchanged for what
they carry in the other run, or for nothing. What was found is stored beside the weights, for estimators to be held to.
The script, which prints, takes about a minute and a half on two cores.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from interp import circuits, tasks
from interp.arrays import attach, labelled
from interp.backends import load
from interp.circuits.ablations import ablated
from interp.circuits.masks import Exchange
from interp.circuits.patching import each, each_node
from interp.model import Model
from interp.tasks import Task

STORED = Path(__file__).parent / "weights" / "truth.nc"
INTERVENTIONS = ("denoising", "noising", "zero")
_AXES = {"edge": ("writer", "reader"), "out": ("writer",), "into": ("reader",)}
_PAIRS, _SEED = 64, 0


def stored() -> xr.Dataset:
    """What was found on 64 pairs of each task, seed 0: changes of the logit difference, and their standard errors.

    Returns:
        `edge` by (task, intervention, writer, reader), NaN where there is none; `out`, all edges out of a writer at
        once, by (task, intervention, writer); `into`, all edges into a reader, by (task, intervention, reader); the
        standard errors of these means, `edge_error` and so on; `clean` and `corrupt`, the metric of the runs, by task.
        Interventions are "denoising" (the corrupt run with a part of the clean one), "noising" (the reverse) and "zero"
        (the clean run with a part set to zero). The attribute `weights` is the fingerprint of the model.
    """
    found = xr.load_dataset(STORED, engine="h5netcdf")
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in found.attrs.items()}
    return found.assign_attrs(plain)


@torch.no_grad()
def measure(model: Model, task: Task, budget: int | None = None) -> xr.Dataset:
    """The exact effects of all edges, writers and readers of a model on a task, as `stored` has them.

    Args:
        budget: Bytes that the activations of one pass may take.

    Raises:
        ValueError: What `circuits.patch_edges` raises.
    """
    graph, metric = circuits.graph(model), task.logit_diff
    exchanges = [_exchange(model, task, name) for name in INTERVENTIONS]
    edges = torch.stack([each(exchange, graph.mask(), budget, progress=False)[0] for exchange in exchanges])
    nodes = torch.stack([each_node(exchange, budget, progress=False) for exchange in exchanges])
    out, into = nodes.split([len(graph.writers), len(graph.readers)], dim=2)
    labels = {"writer": graph.writers, "reader": graph.readers}
    parts: dict[str, xr.DataArray] = {}
    for kind, values in (("edge", edges), ("out", out), ("into", into)):  # (intervention, prompt, ...)
        coords: dict[str, Sequence[str]] = {"intervention": INTERVENTIONS} | {
            axis: labels[axis] for axis in _AXES[kind]
        }
        for name, numbers in ((kind, values.mean(1)), (f"{kind}_error", values.std(1) / len(task) ** 0.5)):
            parts[name] = labelled(numbers, f"change in {metric.name}", coords, model)
    clean, corrupt = (float(exchanges[i].run.values.mean()) for i in (1, 0))
    how = {"method": "exact patching of edges", "metric": metric.name, "pairs": len(task)}
    attrs = parts["edge"].attrs | attach([], how)
    return xr.Dataset({**parts, "clean": clean, "corrupt": corrupt}, attrs=attrs)


def _exchange(model: Model, task: Task, intervention: str) -> Exchange:
    prompts = (task.corrupt, task.clean) if intervention == "denoising" else (task.clean, task.corrupt)
    return ablated(model, *prompts, task.logit_diff, "zero" if intervention == "zero" else "corrupt")[0]


def table(found: xr.Dataset, least: float = 0.05, top: int = 5) -> str:
    """How many edges have this share of the gap between the runs or more, and the largest, as a table in Markdown."""
    lines = ["| task | gap | denoising | noising | zero | largest under noising |", "|---|---|---|---|---|---|"]
    for task in found["task"].values:
        one = found.sel(task=task)
        gap = float(one["clean"] - one["corrupt"])
        shares = one["edge"].stack(edge=("writer", "reader")).dropna("edge") / gap
        counts = [int((abs(shares.sel(intervention=name)) >= least).sum()) for name in INTERVENTIONS]
        noising = -shares.sel(intervention="noising")
        best = noising[abs(noising).argsort().values[::-1][:top]]
        names = ", ".join(f"{w} → {r} {float(x):.2f}" for (w, r), x in zip(best["edge"].values, best))
        lines.append(f"| {task} | {gap:.2f} | {' | '.join(map(str, counts))} | {names} |")
    return "\n".join(lines)


def main(out: Path) -> None:
    model = load()
    found = []
    for name, make in tasks.EMBEDDED.items():
        print(name, flush=True)
        found.append(measure(model, make(model, _PAIRS, _SEED)).expand_dims(task=[name]))
    every = xr.concat(found, "task", combine_attrs="identical")
    how = {
        "seed": _SEED,
        "weights": model.fingerprint(),
        "torch": str(torch.__version__),
        "made_by": "interp.zoo.truth",
    }
    narrow = {name: {"dtype": "float32", "zlib": True} for name in every.data_vars}
    every.assign_attrs(how).to_netcdf(out, engine="h5netcdf", encoding=narrow)
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else STORED)
