"""Run the upper blocks again on many variants of a prompt, without running the lower ones again.

What every block was called with is recorded once. A variant, a row, is then born at the block where its first edit
acts, as a copy of its prompt's residual stream there, and only the blocks from there on are run for it. Where attention
can be had packed, only those of its tokens are run that the edits can have changed.
"""

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.edits import Edit
from interp.model import Model
from interp.padding import believed
from interp.quick import quick
from interp.recording import Recording, of_rows, of_tokens, record
from interp.sites import STREAM, Site
from interp.traces import Tokens, Trace
from interp.trials import Trials, apart, short_prompts, tolerance
from interp.visits import Visit, Visits


def replay(
    model: Model,
    recording: Recording,
    births: Sequence[Tensor],
    visits: Visits,
    reach: Int[Tensor, "step row"],
) -> tuple[Float[Tensor, "row pos d_model"], int]:
    """The residual stream that enters the final norm, for rows in the order of their birth.

    With it comes the work done: how many tokens were run through how many blocks, their sum over the blocks.

    Args:
        births: For each block, and for the end, the prompts of which rows are born there.
        visits: Edits of sites in the block of a row's birth or above.
        reach: First positions that a row's edits inside each block can change and, at last, that any of its edits can.
    """
    rows = _Rows(model, recording, visits, reach)
    hooked = model.hooked(rows.inside, recording.tokens.ids.shape[1], recording.packing)
    with model.alone, hooked, quick(model.module):
        for i, born in enumerate(births):
            rows.bear(i, born)
            rows.step(i)
    return rows.resid, rows.work


class _Rows:
    """The rows of one replay, on their way up."""

    def __init__(self, model: Model, recording: Recording, visits: Visits, reach: Tensor) -> None:
        self.blocks, self.recording, self.reach = model.blocks, recording, reach
        self.visits = {site: self._noting(site, visits[site]) for site in visits}
        self.inside = {site: visit for site, visit in self.visits.items() if site.kind not in STREAM}
        self.resid = recording.stream[0][:0]
        self.prompts = reach.new_empty(0)
        self.work = 0
        # The first position at which a row differs from its prompt so far. A gradient wants rows that do not, too.
        unchanged = torch.full_like(reach[-1], recording.tokens.ids.shape[1])
        self.changed = reach[-1].clone() if torch.is_grad_enabled() else unchanged

    def _noting(self, site: Site, visit: Visit) -> Visit:
        def note(value: Tensor) -> Tensor:
            edited = visit(value)
            if self.recording.packing is not None and not torch.is_grad_enabled():
                self.changed[: len(value)].clamp_(max=first_difference(site, edited, value))
            return edited

        return note

    def bear(self, i: int, born: Tensor) -> None:
        """Add the rows that are born at a block, and do what is done to the stream there."""
        if len(born):
            self.prompts = torch.cat([self.prompts, born])
            self.resid = torch.cat([self.resid, self.recording.stream[i][born]])
        for site in _entering(i, len(self.blocks)):
            if site in self.visits and len(self.prompts):
                self.resid = self.visits[site](self.resid)

    def step(self, i: int) -> None:
        """Run a block on the rows, or on those of their tokens that can differ from their prompt's."""
        if i == len(self.blocks) or not len(self.prompts):
            return
        block, call, packing = self.blocks[i], self.recording.calls[i], self.recording.packing
        n = len(self.recording.tokens)
        if packing is None:
            self.work += self.resid.shape[0] * self.resid.shape[1]
            self.resid = call.again(block, self.resid, lambda name, value: of_rows(name, value, self.prompts, n))
            return
        packing.turn_to(self.prompts, self._live(i))
        self.work += len(packing.row)
        above = self.recording.stream[i + 1][self.prompts]
        if len(packing.row):
            out = call.again(block, packing.take(self.resid), lambda name, value: of_tokens(name, value, packing))
            above = packing.grid(out, above)
        self.resid = above

    def _live(self, i: int) -> Tensor:
        """The tokens that block i may see changed: from the first changed position on, padding left out."""
        first = torch.minimum(self.changed, self.reach[i])[: len(self.prompts)]
        mask = self.recording.tokens.mask
        return (torch.arange(mask.shape[1], device=mask.device) >= first[:, None]) & mask[self.prompts].bool()


