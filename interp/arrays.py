"""Results: labelled arrays that remember how they were made; the only module that builds one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from interp.model import Model
from interp.traces import Tokens


@dataclass(frozen=True)
class Check:
    """What says whether to believe a number; it travels with it.

    Attributes:
        status: "pass", "warn", "fail" or "skipped".
    """

    name: str
    value: float
    threshold: float
    status: str
    why: str
    source: str = ""

    @classmethod
    def at_most(
        cls, name: str, value: float, most: float, why: str, source: str = "", otherwise: str = "warn"
    ) -> "Check":
        """Passes up to the threshold; of NaN it is skipped."""
        return cls(name, value, most, _status(value, value <= most, otherwise), why, source)

    @classmethod
    def at_least(cls, name: str, value: float, least: float, why: str, source: str = "") -> "Check":
        """Passes from the threshold on, else warns; of NaN it is skipped."""
        return cls(name, value, least, _status(value, value >= least), why, source)

    @classmethod
    def above(cls, name: str, value: float, threshold: float, why: str, source: str = "") -> "Check":
        """Passes beyond the threshold, else warns; of NaN it is skipped."""
        return cls(name, value, threshold, _status(value, value > threshold), why, source)


def _status(value: float, holds: bool, otherwise: str = "warn") -> str:
    return "skipped" if value != value else "pass" if holds else otherwise


def labelled(
    values: Tensor,
    name: str,
    coords: Mapping[str, Sequence[Any]],
    model: Model,
    checks: Sequence[Check] = (),
    **how: Any,
) -> xr.DataArray:
    """A tensor as a labelled array; `coords` names its axes in order, `how` says what made it."""
    wide = values.detach().to("cpu", torch.float64 if values.dtype == torch.float64 else torch.float32)
    attrs: dict[str, Any] = {
        "model": model.name,
        "backend": model.backend,
        "precision": str(model.dtype),  # netCDF keeps the name dtype for itself
        "device": str(model.device),
    }
    attrs |= attach(checks, how)
    return xr.DataArray(
        wide.numpy(), dims=tuple(coords), coords={axis: list(labels) for axis, labels in coords.items()}, name=name,
        attrs=attrs,
    )  # fmt: skip


def attach(checks: Sequence[Check], how: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes that say how something was made and whether to believe it, as plain values."""
    plain = {key: _written(value) for key, value in how.items()}
    return plain | {"checks": json.dumps([asdict(check) for check in checks])}


def _written(value: Any) -> str | int | float:
    """A value as files can hold it: text or a number."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return value
    return json.dumps(value, default=lambda number: number.item())


def checks_of(array: xr.DataArray | xr.Dataset) -> list[Check]:
    """The checks that an array carries."""
    return [Check(**row) for row in json.loads(array.attrs.get("checks", "[]"))]


def in_order_of(array: xr.DataArray, like: xr.DataArray) -> xr.DataArray:
    """An array with its cells in another's order, along axes on which both have the same labels."""
    for axis in {*array.indexes} & {*like.indexes} & {*array.dims}:
        own, wanted = array.indexes[axis], like.indexes[axis]
        if not own.equals(wanted) and own.is_unique and set(own) == set(wanted) and wanted.is_unique:
            array = array.sel({axis: wanted})
    return array


def position_labels(model: Model, tokens: Tokens) -> list[str]:
    """Readable, unique labels for the positions of a batch: a number, and what all prompts have in common there.

    That is the word if they share it, otherwise a role that sits there in all of them, otherwise "…".
    """
    shared = ((tokens.ids == tokens.ids[0]) & (tokens.mask == tokens.mask[0])).all(0).tolist()
    words = model.words(tokens.ids[0].tolist())
    roles: dict[int, str] = {}
    for name, positions in tokens.roles.items():
        if bool((positions == positions[0]).all()):
            roles.setdefault(int(positions[0]), name)
    return [f"{i} {word if same else roles.get(i, '…')}" for i, (word, same) in enumerate(zip(words, shared))]


def prompt_words(model: Model, tokens: Tokens) -> list[list[str]]:
    """The text of each token of each prompt, without padding."""
    return [model.words(ids[mask.bool()].tolist()) for ids, mask in zip(tokens.ids, tokens.mask)]
