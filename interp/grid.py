"""The places at which two runs are patched, one by one: sites, and indices along some of their axes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.contrast import Contrast
from interp.edits import Edit, copy, exchange
from interp.sites import Site
from interp.softmax import visible

POSITIONS = ("pos", "query", "key")
Roles = Sequence[str] | Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Cell:
    """One place to patch.

    Attributes:
        place: Its index by (kind, layer, *over).
        edit: What puts the source's activation there.
        measured: The prompts that have anything there.
    """

    place: tuple[int, ...]
    edit: Edit
    measured: Bool[Tensor, " prompt"]


@dataclass(frozen=True)
class Grid:
    """What is patched: every site, at every index along some axes.

    Attributes:
        sites: Each once, of any kinds.
        over: The axes along which each index is a place of its own.
        roles: What an axis of positions runs over instead of all of them.
        subspace: In the sites' last axis, if not all of it is copied.
    """

    sites: Sequence[Site]
    over: Sequence[str]
    roles: Mapping[str, Sequence[str]]
    subspace: Tensor | None

    @property
    def kinds(self) -> list[str]:
        """The kinds of the sites."""
        return list(dict.fromkeys(site.kind for site in self.sites))

    @property
    def layers(self) -> list[int | None]:
        """The layers of the sites, upwards; of sites without one, None."""
        return list(dict.fromkeys(site.layer for site in sorted(self.sites, key=lambda site: site.order)))

    def along(self, axis: str, sites: Sequence[Site], runs: Contrast) -> Sequence[int | str]:
        """What an axis runs over: of sites that have fewer heads than others, the most."""
        sizes = [dict(zip(site.axes, runs.source[site].shape)) for site in sites]
        return self.roles.get(axis) or range(max(size[axis] for size in sizes))

    def cells(self, runs: Contrast) -> Iterator[Cell]:
        """The cells in which at least one prompt has something, made one by one: there may be very many."""
        for site in self.sites:
            axes = [self.along(axis, [site], runs) for axis in self.over]
            present = _present(site, runs) if {"query", "key"} <= set(self.over) else None
            for index in product(*map(range, map(len, axes))):
                at = {axis: names[i] for axis, names, i in zip(self.over, axes, index)}
                edit = copy(runs.source, site, **at)
                if self.subspace is not None:
                    edit = exchange(runs.source, site, self.subspace, **at)
                measured = _has_tokens(edit, runs)
                if present is not None:
                    sides = zip(present, (runs.source.tokens, runs.base.tokens))
                    seen = [mask[edit.index(tokens)].reshape(len(tokens), -1).any(-1) for mask, tokens in sides]
                    measured = measured & (seen[0] | seen[1])
                if bool(measured.any()):
                    yield Cell((self.kinds.index(site.kind), self.layers.index(site.layer), *index), edit, measured)


def _present(site: Site, runs: Contrast) -> list[Bool[Tensor, "prompt head query key"]]:
    """Where attention is not masked, in the source and in the base."""
    values = [run[site] for run in (runs.source, runs.base)]
    return [x > 0 if site.kind == "pattern" else visible(x) for x in values]


def _has_tokens(edit: Edit, runs: Contrast) -> Bool[Tensor, " prompt"]:
    """The prompts that have a token, not padding, at an edit's positions."""
    masks = [run.tokens.mask.bool() for run in (runs.source, runs.base)]
    positions = [i for axis, i in edit.at.items() if axis in POSITIONS and not isinstance(i, str)]
    return torch.stack([mask[:, i] for mask in masks for i in [*positions, -1]]).all(0)


def grid_of(sites: Sequence[Site], over: Sequence[str], roles: Roles, subspace: Tensor | None) -> Grid:
    """The places at which to patch.

    Args:
        over, roles, subspace: As in `patching.patch`.

    Raises:
        ValueError: No sites; an axis that they lack, or that is there twice; roles without an axis of positions; a
            subspace of an axis that is patched over; sites with and without a layer together.
    """
    if not sites:
        raise ValueError("patch needs at least one site; give some, such as model.sites('z')")
    if len(set(over)) != len(over):
        raise ValueError(f"each axis is patched over once; over={tuple(over)} repeats one")
    for site in sites:
        if unknown := set(over) - set(site.axes) | (set(over) & {"batch"}):
            raise ValueError(
                f"cannot patch {site.kind} over {sorted(unknown)}; its axes are {', '.join(site.axes[1:])}"
            )
        if subspace is not None and (site.axes[-1] in over or site.axes[-1] == "key"):
            last = site.axes[-1]
            raise ValueError(
                f"a subspace of {site} lies in its last axis, which must be a whole one of features, not {last}"
            )
    if len({site.layer is None for site in sites}) == 2:
        raise ValueError(
            "sites with and without a layer cannot share an axis; patch embed and resid_final on their own"
        )
    positions = [axis for axis in over if axis in POSITIONS]
    named = dict(roles) if isinstance(roles, Mapping) else {axis: list(roles) for axis in positions if roles}
    if (roles and not named) or set(named) - set(positions):
        raise ValueError(
            f"roles {list(roles)} were given, but over={tuple(over)} has no axis of positions to run over them"
        )
    return Grid(list(dict.fromkeys(sites)), tuple(over), named, subspace)
