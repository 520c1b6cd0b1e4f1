"""Numbers as words: what an experiment's answer is written with."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr


def largest(array: "xr.DataArray") -> dict[str, Any]:
    """The labels of an array's largest value, NaN aside."""
    flat = array.stack(cell=array.dims)
    chosen = flat.isel(cell=int(flat.argmax("cell")))
    return {str(axis): chosen[axis].values.item() for axis in array.dims}


def percent(value: Any) -> str:
    """A share, in whole percent."""
    return f"{100 * float(value):.0f} %"


def between(table: "xr.Dataset", **at: Any) -> str:
    """A share with its interval: "96 % (94 % to 97 %)"."""
    mean, low, high = (percent(table[name].sel(at)) for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def within(table: "xr.Dataset", **at: Any) -> str:
    """A number with its interval: "0.31 (0.28 to 0.35)"."""
    mean, low, high = (f"{float(table[name].sel(at)):.2f}" for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def head(at: dict[str, Any]) -> str:
    """A head's name: "L0H3"."""
    return f"L{at['layer']}H{at['head']}"


def listed(names: Sequence[str]) -> str:
    """Names in a row: "a, b and c"; "none" if there are none."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "none"
