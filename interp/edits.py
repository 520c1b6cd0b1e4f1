"""Edits: change the tensor at a site while a model runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from interp.directions import ArrayLike, along, span, tensor_of, unit_of
from interp.indexing import Index, index_of, plain, pooled
from interp.precision import widened
from interp.sites import Site
from interp.traces import Tokens, Trace, visible


@dataclass(frozen=True)
class Edit:
    """Replace part of the tensor at a site by a function of that part.

    Attributes:
        site: Where to act.
        change: Maps the selected part to its replacement, of the same shape or one that broadcasts to it; it returns a
            new tensor and leaves its argument alone. Where there is a role or more than one list among the indices, the
            prompts come first, then the axes with lists, then the others. Masked scores stay masked, whatever is put
            there, and patterns of padding hidden.
        at: Index by axis name; an axis left out is taken whole, and each entry of a list with each of another. Along
            `pos`, `query` and `key` a string names a role of the prompts, so that each prompt has its own position;
            "prompt" and "generated" are all positions that were given and all that were generated.
        moves: Whether a run in which this edit changes nothing is an error.
    """

    site: Site
    change: Callable[[Tensor], Tensor]
    at: Mapping[str, Index] = field(default_factory=dict)
    moves: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.site, Site):
            raise TypeError(f"an edit is of an interp.Site, not {self.site!r}; write Site('z', 0)")
        axes = self.site.axes
        if unknown := [axis for axis in self.at if axis not in axes]:
            raise ValueError(f"{self.site} has axes {', '.join(axes)}, not {', '.join(sorted(unknown))}")
        if any(type(index) not in (int, slice, str) for index in self.at.values()):
            object.__setattr__(self, "at", {axis: plain(index) for axis, index in self.at.items()})
        for axis, index in self.at.items():
            if isinstance(index, str) and axis not in ("pos", "query", "key"):
                raise ValueError(f"axis {axis!r} of {self.site} takes a number, not the role {index!r}")

    def index(self, tokens: Tokens) -> tuple:
        """The selected part as an index into the site's tensor, axis by axis."""
        return index_of(self.site.axes, self.at, tokens)

    def first(self, tokens: Tokens) -> int | Tensor:
        """The first position that this edit can change: in a causal model, none before it is affected."""
        n_pos = tokens.ids.shape[1]
        index = self.at.get(self.site.along, 0)
        if isinstance(index, int):
            return index % n_pos
        if isinstance(index, str) and index not in tokens.spans:
            return tokens.role(index)
        if isinstance(index, str):
            index = tokens.spans[index]
        if isinstance(index, slice):
            return min(range(*index.indices(n_pos)), default=0)
        positions = torch.as_tensor(index)
        positions = positions.nonzero() if positions.dtype == torch.bool else positions % n_pos
        return int(positions.min()) if positions.numel() else 0

    def part(self, activation: Tensor, index: tuple) -> Tensor:
        """The selected part of a site's tensor."""
        try:
            part: Tensor = activation[index]
        except IndexError as error:
            sizes = dict(zip(self.site.axes, activation.shape))
            raise IndexError(f"edit of {self.site} at {dict(self.at)} is out of range; its axes: {sizes}") from error
        if part.numel() == 0:
            raise ValueError(f"edit of {self.site} at {dict(self.at)} selects nothing; check its indices")
        return part

    def replacement(self, part: Tensor, padding: Tensor | None = None) -> Tensor:
        """What the selected part becomes; what a query must not see stays hidden.

        Args:
            padding: Which of it are patterns of padding.
        """
        version = version_of(part)
        value = self.change(part)
        if not isinstance(value, Tensor):
            raise TypeError(f"the change at {self.site} returned {type(value).__name__}; return the new tensor")
        if version_of(part) != version:
            raise ValueError(f"the change at {self.site} wrote into its argument; return a new tensor instead")
        try:
            value = value.to(part).expand_as(part)
        except RuntimeError:
            shapes = f"{tuple(part.shape)}, but the change returned {tuple(value.shape)}"
            hint = "what comes from another run is of as many prompts, and at the same indices"
            raise ValueError(f"the selected part of {self.site} has shape {shapes}; {hint}") from None
        if self.site.kind == "scores":  # a masked score that is set to zero would show the future
            return torch.where(visible(part), value, part)
        return value if padding is None else torch.where(padding, part, value)


