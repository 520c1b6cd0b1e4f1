"""What can be decoded: the residual stream, and what each part adds to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from interp.components import last_stream, output_matrices
from interp.lens.rows import Rows
from interp.lens.tuned import TunedLens
from interp.model import Model
from interp.sites import Site
from interp.traces import Trace


@dataclass(frozen=True)
class Place:
    """One thing that is decoded.

    Attributes:
        index: Its indices by axis, such as a layer and a head.
        site: What is read for it.
        of: Makes rows of the site's tensor into vectors of the stream's width.
    """

    index: dict[str, int]
    site: Site
    of: Callable[[Tensor], Float[Tensor, "row d_model"]]

    def vectors(self, trace: Trace, rows: Rows, chunk: slice = slice(None)) -> Float[Tensor, "row d_model"]:
        """Its vectors at some of the rows."""
        return self.of(trace[self.site][rows.prompt[chunk], rows.pos[chunk]])


def places(model: Model, kind: str, by: TunedLens | None = None) -> list[Place]:
    """Everything of one kind in a model, from the bottom up; of `z`, what each head writes.

    Raises:
        ValueError: A kind that is no part of the stream; heads that cannot be told apart; heads and a tuned lens.
        KeyError: Sites that the lens does not translate.
    """
    sites = model.sites(kind)
    return _heads(model, sites, by) if kind == "z" else [place_of(model, site, by) for site in sites]


def place_of(model: Model, site: Site, by: TunedLens | None = None) -> Place:
    """A whole site, as it is or as a tuned lens translates it; what leaves the last block needs no translation.

    Raises:
        ValueError: A site that is no part of the stream.
        KeyError: One that the lens does not translate.
    """
    if site.axes[-1] != "d_model":
        axes = ", ".join(site.axes)
        raise ValueError(f"a lens decodes the residual stream and what is added to it; {site.kind} has axes {axes}")
    index = {} if site.layer is None else {"layer": site.layer}
    final = site in (last_stream(model), Site("resid_final"))
    return Place(index, site, _same if by is None or final else by[site])


def axes_of(found: Sequence[Place]) -> dict[str, list[int]]:
    """The axes that places have, and their coordinates."""
    names = found[0].index
    return {axis: list(dict.fromkeys(place.index[axis] for place in found)) for axis in names}


def names_of(found: Sequence[Place]) -> list[str]:
    """What to call each place."""
    return [", ".join(f"{axis} {i}" for axis, i in place.index.items()) or str(place.site) for place in found]


def _heads(model: Model, sites: Sequence[Site], by: TunedLens | None) -> list[Place]:
    if by is not None:
        raise ValueError("a tuned lens translates the residual stream, not what heads add to it; leave by= out")
    matrices = output_matrices(model)
    if matrices is None:
        raise ValueError(
            f"the heads of {model.name} cannot be told apart: a norm stands between them and the stream; "
            "decode kind='attn_out'"
        )
    return [
        Place({"layer": site.layer or 0, "head": head}, site, _head(head, weight))
        for site, matrix in zip(sites, matrices)
        for head, weight in enumerate(matrix.weight)
    ]


def _head(head: int, weight: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda z: z[:, head] @ weight


def _same(resid: Tensor) -> Tensor:
    return resid
