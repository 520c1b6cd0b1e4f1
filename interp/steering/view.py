"""A model with steering in force, for a block of code; the model itself is never touched."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import count_of
from interp.arrays import labelled, position_labels
from interp.columns import addressed
from interp.edits import Edit
from interp.model import Model, Prompts
from interp.shape import Cache
from interp.steering.application import steer
from interp.steering.vector import Vector, Vectors
from interp.traces import Tokens
from interp.visits import Visits


class SteeredModel(Model):
    """A model under edits that come before those of each run; everything that takes a `Model` takes it.

    Its runs are full passes: the sweep engine's shortcuts take a model's blocks apart, where these edits are not.
    """

    def __init__(self, model: Model, edits: Sequence[Edit]) -> None:
        model.check(edits=edits)
        self._inner, self._edits, self._open = model, list(edits), True
        self.name, self.backend = f"{model.name}, steered", f"{model.backend}, steered"
        self.module, self.shape, self.tokenizer, self.bos = model.module, model.shape, model.tokenizer, model.bos
        self.editable, self.missing = model.editable, model.missing

    def forward(self, tokens: Tokens, visits: Visits, last_only: bool, cache: Cache | None = None) -> Tensor:
        if not self._open:
            raise RuntimeError(f"{self.name} was used after its with block; steering ends there")
        steered = visits.after(addressed(self._edits, tokens, 0 if cache is None else cache.held))
        logits = self._inner.forward(tokens, steered, last_only, cache)
        steered.finish()
        return logits

    def new_cache(self) -> Cache | None:
        return self._inner.new_cache()

    def unembed(self, resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
        return self._inner.unembed(resid)

    def unembed_some(self, resid: Float[Tensor, "row d_model"], ids: Int[Tensor, "row n"]) -> Float[Tensor, "row n"]:
        return self._inner.unembed_some(resid, ids)

    def weights(self) -> Mapping[str, Tensor]:
        return self._inner.weights()

    @property
    def plain(self) -> Model:
        return self._inner.plain

    @property
    def in_force(self) -> Sequence[Edit]:
        return [*self._inner.in_force, *self._edits]

    @property
    def logit_cap(self) -> float | None:
        return self._inner.logit_cap

    def close(self) -> None:
        """End it: from now on it refuses to run."""
        self._open = False


@contextmanager
def applied(model: Model, steering: Vectors | Sequence[Edit], dose: float = 1.0, **options: Any) -> Iterator[Model]:
    """A model steered for a block of code: `with applied(model, vector, 2.0, unit="sigma") as steered: ...`.

    Args:
        steering: Vectors, or edits such as `steer` makes, of several concepts perhaps.
        dose, options: As in `steer`, of vectors; edits have theirs.

    Raises:
        ValueError: Options together with edits; what `steer` raises.
    """
    listed = [steering] if isinstance(steering, Vector) else list(steering)
    made = [item for item in listed if isinstance(item, Edit)]
    if made and (options or dose != 1.0 or len(made) != len(listed)):
        raise ValueError("edits have their dose and options already; give edits alone, or vectors with options")
    edits = made if made or not listed else steer([v for v in listed if isinstance(v, Vector)], dose, **options)
    view = SteeredModel(model, edits)
    try:
        yield view
    finally:
        view.close()


@torch.no_grad()
def preview(model: Model, prompts: Prompts, edits: Sequence[Edit], n_tokens: int = 0) -> xr.DataArray:
    """Which tokens edits would act on, found by a run of the prompts: a condition that holds back holds back here too.

    Args:
        n_tokens: How many tokens are to be generated; what is addressed there is shown as if every condition held.

    Returns:
        How far each token is moved, the largest absolute change of an entry, by (site, prompt, pos); NaN is padding, 0
        a token that is left alone, infinity one that is addressed and not yet generated.
    """
    count_of("n_tokens", n_tokens, 0)
    tokens = model.tokens(prompts)
    sites = sorted({edit.site for edit in edits}, key=lambda site: site.order)
    moved = torch.zeros(len(sites), *tokens.ids.shape)
    watches = [_Watch(edit, moved[sites.index(edit.site)], tokens) for edit in addressed(edits, tokens)]
    model.run(tokens, edits=[part for watch in watches for part in watch.parts], last_only=True)
    values = moved.masked_fill(tokens.mask.cpu() == 0, torch.nan)
    later, names = tokens, position_labels(model, tokens)
    for step in range(n_tokens):
        later = later.append(tokens.ids[:, -1])
        here = [edit.site for edit in addressed(edits, later, later.ids.shape[1] - 1)]
        column = torch.tensor([torch.inf if site in here else 0.0 for site in sites])
        values = torch.cat([values, column[:, None, None].expand(-1, len(tokens), 1)], -1)
        names.append(f"{tokens.ids.shape[1] + step} generated")
    coords: dict[str, Sequence[Any]] = {"site": [str(site) for site in sites], "prompt": range(len(tokens))}
    return labelled(values, "largest change", {**coords, "pos": names}, model, method="preview of steered tokens")


class _Watch:
    """An edit between two that change nothing and keep what they see."""

    def __init__(self, edit: Edit, moved: Float[Tensor, "batch pos"], tokens: Tokens) -> None:
        self.edit, self.moved, self.index = edit, moved, edit.index(tokens)
        self.before: list[Tensor] = []
        self.parts = [Edit(edit.site, self._keep, edit.at), edit, Edit(edit.site, self._compare, edit.at)]

    def _keep(self, x: Tensor) -> Tensor:
        self.before[:] = [x.clone()]
        return x

    def _compare(self, x: Tensor) -> Tensor:
        place = tuple(i.cpu() if isinstance(i, Tensor) else i for i in self.index[:2])
        change = (x - self.before[0]).abs().amax(-1).float().cpu()
        self.moved[place] = torch.maximum(self.moved[place], change)
        return x
