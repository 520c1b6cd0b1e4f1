"""Are the edges found that are known to matter?"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import xarray as xr

from interp import circuits
from interp.stats import auroc
from interp.zoo import known
from interp.zoo.known import Known
from interp.zoo.scorecard.rows import Row

_STEPS = 20
Finder = Callable[[Known, int], xr.DataArray]


def _estimated(along: str | None) -> Finder:
    def find(made: Known, seed: int) -> xr.DataArray:
        given = made.model, made.task.clean, made.task.corrupt, made.metric
        if along is None:
            return circuits.eap(*given, direction="noising")
        return circuits.eap_ig(*given, steps=_STEPS, along=along, direction="noising")

    return find


def _acdc(made: Known, seed: int) -> xr.DataArray:
    return circuits.acdc(made.model, made.task.clean, made.task.corrupt, 0.01, made.metric, progress=False)


def _learned(made: Known, seed: int) -> xr.DataArray:
    given = made.model, made.task.clean, made.task.corrupt
    return circuits.learn_mask(*given, metric=made.metric, seed=seed, progress=False)


FINDERS: Mapping[str, tuple[Finder, float | None]] = {
    "EAP": (_estimated(None), None),
    "EAP-IG, inputs": (_estimated("inputs"), 0.95),
    "EAP-IG, activations": (_estimated("activations"), 0.95),
    "ACDC": (_acdc, 1.0),
    "learned mask": (_learned, 1.0),
}  # with the AUROC that is wanted


def rows(made: Known, seed: int, finders: Mapping[str, tuple[Finder, float | None]] = FINDERS) -> Iterator[Row]:
    """Exact patching under both ablations, and every finder's scores, against the edges that are known to matter."""
    for ablation in known.ABLATIONS:
        found = known.edges_that_matter(known.effects(made, ablation))
        wrong = len(found ^ made.edges[ablation])
        yield Row("Edges", made.name, f"exact, {ablation}", "edges wrong", float(wrong), most=0)
    there = circuits.graph(made.model).precedes.numpy()
    truth = made.mask("corrupt").bool().numpy()[there]
    for name, (find, least) in finders.items():
        scores = abs(find(made, seed))
        scores = scores.mean("prompt") if "prompt" in scores.dims else scores
        values = scores.transpose("writer", "reader").values[there]
        yield Row("Edges", made.name, name, "AUROC", float(auroc(values, truth)), least=least)
        first = np.argsort(-values, kind="stable")[: truth.sum()]
        yield Row("Edges", made.name, name, "recall among as many as there are", float(truth[first].mean()))
