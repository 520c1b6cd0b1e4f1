"""The places at which a method acts one by one: sites, and indices along some of their axes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import torch
from einops import reduce
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from interp.arguments import names_of, sites_of
from interp.arrays import position_labels
from interp.contrast import Contrast, contrast
from interp.edits import Index
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.sites import Site
from interp.traces import Tokens, Trace, check_aligned, visible

POSITIONS = ("pos", "query", "key")
Roles = str | Sequence[str] | Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Place:
    """One part of a site.

    Attributes:
        index: Where it stands in the grid, by (kind, layer, *over).
        at: Its indices by axis name.
    """

    index: tuple[int, ...]
    site: Site
    at: Mapping[str, Index]


@dataclass(frozen=True)
class Grid:
    """Every site, at every index along some axes; the others are taken whole.

    Attributes:
        sites: Each once, of any kinds.
        over: The axes along which each index is a place of its own.
        roles: What an axis of positions runs over instead of all of them.
    """

    sites: Sequence[Site]
    over: Sequence[str]
    roles: Mapping[str, Sequence[str]]

    @cached_property
    def kinds(self) -> list[str]:
        """The kinds of the sites."""
        return list(dict.fromkeys(site.kind for site in self.sites))

    @cached_property
    def layers(self) -> list[int | None]:
        """The layers of the sites, upwards; of sites without one, None."""
        return list(dict.fromkeys(site.layer for site in sorted(self.sites, key=lambda site: site.order)))

    def along(self, axis: str, sites: Sequence[Site], run: Trace) -> Sequence[int | str]:
        """What an axis runs over: of sites that have fewer heads than others, the most."""
        sizes = [dict(zip(site.axes, run[site].shape)) for site in sites]
        return self.roles.get(axis) or range(max(size[axis] for size in sizes))

    def places(self, run: Trace) -> Iterator[Place]:
        """The places, made one by one: there may be very many."""
        for site in self.sites:
            axes = [self.along(axis, [site], run) for axis in self.over]
            for index in product(*map(range, map(len, axes))):
                at = {axis: names[i] for axis, names, i in zip(self.over, axes, index)}
                yield Place((*self._row(site), *index), site, at)

    def runs(
        self,
        model: Model,
        clean: Prompts,
        corrupt: Prompts,
        metrics: Sequence[Metric],
        direction: str,
        both: bool,
        grad: bool = False,
    ) -> Contrast:
        """Both runs, with the sites of the source and, if both are wanted, those of the base.

        Args:
            grad: Keep the graph of the base, which is then not recorded.

        Raises:
            ValueError: Prompts that are not aligned, unless roles say what belongs together; what `contrast` raises.
        """
        clean, corrupt = model.tokens(clean), model.tokens(corrupt)
        if set(POSITIONS) & {axis for site in self.sites for axis in site.axes} - set(self.roles):
            check_aligned(clean, corrupt)
        base = self.sites if both or self._by_score else []
        return contrast(model, clean, corrupt, metrics, direction, self.sites, base, grad)

    def coords(self, model: Model, run: Trace, tokens: Tokens) -> dict[str, Sequence[Any]]:
        """Labels of (kind, layer, *over, prompt), without those of the first two that there is no need of.

        Args:
            tokens: The prompts whose words are the labels of positions.
        """
        labels: dict[str, Sequence[Any]] = {"kind": self.kinds} if len(self.kinds) > 1 else {}
        labels |= {"layer": self.layers} if self.layers != [None] else {}
        words = position_labels(model, tokens)
        for axis in self.over:
            indices = self.along(axis, self.sites, run)
            labels[axis] = words if axis in POSITIONS and axis not in self.roles else list(indices)
        return labels | {"prompt": range(len(tokens))}

    def shape(self, run: Trace) -> tuple[int, ...]:
        """The sizes of (kind, layer, *over, prompt)."""
        sizes = [len(self.along(axis, self.sites, run)) for axis in self.over]
        return (len(self.kinds), len(self.layers), *sizes, len(run.tokens))

    def filled(self, parts: Mapping[Site, Float[Tensor, "*over prompt"]], run: Trace) -> Tensor:
        """Values of each site's places as (kind, layer, *over, prompt), NaN where a site has no such place."""
        first = next(iter(parts.values()))
        values = first.new_full(self.shape(run), float("nan"))
        for site, part in parts.items():
            values[self._corner(site, part)] = part
        return values

    def pick(self, values: Shaped[Tensor, "batch *axes"], axes: Sequence[str], tokens: Tokens) -> Tensor:
        """What has the axes of a site, with each prompt's roles along the axes that run over these."""
        for axis, names in self.roles.items():
            if axis in axes:
                at = torch.stack([tokens.role(name) for name in names], dim=1)
                values = values.take_along_dim(
                    at.view([len(at), *(len(names) if a == axis else 1 for a in axes[1:])]), axes.index(axis)
                )
        return values

    def collect(self, picked: Tensor, axes: Sequence[str], how: str = "sum") -> Shaped[Tensor, "*over prompt"]:
        """What was picked, put together over the axes that places take whole."""
        return reduce(picked, f"{' '.join(axes)} -> {' '.join([*self.over, 'batch'])}", how)

    def total(self, values: Tensor, axes: Sequence[str], tokens: Tokens) -> Float[Tensor, "*over prompt"]:
        """What has the axes of a site, or some of them, summed over what places take whole."""
        return self.collect(self.pick(values, axes, tokens), axes)

    def measured(self, *runs: Trace) -> Bool[Tensor, "kind layer *over prompt"]:
        """Where there is something: tokens, not padding, in every run, and attention that some run does not mask."""
        shape, device = self.shape(runs[0]), runs[0].tokens.ids.device
        found = torch.zeros(shape, dtype=torch.bool, device=device)
        for site in self.sites:
            sizes = [len(self.along(axis, [site], runs[0])) for axis in self.over]
            part = torch.ones([*sizes, shape[-1]], dtype=torch.bool, device=device)
            if self._by_score:
                part = torch.stack([self._attended(site, run) for run in runs]).any(0)
            found[self._corner(site, part)] = part
        for i, axis in enumerate(self.over, start=2):
            if axis in POSITIONS and axis not in self.roles:
                sizes = [shape[i] if j == i else 1 for j in range(len(shape) - 1)]
                for run in runs:
                    found = found & run.tokens.mask.bool().T.reshape(*sizes, -1)
        return found

    @property
    def _by_score(self) -> bool:
        """Whether places are single attention scores, of which many are masked."""
        return {"query", "key"} <= set(self.over)

    def _attended(self, site: Site, run: Trace) -> Bool[Tensor, "*over prompt"]:
        seen = run[site] > 0 if site.kind == "pattern" else visible(run[site])
        return self.collect(self.pick(seen, site.axes, run.tokens), site.axes, "any")

    def _row(self, site: Site) -> tuple[int, int]:
        return self.kinds.index(site.kind), self.layers.index(site.layer)

    def _corner(self, site: Site, part: Tensor) -> tuple[Any, ...]:
        """Where a site's places stand; it may have fewer heads than others."""
        return (*self._row(site), *map(slice, part.shape))


