"""Nodes: the parts of sites that a method measures one by one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import torch
from einops import reduce
from jaxtyping import Bool, Int
from torch import Tensor

from interp.arrays import position_labels
from interp.edits import Index
from interp.model import Model
from interp.sites import Site
from interp.traces import Tokens, Trace


@dataclass(frozen=True)
class Nodes:
    """Every site with every combination of indices along some of its axes; the other axes are taken whole.

    Attributes:
        sites: Sites of one kind.
        axes: What each axis runs over: indices or, along `pos`, the names of roles.
    """

    sites: Sequence[Site]
    axes: Mapping[str, Sequence[int | str]]

    @classmethod
    def of(cls, sites: Sequence[Site], over: Sequence[str], roles: Sequence[str], trace: Trace) -> "Nodes":
        """The nodes of sites that were read in a run.

        Raises:
            ValueError: Sites of several kinds; an axis that they do not have, or twice; roles without `pos`.
        """
        if len(kinds := sorted({site.kind for site in sites})) != 1:
            raise ValueError(f"sites of one kind at a time, not {', '.join(kinds) or 'none at all'}")
        if len(set(over)) != len(over):
            raise ValueError(f"each axis is run over once; over={tuple(over)} repeats one")
        first = sites[0]
        if unknown := set(over) - set(first.axes[1:]):
            raise ValueError(f"{first.kind} has no {sorted(unknown)} to run over; choose from {first.axes[1:]}")
        if roles and "pos" not in over:
            raise ValueError(f"roles {list(roles)} were given, but over={tuple(over)} has no 'pos' to run over them")
        sizes = dict(zip(first.axes, trace[first].shape))
        return cls(sites, {axis: list(roles) if roles and axis == "pos" else range(sizes[axis]) for axis in over})

    def __len__(self) -> int:
        return len(self.sites) * prod(map(len, self.axes.values()))

    def __iter__(self) -> Iterator[tuple[Site, dict[str, Index]]]:
        for site in self.sites:
            for index in product(*self.axes.values()):
                yield site, dict(zip(self.axes, index))

    @property
    def roles(self) -> list[str]:
        """The roles that `pos` runs over; none if it runs over positions, or not at all."""
        return [str(role) for role in self.axes.get("pos", ()) if isinstance(role, str)]

    def positions(self, tokens: Tokens) -> Int[Tensor, "batch role"]:
        """Where the prompts have the roles."""
        return torch.stack([tokens.role(role) for role in self.roles], dim=1)

    def coords(self, model: Model, tokens: Tokens) -> dict[str, Sequence[Any]]:
        """Labels of the axes, in order: layer, those run over, prompt."""
        words = position_labels(model, tokens)
        labels: dict[str, Sequence[Any]] = {"layer": [site.layer for site in self.sites]}
        for axis, indices in self.axes.items():
            named = axis in ("pos", "query", "key") and not (axis == "pos" and self.roles)
            labels[axis] = [words[int(i)] for i in indices] if named else list(indices)
        return labels | {"prompt": range(len(tokens))}

    def collect(self, values: Tensor, axes: Sequence[str], tokens: Tokens) -> Tensor:
        """Values of a site's tensor, or of part of its axes, summed over what nodes take whole: (*over, prompt)."""
        if self.roles:
            values = values[torch.arange(len(values), device=values.device)[:, None], self.positions(tokens)]
        return reduce(values, f"{' '.join(axes)} -> {' '.join([*self.axes, 'batch'])}", "sum")

    def measured(self, present: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "layer *over prompt"]:
        """Where there is a token, not padding; with size 1 along axes where that is all one."""
        measured = torch.ones((1,) * (len(self.axes) + 2), dtype=torch.bool, device=present.device)
        for i, axis in enumerate(self.axes, start=1):
            if axis in ("pos", "query", "key") and not (axis == "pos" and self.roles):
                sizes = [present.shape[1] if j == i else 1 for j in range(measured.ndim - 1)]
                measured = measured & present.T.reshape(*sizes, -1)
        return measured