def way_of(model: Model) -> str:
    """How rows can be run on this model: "packed", "rows" or, from their tokens on, "full".

    Tried before it is believed: the blocks, called one by one on rows in another order and with edits at two depths,
    must give the model's own logits; on as many prompts as they have positions, and on fewer, which are padded.
    """
    return _TRIED.of(model)[0]


def why_full(model: Model) -> str:
    """Why rows must be run from their tokens on; empty if they need not."""
    return _TRIED.of(model)[1]


def _try(model: Model) -> tuple[str, str]:
    if not model.blocks:
        return "full", f"blocks of {model.name} are not called one by one on {model.backend}"
    if (model.shape.n_context or 4) < 2:
        return "full", "the model's context is too short to try another way"
    # As many prompts as there are heads: what has one value for each head must not be taken for that of a prompt.
    batches = {"packed": (4, 3), "rows": (4, 3, model.shape.n_heads or 4)}
    why = ""
    for way in ["packed", "rows"][not model.packs :]:
        why = next((why for n in batches[way] if (why := _why_not(model, way, n))), "")
        if not why:
            return way, ""
    return "full", why


_TRIED = Trials(_try)


def run_recorded(
    model: Model, tokens: Tokens, sites: Sequence[Site], read: Collection[Site], last_only: bool
) -> tuple[Trace, Recording | None]:
    """A run whose sites are to be swept, and its recording where the model allows one.

    Args:
        sites: What the sweeps will edit.
        read, last_only: As in `Model.run`.
    """
    if (way := way_of(model)) == "full":
        return model.run(tokens, read=read, last_only=last_only), None
    recording = record(model, tokens, sites, way == "packed", read, last_only)
    return recording.trace, recording


@torch.no_grad()
def _why_not(model: Model, way: str, n: int) -> str:
    """Why rows cannot be run in a way; empty if they can."""
    width = min(4, model.shape.n_context or 4)
    tokens = short_prompts(model, n, width, 0 if n == 3 else width - 2)  # without padding, a mask may be left out
    prompts = torch.tensor([1, *reversed(range(n))], device=model.device)
    variants = tokens.rows(prompts)
    top = model.shape.n_layers - 1
    edits = [Edit(Site("resid_pre", i), lambda x: 2 * x + 1, {"pos": pos}) for i, pos in ((0, -2), (top, -1))]
    reach = torch.tensor([*[width] * (top + 1), width - 2], device=model.device)[:, None].expand(-1, len(prompts))
    births = [prompts, *[prompts[:0]] * len(model.blocks)]
    with believed(model):
        wanted = model.run(variants, edits=edits, last_only=True).logits[:, -1]
        try:
            recording = record(model, tokens, (), packed=way == "packed")
            resid, _ = replay(model, recording, births, Visits(variants, (), edits), reach)
            logits = model.unembed(resid[:, -1])
        except torch.OutOfMemoryError:  # says nothing of the blocks
            raise
        except Exception as error:  # whatever a block raises when it is called so, it cannot be called so
            return f"blocks called one by one raise {type(error).__name__}: {str(error).partition(chr(10))[0][:80]}"
    worst = apart(logits, wanted)
    fine = worst <= tolerance(logits.dtype)
    return "" if fine else f"blocks called one by one give logits that differ by {worst:.0e} of the largest"


def _entering(i: int, n_layers: int) -> list[Site]:
    """The sites that are the residual stream before block i, or after the last."""
    below = [Site("resid_post", i - 1)] if i else []
    return [*below, Site("resid_pre", i) if i < n_layers else Site("resid_final")]


def first_difference(site: Site, a: Tensor, b: Tensor) -> Tensor:
    """The first position at which two tensors of a site differ, (batch,); n_pos where they are equal."""
    others = [i for i, axis in enumerate(site.axes) if axis not in ("batch", site.along)]
    differs = (a != b).any(others)
    return torch.where(differs.any(1), differs.int().argmax(1), differs.shape[1])
