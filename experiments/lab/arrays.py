"""Labelled arrays that several experiments make."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

    from interp import Model
    from interp.tasks import Task


def together(arrays: Mapping[str, "xr.DataArray"], axis: str, name: str) -> "xr.DataArray":
    """Arrays of the same axes along a new one, with what they agree on and the checks of each under its name."""
    import xarray as xr

    from interp.arrays import attach, checks_of

    first = next(iter(arrays.values()))
    plain = [array.reset_coords(drop=True).transpose(*first.dims) for array in arrays.values()]
    checks = [
        replace(check, name=f"{key}: {check.name}") for key, array in arrays.items() for check in checks_of(array)
    ]
    found = xr.concat(plain, axis, combine_attrs="drop_conflicts").assign_coords({axis: list(arrays)})
    return found.rename(name).assign_attrs(attach(checks, {}))


def gap(model: "Model", task: "Task") -> "xr.DataArray":
    """How far the metric of the clean run is above that of the corrupt one, by prompt."""
    from interp.arrays import labelled

    clean, corrupt = (task.logit_diff(model.run(side, last_only=True)) for side in (task.clean, task.corrupt))
    return labelled(clean - corrupt, task.logit_diff.name, {"prompt": range(len(task))}, model, method="forward pass")


def by_head(table: "xr.DataArray | xr.Dataset", axis: str = "sender") -> Any:
    """What is labelled by the names of heads, by layer and head."""
    from interp.graph import place_of

    places = [place_of(str(name)) for name in table[axis].values]
    numbers = {"layer": [int(layer) for layer, _, _ in places], "head": [head for _, _, head in places]}
    named = table.drop_vars(axis).assign_coords({name: (axis, values) for name, values in numbers.items()})
    index: dict[Any, Any] = {axis: list(numbers)}
    return named.set_index(index).unstack(axis)


def starred(table: "xr.Dataset") -> "xr.DataArray":
    """Means as text, with a star where they are significant."""
    import numpy as np

    pairs = zip(table["mean"].values.ravel(), table["significant"].values.ravel())
    text = [f"{f'{value:.1f}' if abs(value) >= 0.05 else ''} {'★' if sure else ''}" for value, sure in pairs]
    return table["mean"].copy(data=np.array(text, dtype=object).reshape(table["mean"].shape))


def recovery(scores: "np.ndarray", exact: "np.ndarray", matter: "np.ndarray") -> dict[str, float]:
    """How well scores, one for each part of a model, tell what matters, and how they go with the exact effects.

    NaN where that cannot be said: all of them matter or none, or one side is the same everywhere.
    """
    import numpy as np
    from scipy.stats import rankdata

    from interp.stats import auroc

    alike = lambda a, b: float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else float("nan")
    ranks = alike(rankdata(scores), rankdata(exact))
    return {"auroc": float(auroc(scores, matter)), "correlation": alike(scores, exact), "rank_correlation": ranks}