def version_of(tensor: Tensor) -> int:
    """How often a tensor was written to; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version


def put(site: Site, value: ArrayLike, **at: Index) -> Edit:
    """Set the site to a value that broadcasts to the selected part."""
    held = tensor_of(value)
    return Edit(site, lambda x: held, at)


def copy(trace: Trace, site: Site, **at: Index) -> Edit:
    """Set the site to what it held in another run, at the same indices.

    A role is looked up in the prompts of each run, so that the two may have it at different positions.
    """
    chosen = Edit(site, lambda x: source, at)
    source = trace[site][chosen.index(trace.tokens)]
    return chosen


def exchange(trace: Trace, site: Site, subspace: ArrayLike, **at: Index) -> Edit:
    """Set what lies in a subspace of the site's last axis to what it held in another run; the rest stays.

    An interchange along directions (Geiger et al. 2023, arXiv:2303.02536).

    Args:
        subspace: A direction (d,), or vectors (k, d) that span the subspace, orthonormal or not.
    """
    whole, basis = copy(trace, site, **at), span(tensor_of(subspace))

    def change(x: Tensor) -> Tensor:
        fit = _fit(basis, x, site)
        return x + (whole.change(x) - x) @ fit.T @ fit

    return Edit(site, change, at)


def blend(trace: Trace, site: Site, share: float | Tensor, **at: Index) -> Edit:
    """Move the site part of the way to what it held in another run, at the same indices.

    Args:
        share: How far, for all prompts or for each, (batch,); 0 leaves the site as it is, 1 is `copy`.
    """
    chosen = Edit(site, lambda x: torch.lerp(x, source.to(x), weight.to(x).reshape(-1, *(1,) * (x.ndim - 1))), at)
    source, weight = trace[site][chosen.index(trace.tokens)], torch.as_tensor(share, dtype=torch.float64)
    return chosen


def stop(site: Site, **at: Index) -> Edit:
    """Leave the site as it is, but let no gradient through."""
    return Edit(site, lambda x: x.detach(), at)


def add(site: Site, vector: ArrayLike, **at: Index) -> Edit:
    """Add a vector to the site."""
    held = tensor_of(vector)
    return Edit(site, lambda x: x + _fit(held, x, site), at, moves=bool(held.detach().any()))


def scale(site: Site, factor: ArrayLike, **at: Index) -> Edit:
    """Multiply the site by a factor that broadcasts to the selected part."""
    held = tensor_of(factor)
    return Edit(site, lambda x: x * held.to(x), at)


def zero(site: Site, **at: Index) -> Edit:
    """Set the site to zero."""
    return Edit(site, torch.zeros_like, at)


def mean(trace: Trace, site: Site, over: Sequence[str] = ("batch",), **at: Index) -> Edit:
    """Set the site to its mean in a reference run, over the prompts or over prompts and positions.

    Padding of the reference is left out of the mean.

    Args:
        over: `("batch",)` keeps one mean for each position; `("batch", "pos")` pools the positions.
    """
    if set(over) not in ({"batch"}, {"batch", "pos"}):
        raise ValueError(f"a mean is over ('batch',) or ('batch', 'pos'), not {tuple(over)!r}")
    if "pos" in over and "pos" not in site.axes:
        raise ValueError(f"{site} has no positions to pool; its axes are {', '.join(site.axes)}")
    if "batch" in at:
        raise ValueError("a mean replaces every prompt alike; leave 'batch' out of the indices")
    value = widened(trace[site])
    weight = _weight(value, trace.tokens.mask, site)
    chosen = Edit(site, lambda x: source, at)
    if "pos" in over:
        whole = (value * weight).sum((0, 1), True) / weight.sum((0, 1), True)
        batch, pos, *rest = chosen.index(trace.tokens)
        source = whole[pooled(batch), pooled(pos), *rest]
    else:
        index = chosen.index(trace.tokens)
        weight = weight.expand_as(value)[index]
        source = (value[index] * weight).sum(0) / weight.sum(0).clamp(min=1)
    return chosen


def _weight(value: Tensor, mask: Tensor, site: Site) -> Tensor:
    """1 where the site of a reference run holds a token, 0 where it holds padding."""
    if "pos" in site.axes:
        return mask.to(value).view(*mask.shape, *(1,) * (value.ndim - 2))
    if not bool(mask.all()):
        raise ValueError(f"a mean of {site} needs prompts of one length; these are padded")
    return torch.ones_like(value[..., :1])


def remove(site: Site, direction: ArrayLike, **at: Index) -> Edit:
    """Project a direction of the site's last axis out (directional ablation, Arditi et al. 2024, arXiv:2406.11717)."""
    unit = unit_of(tensor_of(direction))

    def change(x: Tensor) -> Tensor:
        fit = _fit(unit, x, site)
        return x - along(x, fit) * fit

    return Edit(site, change, at)


def clamp(
    site: Site, low: float | None = None, high: float | None = None, direction: ArrayLike | None = None, **at: Index
) -> Edit:
    """Keep the site between two values: each entry or, if a direction is given, the projection on it."""
    if low is None and high is None:
        raise ValueError("clamp needs a lower bound, an upper bound or both; none was given")
    if direction is None:
        return Edit(site, lambda x: x.clamp(low, high), at)
    unit = unit_of(tensor_of(direction))

    def change(x: Tensor) -> Tensor:
        fit = _fit(unit, x, site)
        projection = along(x, fit)
        return x + (projection.clamp(low, high) - projection) * fit

    return Edit(site, change, at)


def _fit(vector: Tensor, part: Tensor, site: Site) -> Tensor:
    """The vector in the dtype and on the device of what it changes, refused if it is of another width."""
    if vector.ndim and vector.shape[-1] not in (1, part.shape[-1]):
        shape = tuple(part.shape)
        raise ValueError(f"a vector of {vector.shape[-1]} entries does not fit the selected part of {site}, {shape}")
    return vector.to(part)