def grid_of(sites: Site | Sequence[Site], over: str | Sequence[str], roles: Roles) -> Grid:
    """The grid of what a method is asked for.

    Args:
        over, roles: As in `patching.patch`.

    Raises:
        ValueError: No sites; an axis that they lack, or that is there twice; roles without an axis of positions;
            sites with and without a layer together.
    """
    sites, over = sites_of(sites), names_of(over)
    if not sites:
        raise ValueError("give at least one site, such as those of model.sites('z')")
    if len(set(over)) != len(over):
        raise ValueError(f"over={tuple(over)} repeats an axis; name each once")
    for site in sites:
        if unknown := set(over) - set(site.axes) | (set(over) & {"batch"}):
            raise ValueError(
                f"{site.kind} has no axis {', '.join(sorted(unknown))} to go over; it has {', '.join(site.axes[1:])}"
            )
    if len({site.layer is None for site in sites}) == 2:
        raise ValueError("sites with and without a layer cannot share an axis; take embed and resid_final on their own")
    positions = [axis for axis in over if axis in POSITIONS]
    named = (
        {axis: names_of(names) for axis, names in roles.items()}
        if isinstance(roles, Mapping)
        else {axis: names_of(roles) for axis in positions if roles}
    )
    if (roles and not named) or set(named) - set(positions):
        raise ValueError(
            f"roles {list(roles)} were given, but over={tuple(over)} has no axis of positions to run over them"
        )
    return Grid(list(dict.fromkeys(sites)), tuple(over), named)
