"""Which method of circuit discovery finds the edges that matter? Each against the exact effects of all edges.

EAP: Syed et al. 2023 (arXiv:2310.10348). EAP-IG: Hanna et al. 2024 (arXiv:2403.17806). ACDC: Conmy et al. 2023
(arXiv:2304.14997). Learned masks: Bhaskar et al. 2024 (arXiv:2406.16778).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from experiments.lab import Arrays, OnModel, Shown, option
from experiments.lab.arrays import gap, recovery, together
from experiments.lab.options import chosen
from experiments.lab.subjects import open_model, open_two
from experiments.lab.wording import between, percent

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from torch import Tensor

    from interp import Model
    from interp.graph import Graph
    from interp.tasks import Task

QUESTION = "Which method of circuit discovery finds the edges that matter?"
VERSION = 1
_EXACT = "exact"


@dataclass(frozen=True)
class Config(OnModel):
    n: int = option(64, "how many pairs of prompts are drawn to find circuits on, and as many to test them on")
    task: Literal[
        "ioi", "facts", "agreement", "greater_than", "sentiment", "pronoun", "honesty", "refusal", "induction"
    ] = option("ioi", "the behaviour whose edges are looked for")
    methods: tuple[str, ...] = option(("EAP", "EAP-IG", "EAP-IG-activations", "ACDC", "mask"), "which to compare")
    least: float = option(
        0.05, "an edge matters if it alone changes the metric by this share of the gap between the runs"
    )
    share: float = option(0.1, "of all edges in a circuit; that of ACDC has the size that it has")
    threshold: float = option(0.01, "of ACDC, as a share of the gap")
    steps: int = option(5, "of EAP-IG")
    mask_steps: int = option(200, "of learning a mask")
    draws: int = option(20, "random circuits of each size")


def inputs(cfg: Config) -> tuple[Any, ...]:
    model = open_model(cfg)
    return model, *open_two(cfg, model, cfg.task)


def run(cfg: Config) -> Arrays:
    from interp import circuits

    names = chosen(cfg.methods, _METHODS, "methods")
    model, task, test = inputs(cfg)
    graph, apart = circuits.graph(model), abs(float(gap(model, task).mean()))
    scores = {name: _METHODS[name](cfg, model, task, apart) for name in names} | {_EXACT: _truth(cfg, model, task)}
    found = {name: _circuit(graph, array, cfg.share) for name, array in scores.items()}
    rivals = {
        f"{name} of {size}": circuit
        for size in sorted({int(circuit.sum()) for circuit in found.values()} - {0})
        for name, circuit in circuits.random_circuits(graph, size, cfg.draws, cfg.seed, connected=True).items()
    }
    kept = circuits.evaluate(model, test.clean, test.corrupt, found | rivals, test.logit_diff)
    return {
        "scores": together(scores, "finder", "score").assign_attrs(least=cfg.least, gap=apart),
        "circuits": together(
            {name: scores[name].copy(data=found[name].numpy()) for name in found}, "finder", "circuit"
        ),
        "held_out": kept,
        "kept": circuits.faithfulness(kept, seed=cfg.seed).assign(edges=kept["edges"]),
    }


def numbers(arrays: Arrays) -> dict[str, float]:
    kept = arrays["kept"]["mean"]
    found = {"matter": int(_matter(arrays).sum()), "exact_kept": float(kept.sel(circuit=_EXACT))}
    for name, measures in _agreement(arrays).items():
        found |= {f"{name}_{measure}": value for measure, value in measures.items()}
        found[f"{name}_kept"] = float(kept.sel(circuit=name))
    return found


def answer(arrays: Arrays) -> str:
    agreement, best, matter = _agreement(arrays), _best(arrays), _matter(arrays)
    others = ", ".join(f"{name} {found['auroc']:.3f}" for name, found in agreement.items() if name != best)
    told = f"{best} tells them from the others best (AUROC {agreement[best]['auroc']:.3f}{f'; {others}' if others else ''})"
    if not 0 < matter.sum() < matter.size:
        told = f"{best} comes nearest"
    return (
        f"Of {matter.size} edges, {matter.sum()} alone change the logit difference by {percent(arrays['scores'].attrs['least'])} "
        f"of the gap between the runs or more: each was patched. {told}; its scores and the exact effects correlate by "
        f"{agreement[best]['correlation']:.2f} in size, over all edges. {_keeps(arrays, best)}"
    )


def draw(arrays: Arrays) -> Shown:
    from interp import plots

    shown, kept, best, scores = {}, _bars(arrays), _best(arrays), arrays["scores"]
    exact = scores.sel(finder=_EXACT, drop=True).rename("exact change in logit difference")
    estimates = {name: scores.sel(finder=name) for name in _names(arrays) if name.startswith("EAP")}
    if kept["mean"].notnull().any():  # a model without the behaviour has nothing to keep
        shown["kept"] = plots.bars(kept, "circuit", "Kept on other pairs", "faithfulness").update_layout(height=460)
    if estimates:
        shown["edges"] = plots.scatter(exact, estimates, "Every edge, exact and estimated", "estimate", diagonal=True)
    lost = (-exact * arrays["circuits"].sel(finder=best, drop=True)).rename("logits lost")
    if (abs(lost) > 0).any():
        shown["circuit"] = plots.circuit_graph(lost, f"{best}; as wide as the exact effect")
    return shown | {"methods": _table(arrays)}


def _truth(cfg: Config, model: "Model", task: "Task") -> "xr.DataArray":
    """The exact effect of every edge, by (writer, reader): as it is stored for the embedded model, or measured now."""
    from interp import circuits
    from interp.zoo import truth

    stored = truth.stored()
    same = [stored.attrs[name] for name in ("pairs", "seed", "weights")] == [cfg.n, cfg.seed, model.fingerprint()]
    if same and not cfg.data:
        found = stored["edge"].sel(task=cfg.task, intervention="noising", drop=True)
        return found.assign_attrs(direction="noising", origin="stored")
    found = circuits.patch_each_edge(model, task.clean, task.corrupt, task.logit_diff, direction="noising")
    return found.mean("prompt", keep_attrs=True).assign_attrs(origin="measured")


def _estimated(along: str) -> "Method":
    def find(cfg: Config, model: "Model", task: "Task", apart: float) -> "xr.DataArray":
        from interp import circuits

        given = model, task.clean, task.corrupt, task.logit_diff
        more: dict[str, Any] = {"steps": cfg.steps, "along": along} if along else {}
        found = (circuits.eap_ig if along else circuits.eap)(*given, **more, direction="noising")
        return found.mean("prompt", keep_attrs=True)

    return find


def _acdc(cfg: Config, model: "Model", task: "Task", apart: float) -> "xr.DataArray":
    from interp import circuits

    return circuits.acdc(model, task.clean, task.corrupt, max(cfg.threshold * apart, 1e-6), task.logit_diff)


def _learned(cfg: Config, model: "Model", task: "Task", apart: float) -> "xr.DataArray":
    from interp import circuits

    metric = task.logit_diff
    return circuits.learn_mask(model, task.clean, task.corrupt, metric=metric, steps=cfg.mask_steps, seed=cfg.seed)


def _circuit(graph: "Graph", scores: "xr.DataArray", share: float) -> "Tensor":
    """The edges that a method is for: as many as asked for, the most helpful first; of ACDC, those that it kept."""
    import torch

    from interp import circuits

    if scores.attrs.get("method") == "ACDC":
        return torch.nan_to_num(graph.tensor_of("ACDC", scores))
    return circuits.select(graph, scores, round(share * int(graph.precedes.sum())), rank="signed")


def _sizes(arrays: Arrays, name: str) -> "np.ndarray":
    """The sizes of a method's scores, or of the exact effects, edge by edge."""
    scores = arrays["scores"]
    there = scores.sel(finder=_EXACT).notnull().values
    return abs(scores.sel(finder=name).values[there])  # type: ignore[no-any-return]


