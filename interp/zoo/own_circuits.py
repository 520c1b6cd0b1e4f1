"""Which heads and positions of the embedded model carry a behaviour: found by patching every one, assumed of none."""

from collections.abc import Sequence

import xarray as xr

from interp import patching, stats, tasks
from interp.model import Model

BEHAVIOURS = ("induction", "ioi")
PLACES: dict[str, tuple[str, Sequence[str]]] = {"head": ("z", ["head"]), "residual stream": ("resid_pre", ["pos"])}


def effects(model: Model, behaviour: str, place: str, n: int = 64, seed: int = 0) -> xr.Dataset:
    """Effects of patching each place, in both directions, with interval and corrected p-value.

    Returns:
        As `stats.summary`, by (direction, layer, head or role).
    """
    task = tasks.EMBEDDED[behaviour](model, n, seed)
    kind, over = PLACES[place]
    roles = list(task.clean.roles) if "pos" in over else ()
    given = model, task.clean, task.corrupt, model.sites(kind), task.logit_diff, over
    return stats.summary(patching.both_directions(*given, roles=roles))


def table(model: Model, behaviour: str, place: str, n: int = 64, least: float = 0.02) -> str:
    """The places that matter, as a table in Markdown: significant, and at least this share in one direction."""
    found = effects(model, behaviour, place, n)
    axis = str(found["mean"].dims[-1])
    rows = []
    for layer in found["layer"].values:
        for name in found[axis].values:
            sides = [found.sel({"direction": way, "layer": layer, axis: name}) for way in patching.DIRECTIONS]
            if any(bool(side["significant"]) and abs(float(side["mean"])) >= least for side in sides):
                rows.append(f"| {layer} | {name} | {' | '.join(map(_cell, sides))} |")
    head = f"| layer | {axis.replace('pos', 'role')} | restored by denoising | lost by noising |\n|---|---|---|---|"
    return "\n".join([head, *rows])


def _cell(side: xr.Dataset) -> str:
    mean, low, high = (float(side[name]) for name in ("mean", "low", "high"))
    return f"{mean:.2f} ({low:.2f} to {high:.2f}){'' if bool(side['significant']) else ', not significant'}"
