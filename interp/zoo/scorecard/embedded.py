"""On the embedded model: do estimates agree with what was measured exhaustively, and do sums add up?"""

from collections.abc import Iterator

import xarray as xr

from interp import attribution, effects, patching, probing, tasks
from interp.arrays import checks_of
from interp.model import Model
from interp.sites import Site
from interp.tasks import Task
from interp.zoo import estimates
from interp.zoo.scorecard.rows import Row


def nodes(model: Model, n: int, seed: int) -> Iterator[Row]:
    """Attribution patching of heads, against patching each."""
    measure = f"correlation with exact effects of heads, {n} pairs, seed {seed}"
    for task, found in estimates.correlations(model, n=n, seed=seed).items():
        for method, value in found.items():
            yield Row("Estimates on the embedded model", task, method, measure, value)


def edges(model: Model) -> Iterator[Row]:
    """Edge attribution, against every edge patched alone, on the pairs of the stored truth."""
    for task, found in estimates.edge_correlations(model).items():
        for method, value in found.items():
            measure = "correlation with exact effects of edges"
            yield Row("Estimates on the embedded model", task, method, measure, value)


def sums(model: Model, n: int, seed: int) -> Iterator[Row]:
    """What must add up does."""
    for name, make in tasks.EMBEDDED.items():
        task, section, measure = make(model, n, seed), "Sums on the embedded model", "largest error"
        scores = attribution.integrated_gradients(
            model, task.clean, task.corrupt, Site("resid_pre", 0), task.logit_diff, progress=False
        )
        yield Row(section, name, "integrated gradients", measure, _check(scores, "completeness error"), most=1e-3)
        shares = effects.logit_attribution(model, task.clean, task.logit_diff)
        metric = task.logit_diff(model.run(task.clean)).numpy()
        error = float(abs(shares.sum("component").values - metric).max() / abs(metric).max())
        yield Row(section, name, "direct logit attribution", measure, error, most=1e-4)
        held = attribution.linearised(model, task.clean, task.logit_diff)
        error = float(abs(held.sum(["term", "pos"]).values - metric).max() / abs(metric).max())
        yield Row(section, name, "linearised network", measure, error, most=1e-4)


def directions_agree(model: Model, n: int, seed: int) -> Iterator[Row]:
    """Noising and denoising of heads."""
    for name, make in tasks.EMBEDDED.items():
        task: Task = make(model, n, seed)
        given = model, task.clean, task.corrupt, model.sites("z"), task.logit_diff
        # In logits: a mean of shares is led by the prompts whose gap is small.
        found = patching.both_directions(*given, over=["head"], normalize=False, progress=False)
        value = _check(found, "rank correlation of noising and denoising")
        yield Row("Noising and denoising", name, "patching heads", "rank correlation", value)


def concepts(model: Model, seed: int, n: int = 240) -> Iterator[Row]:
    """Five concepts that the model was taught are read and used; a claim that it was never taught is neither."""
    section, method = "Concepts of the embedded model", "logistic probes"
    for make in tasks.CONCEPTS.values():
        data = make(model, n, seed)
        bounds: dict[str, float] = {"most": 0} if data.answers is None else {"least": 1}
        found = probing.probe(model, data, model.sites("resid_post"), shuffles=79, seed=seed, progress=False)
        used, read = (int((found["verdict"] == verdict).sum()) for verdict in ("used", "decodable"))
        yield Row(section, data.name, method, "best accuracy", float(found["accuracy"].max()))
        yield Row(section, data.name, method, "layers where it is read and transfers", used + read, **bounds)
        yield Row(section, data.name, method, "layers where it is used", used, **bounds)


def _check(array: xr.DataArray, name: str) -> float:
    return next(check.value for check in checks_of(array) if check.name == name)