def _matter(arrays: Arrays) -> "np.ndarray":
    """Which edges matter."""
    how = arrays["scores"].attrs
    return _sizes(arrays, _EXACT) >= how["least"] * how["gap"]  # type: ignore[no-any-return]


def _agreement(arrays: Arrays) -> dict[str, dict[str, float]]:
    """For each method, how well the sizes of its scores agree with those of the exact effects, over all edges."""
    exact, matter = _sizes(arrays, _EXACT), _matter(arrays)
    return {name: recovery(_sizes(arrays, name), exact, matter) for name in _names(arrays)}


def _names(arrays: Arrays) -> list[str]:
    return [str(name) for name in arrays["scores"]["finder"].values if name != _EXACT]


def _best(arrays: Arrays) -> str:
    """The method that tells best which edges matter; of those that are alike in that, the one that correlates best."""
    agreement, known = _agreement(arrays), lambda value: -2.0 if value != value else value
    merit = lambda found: (round(known(found["auroc"]), 2), known(found["correlation"]))
    return max(agreement, key=lambda name: merit(agreement[name]))


def _rivals(arrays: Arrays, name: str) -> "xr.DataArray":
    """Faithfulness of random circuits of the size of a method's."""
    kept = arrays["kept"]
    ending = f" of {int(kept['edges'].sel(circuit=name))}"
    return kept["mean"].sel(circuit=[circuit for circuit in kept["circuit"].values if str(circuit).endswith(ending)])


