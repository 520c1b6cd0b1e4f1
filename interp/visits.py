"""The edits of one run as functions that a backend calls at each site, and the proof that they happened."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.edits import Edit
from interp.sites import Site
from interp.traces import Tokens, visible

Visit = Callable[[Tensor], Tensor]
_PADDING = (
    "selects nothing but padding in some prompt; numbers are columns of the padded batch: count from the end, or use "
    "a role"
)
_NOTHING = "leaves a query no key that it sees, so that its pattern means nothing; leave it one, or zero its z"


class Visits(Mapping[Site, Visit]):
    """What happens at each site of one run, in the order of the forward pass.

    Attributes:
        tokens: The prompts of the run, by which edits find their roles.
        seen: What each visited site held after its edits, once it was reached.
    """

    def __init__(self, tokens: Tokens, read: Iterable[Site], edits: Sequence[Edit], grad: bool = False) -> None:
        self.tokens, self.grad = tokens, grad
        self.seen: dict[Site, Tensor] = {}
        self._edits: dict[Site, list[Edit]] = {}
        for edit in edits:
            self._edits.setdefault(edit.site, []).append(edit)
        # Without a leaf at the embedding no gradient reaches a site of a model whose parameters want none.
        sites = {*read, *self._edits} | ({Site("embed")} if grad else set())
        self._sites = dict.fromkeys(sorted(sites, key=lambda site: site.order))
        self._doubts: list[tuple[Edit, str, Tensor]] = []  # looked at once, at the end: a look waits for the device

    def after(self, edits: Sequence[Edit]) -> "Visits":
        """These visits with other edits before their own; what they see is seen here, their finish is their own."""
        own = [edit for site in self._edits for edit in self._edits[site]]
        both = Visits(self.tokens, self._sites, [*edits, *own], self.grad)
        both.seen = self.seen
        return both

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    def __getitem__(self, site: Site) -> Visit:
        if site not in self._sites:
            raise KeyError(site)

        def visit(value: Tensor) -> Tensor:
            if self.grad and site.kind == "embed" and not value.requires_grad:
                value = value.detach().requires_grad_()
            value = self._apply(self._edits.get(site, []), value)
            self.seen[site] = value
            return value

        return visit

    def parts(self, site: Site) -> list[tuple[Callable[[Tensor], Tensor], tuple]]:
        """The edits of a site as changes and indices, for a backend that applies them elsewhere."""
        return [(edit.change, edit.index(self.tokens)) for edit in self._edits.get(site, [])]

    def finish(self) -> None:
        """Raise if a site was never reached, or an edit changed nothing that it should have, or made NaN."""
        if silent := [site for site in self if site not in self.seen]:
            raise RuntimeError(
                f"{', '.join(map(str, silent))} was never reached in this run; nothing was read or edited"
            )
        device = self.tokens.ids.device
        found = torch.stack([doubt.to(device) for *_, doubt in self._doubts]).tolist() if self._doubts else []
        for (edit, what, _), wrong in zip(self._doubts, found):
            if wrong:
                raise ValueError(f"the edit of {edit.site} at {dict(edit.at)} {what}")

    def _apply(self, edits: Sequence[Edit], value: Tensor) -> Tensor:
        """One copy of the tensor for all edits of a site: a sweep has hundreds, each on a few rows."""
        given = value
        hidden = self._padding(value) if any(edit.site.kind == "pattern" for edit in edits) else None
        if all(not edit.at for edit in edits):
            for edit in edits:
                before, value = value, edit.replacement(value, hidden)
                self._doubt(edit, before, value)
            self._doubt_hidden(edits, given, value)
            return value.contiguous() if edits else value  # some modules take nothing else
        value = value.clone()
        for edit in edits:
            index = edit.index(self.tokens)
            part = edit.part(value, index)
            if torch.is_grad_enabled():
                part = part.clone()  # what its change keeps for the gradient must not be written over
            new = edit.replacement(part, None if hidden is None else hidden[index])
            self._doubt(edit, part, new)
            if self._padded and {"pos", "query", "key"} & edit.at.keys():
                self._doubts.append((edit, _PADDING, self._misses(edit, index)))
            value[index] = new
        self._doubt_hidden(edits, given, value)
        return value

    def _misses(self, edit: Edit, index: tuple) -> Bool[Tensor, ""]:
        """Whether an edit selects nothing but padding, in some prompt or, if it says of which prompts it is, in all."""
        places = [i for axis, i in zip(edit.site.axes, index) if axis in ("pos", "query", "key") and axis in edit.at]
        masks = [self.tokens.mask[index[0], i].bool() for i in places]
        if "batch" in edit.at:
            return torch.stack([~mask.any() for mask in masks]).any()
        return torch.stack([~mask.reshape(len(mask), -1).any(1) for mask in masks]).any()

    def _padding(self, pattern: Tensor) -> Bool[Tensor, "row head query key"] | None:
        """Where a pattern is that of padding, which no query may see; None if there is none."""
        mask = self.tokens.mask[: len(pattern)]
        padded = self._padded and pattern.shape[-1] == mask.shape[1]
        return (mask == 0)[:, None, None].expand_as(pattern) if padded else None

    @cached_property
    def _padded(self) -> bool:
        return bool((self.tokens.mask == 0).any())

    def _doubt_hidden(self, edits: Sequence[Edit], before: Tensor, after: Tensor) -> None:
        if edits and edits[-1].site.kind == "scores":
            before, after = (visible(scores.detach()).any(-1) for scores in (before, after))
            self._doubts.append((edits[-1], _NOTHING, (before & ~after).any()))

    def _doubt(self, edit: Edit, before: Tensor, after: Tensor) -> None:
        before, after = before.detach(), after.detach()
        if edit.moves:
            self._doubts.append((edit, "changed nothing; is it too small for this dtype?", (before == after).all()))
        self._doubts.append((edit, "made NaN out of numbers", after.isnan().any() & ~before.isnan().any()))
