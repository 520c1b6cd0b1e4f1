"""What is given where several things may be: one of them, or several, and nothing else."""

from collections.abc import Iterable
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import torch
import xarray as xr

from interp.edits import Edit
from interp.sites import Site
from interp.wording import shown

T = TypeVar("T")


def listed(given: T | Iterable[T], kind: type[T], example: str) -> list[T]:
    """One thing of a kind, or several, as a list.

    Args:
        example: What to write instead of something else.

    Raises:
        TypeError: Anything else.
    """
    if isinstance(given, kind):
        return [given]
    things: list[Any] = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    if wrong := [thing for thing in things if not isinstance(thing, kind)]:
        raise TypeError(f"this takes interp.{kind.__name__}, one or several, not {shown(wrong[0])}; write {example}")
    return things


def sites_of(given: Site | Iterable[Site]) -> list[Site]:
    """Sites, one or several."""
    return listed(given, Site, "Site('resid_pre', 0), or model.sites('resid_pre') for every layer")


def edits_of(given: Edit | Iterable[Edit]) -> list[Edit]:
    """Edits, one or several."""
    return listed(given, Edit, "interp.edits.zero(Site('z', 0), head=1)")


def names_of(given: str | Iterable[str]) -> tuple[str, ...]:
    """Names, one or several, such as those of axes."""
    return (given,) if isinstance(given, str) else tuple(given)


def count_of(name: str, given: Any, least: int = 1) -> int:
    """A whole number.

    Raises:
        TypeError: What is none.
        ValueError: One that is too small.
    """
    if not isinstance(given, Integral) or isinstance(given, bool):
        raise TypeError(f"{name} is a whole number, not {shown(given)}")
    if given < least:
        raise ValueError(f"{name} is at least {least}, not {given}")
    return int(given)


def check_number(name: str, given: Any) -> None:
    """Refuse what is no finite number, of Python, numpy or torch.

    Raises:
        TypeError: What is no number.
        ValueError: NaN and infinity.
    """
    one = isinstance(given, Real) or (isinstance(given, torch.Tensor) and given.numel() == 1)
    if not one or isinstance(given, bool):
        raise TypeError(f"{name} is a number, not {shown(given)}")
    if not isfinite(given):
        raise ValueError(f"{name} is a finite number, not {given}")


def check_finite(x: torch.Tensor, where: str = "") -> None:
    """Refuse features, (..., example, d), that are no numbers.

    Args:
        where: They were read.

    Raises:
        ValueError: NaN or infinity.
    """
    if not bool((finite := x.isfinite()).all()):
        lost = (~finite).any(-1).sum(-1).max()
        raise ValueError(f"the features{where} of {int(lost)} examples are not finite numbers")


def check_switch(name: str, given: Any) -> None:
    """Refuse what is neither True nor False.

    Raises:
        TypeError: If so.
    """
    if not isinstance(given, bool):
        raise TypeError(f"{name} is True or False, not {shown(given)}")


def check_folder(path: str | Path) -> None:
    """Refuse a file that is to be written where there is no folder.

    Raises:
        FileNotFoundError: If so.
    """
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(Path(path).parent)!r} to write {Path(path).name!r} into")


def check_labelled_array(given: Any) -> None:
    """Refuse values without names for their axes.

    Raises:
        TypeError: If so.
    """
    if not isinstance(given, xr.DataArray):
        raise TypeError(
            f"this takes a labelled array, such as methods return, not {type(given).__name__}; give names to the axes "
            f"by xarray.DataArray(values, dims=('layer', 'prompt'))"
        )


def check_differentiable() -> None:
    """Refuse to look for gradients where nothing has any.

    Raises:
        RuntimeError: Under `torch.inference_mode()`.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("there are no gradients under torch.inference_mode(); leave it, or use torch.no_grad()")