def _keeps(arrays: Arrays, best: str) -> str:
    """What the best method's circuit keeps, beside random ones and the one of the largest effects, in words."""
    kept = arrays["kept"]
    if bool(kept["mean"].isnull().all()):
        return "On other pairs the runs are not told apart, so that there is nothing to keep."
    size, rivals = int(kept["edges"].sel(circuit=best)), _rivals(arrays, best)
    others = ", ".join(f"{name} {percent(kept['mean'].sel(circuit=name))}" for name in _names(arrays) if name != best)
    beside = f", {rivals.size} random ones of its size at most {percent(rivals.max())}" if rivals.size else ""
    return (
        f"On other pairs its circuit of {size} edges keeps {between(kept, circuit=best)} of the behaviour"
        f"{f' ({others})' if others else ''}{beside}; that of the most helpful exact effects {between(kept, circuit=_EXACT)}."
    )


def _bars(arrays: Arrays) -> "xr.Dataset":
    """Faithfulness with intervals; of random circuits, the mean and the range of all."""
    import xarray as xr

    kept, parts = arrays["kept"], {}
    for name in [*_names(arrays), _EXACT]:
        size, rivals = int(kept["edges"].sel(circuit=name)), _rivals(arrays, name)
        parts[f"{name} ({size})"] = kept.sel(circuit=name, drop=True).drop_vars("edges")
        if rivals.size:
            parts[f"random ({size})"] = xr.Dataset({"mean": rivals.mean(), "low": rivals.min(), "high": rivals.max()})
    names = sorted(parts, key=lambda name: name.startswith("random"))
    return xr.concat([parts[name] for name in names], "circuit", combine_attrs="drop").assign_coords(circuit=names)


def _table(arrays: Arrays) -> Any:
    import pandas as pd

    kept, agreement, rows = arrays["kept"], _agreement(arrays), []
    for name in [*_names(arrays), _EXACT]:
        rivals = _rivals(arrays, name)
        row: dict[str, Any] = {"method": name, "edges": int(kept["edges"].sel(circuit=name))}
        row |= {"kept on other pairs": between(kept, circuit=name)}
        row |= {"best random circuit": percent(rivals.max()) if rivals.size else "–"}
        rows.append(row | {key: f"{value:.3f}" for key, value in agreement.get(name, {}).items()})
    return pd.DataFrame(rows).rename(columns=lambda name: name.replace("_", " ")).fillna("–")


Method = Callable[[Config, "Model", "Task", float], "xr.DataArray"]
_METHODS: Mapping[str, Method] = {
    "EAP": _estimated(""),
    "EAP-IG": _estimated("inputs"),
    "EAP-IG-activations": _estimated("activations"),
    "ACDC": _acdc,
    "mask": _learned,
}
