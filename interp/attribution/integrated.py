"""Integrated gradients: how much does each part of a site move the metric on the way from a baseline?

Sundararajan et al. 2017 (arXiv:1703.01365). The baseline decides the answer (Sturmfels et al. 2020,
doi:10.23915/distill.00022): the corrupt run asks what distinguishes the two prompts.
"""

from collections.abc import Mapping, Sequence

import xarray as xr

from interp.attribution.baselines import Baselines
from interp.attribution.integration import Quadrature
from interp.attribution.labels import present, tolerance_of
from interp.attribution.straight import Attributed
from interp.grid import Roles
from interp.metrics import Metric, metrics_of
from interp.model import Model, Prompts
from interp.progress import Progress
from interp.sites import Site


def integrated_gradients(
    model: Model,
    clean: Prompts,
    baseline: Baselines,
    site: Site,
    metric: Metric | Sequence[Metric],
    *,
    over: Sequence[str] = ("pos",),
    roles: Roles = (),
    steps: int | None = None,
    tolerance: float | None = None,
    most: int = 1024,
    budget: int | None = None,
    refuse: bool = True,
    progress: Progress = None,
) -> xr.DataArray:
    """How much each part of a site moves the metric on the straight path from a baseline to the clean run.

    Only the blocks above the site are run; at `embed` that is all of them, with logits where the metric reads them.

    Args:
        baseline: The corrupt prompts, whose run holds it; a tensor that broadcasts to the site's, such as
            `mean_baseline` gives; or several by name, which give an axis `baseline`.
        metric: One, or several, which share all forward passes and give an axis `metric`.
        over: Axes of the site that have a share for each index; other axes are summed over.
        roles: Names of positions; if given, `pos` in `over` runs over these.
        steps: A fixed number of points (Gauss-Legendre). By default as many as each prompt needs: nested
            Clenshaw-Curtis points are doubled until the attributions add up and stay where they are.
        tolerance: Of the error of the sum, by default 1e-3, and 2e-2 in half precision. No attribution of a prompt may
            move by more than twenty times that share of its largest, or 5 %, when the points are doubled.
        most: Intervals between points at which doubling ends, a power of two.
        budget: Bytes that one pass may take, by default 256 MiB; a point for all prompts is never split.
        refuse: Raise where the path is degenerate; False returns what came out, and a check that fails.
        progress: See `sweep`.

    Returns:
        Attributions by (baseline, metric, *over, prompt), without the first two if there is one of each; NaN at
        padding. Beside each prompt stand `error`, what is missing from the sum as a share of the change in the metric;
        `moved`, by how much the last doubling of points moved an attribution, as a share of the largest; `start`, the
        metric with the whole site at the baseline; `change`, how much more it is without; and `steps`.

    Raises:
        ValueError: Prompts that are not aligned; a baseline that does not fit; steps or `most` out of range; a
            degenerate path: near the baseline the metric jumps, so that no number of steps will do.
    """
    metrics = metrics_of(metric)
    of = Attributed.run(model, model.tokens(clean), site, metrics, over, roles)
    by = Quadrature(steps, tolerance_of(of) if tolerance is None else tolerance, most, budget)
    found = of.integrate(baseline, by, refuse, progress)
    leading: dict[str, Sequence[str]] = {"baseline": list(found)} if isinstance(baseline, Mapping) else {}
    leading |= {} if isinstance(metric, Metric) else {"metric": [metric.name for metric in metrics]}
    names = ", ".join(metric.name for metric in metrics)
    return present(found, of, by, leading, method="integrated gradients", metric=names)
