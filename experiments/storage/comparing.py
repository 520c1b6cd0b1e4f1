"""In what runs differ: options, inputs, versions and numbers; and whether two sets of arrays are the same."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.storage.records import Run


def differences(runs: Sequence[Run]) -> dict[str, dict[str, list[Any]]]:
    """What is not the same in all runs: part, name, and each run's value; of numbers, all of them."""
    parts = {
        "options": [run.config | run.where for run in runs],
        "inputs": [_inputs(run) for run in runs],
        "made by": [_maker(run) for run in runs],
    }
    found = {part: _unequal(values) for part, values in parts.items()}
    found["numbers"] = _aligned([run.numbers for run in runs])
    return found


def largest_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, float]:
    """How far each array is from its counterpart: the largest absolute difference, as a share of the old one's largest.

    Infinite where one is missing, has another shape or other labels, or a NaN where the other has a number.
    """
    return {name: _difference(old.get(name), new.get(name)) for name in dict.fromkeys([*old, *new])}


def _difference(old: Any, new: Any) -> float:
    import numpy as np
    import xarray as xr

    if old is None or new is None:
        return float("inf")
    if isinstance(old, xr.Dataset):
        names = dict.fromkeys([*map(str, old.data_vars), *map(str, new.data_vars)])
        return max((_difference(old.get(name), new.get(name)) for name in names), default=0.0)
    a, b = (np.asarray(side.detach().cpu().float() if hasattr(side, "detach") else side) for side in (old, new))
    labels_match = not isinstance(old, xr.DataArray) or all(
        old[axis].equals(new[axis]) for axis in old.dims if axis in new.coords
    )
    if a.shape != b.shape or not labels_match:
        return float("inf")
    if a.dtype.kind not in "fiub":
        return 0.0 if bool((a == b).all()) else float("inf")
    a, b = a.astype(float), b.astype(float)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return float("inf")
    scale = float(np.max(np.abs(a[np.isfinite(a)]), initial=0.0)) or 1.0
    apart = np.abs(a[a != b] - b[a != b])  # an infinity is no distance from itself
    return float(np.nanmax(apart, initial=0.0)) / scale


def _inputs(run: Run) -> dict[str, Any]:
    models = {f"model {i + 1}": model["weights"] for i, model in enumerate(run.manifest.get("models", []))}
    return {f"input {i + 1}": value for i, value in enumerate(run.manifest.get("inputs", []))} | models


def _maker(run: Run) -> dict[str, Any]:
    made = run.manifest.get("made", {})
    kept = {name: made.get(name) for name in ("python", "platform", "commit", "changed")}
    return {
        "version": run.manifest.get("version"),
        "code": run.manifest.get("code"),
        **kept,
        **made.get("versions", {}),
    }


def _unequal(sides: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: values for name, values in _aligned(sides).items() if len({*map(repr, values)}) > 1}


def _aligned(sides: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [side.get(name) for side in sides] for name in dict.fromkeys(name for side in sides for name in side)}
