"""What every backend offers: run a model, reading and editing named sites."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.edits import Edit
from interp.sites import UNLAYERED, Site
from interp.tokenizing import Prompts, Tokenizer
from interp.traces import Tokens, Trace

Visit = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Shape:
    """The sizes of a model; `n_kv_heads` is smaller than `n_heads` under grouped queries."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_vocab: int
    n_context: int | None


class Model(ABC):
    """A language model whose sites can be read and edited.

    A backend sets the attributes and implements `forward` and `unembed`; nothing else is overridden.

    Attributes:
        name: Where the model came from.
        backend: Which library runs it.
        module: The PyTorch module that is run.
        shape: Its sizes.
        tokenizer: Turns text into ids, or None: then the model works on ids.
        bos: Whether texts are given a beginning-of-sequence token.
        editable: The kinds of site that this model has, and whether each can be edited.
        missing: Why it lacks the others.
    """

    name: str
    backend: str
    module: nn.Module
    shape: Shape
    tokenizer: Any
    bos: bool
    editable: Mapping[str, bool]
    missing: Mapping[str, str]

    @abstractmethod
    def forward(self, tokens: Tokens, visits: Mapping[Site, Visit], last_only: bool) -> Tensor:
        """Logits of a run in which each visited site's tensor is replaced by what its visit returns.

        Visits come in the order of the forward pass. With `last_only`, logits of the last position are enough.
        """

    @abstractmethod
    def unembed(self, resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
        """Final norm and unembedding, as the model itself does it."""

    @final
    def run(
        self,
        prompts: Prompts,
        read: Iterable[Site] = (),
        edits: Sequence[Edit] = (),
        grad: bool = False,
        last_only: bool = False,
    ) -> Trace:
        """Run once, applying the edits in the order given and recording the sites to read.

        Args:
            prompts: Texts, token ids (with a mask, as a pair, if they are padded), or `Tokens`.
            read: Sites whose tensors to keep, as the rest of the model saw them.
            edits: Changes to make on the way.
            grad: Keep the graph, so that `torch.autograd.grad` reaches every site that was read.
            last_only: Compute logits at the last position alone.

        Raises:
            ValueError: A site that the model does not have or cannot edit; an edit that selects or changes nothing.
            RuntimeError: A model in train mode; a site that was never reached.
        """
        tokens = self.tokens(prompts)
        read = list(read)
        self._check(read, edits)
        run = _Run(tokens, edits, grad)
        sites = {*read, *(edit.site for edit in edits)} | ({Site("embed")} if grad else set())
        visits = {site: SiteVisit(run, site) for site in sorted(sites, key=lambda site: site.order)}
        with torch.enable_grad() if grad else nullcontext() if torch.is_inference_mode_enabled() else torch.no_grad():
            logits = self.forward(tokens, visits, last_only)
        run.finish(sites)
        return Trace(tokens, logits, {site: run.seen[site] for site in read})

    @final
    def tokens(self, prompts: Prompts) -> Tokens:
        """Prompts as token ids on the model's device: left-padded, with a mask."""
        return Tokenizer(self.tokenizer, self.bos, self.shape.d_vocab, self.shape.n_context)(prompts).to(self.device)

    @final
    def token_id(self, text: str) -> int:
        """The id of a string that is exactly one token."""
        return Tokenizer(self.tokenizer, self.bos, self.shape.d_vocab, self.shape.n_context).one(text)

    @final
    def words(self, ids: Iterable[int]) -> list[str]:
        """The text of each token; the number itself, as text, if there is no tokenizer."""
        return [str(int(i)) if self.tokenizer is None else self.tokenizer.decode([int(i)]) for i in ids]

    @final
    def sites(self, *kinds: str, layers: Collection[int] | None = None) -> list[Site]:
        """The sites of some kinds in every layer, or in those given; of every kind if none is named."""
        chosen = []
        for kind in kinds or self.editable:
            if kind in UNLAYERED:
                chosen.append(Site(kind))
            else:
                chosen += [Site(kind, layer) for layer in (range(self.shape.n_layers) if layers is None else layers)]
        self._check(chosen, ())
        return chosen

    @final
    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return next((p.device for p in self.module.parameters() if p.device.type != "meta"), torch.device("cpu"))

    @final
    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the model's parameters."""
        return next(p.dtype for p in self.module.parameters())

    @final
    def fingerprint(self) -> str:
        """A hash of all weights: sixteen hexadecimal digits, the same on every device and for every backend's copy."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(name.replace("_original_component.", "").encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        shape = self.shape
        return f"{self.name} ({shape.n_layers} layers, {shape.n_heads} heads, d_model {shape.d_model}; {self.backend})"

    def _check(self, read: Sequence[Site], edits: Sequence[Edit]) -> None:
        for site in [*read, *(edit.site for edit in edits)]:
            if site.kind not in self.editable:
                why = self.missing.get(site.kind, "it was not found in this model")
                raise ValueError(f"{self.name} has no {site.kind!r}: {why}; it has {', '.join(self.editable)}")
            if site.layer is not None and site.layer >= self.shape.n_layers:
                last = self.shape.n_layers - 1
                raise ValueError(f"{site} is out of range: {self.name} has layers 0 to {last}")
        for edit in edits:
            if not self.editable[edit.site.kind]:
                raise ValueError(f"{edit.site} can be read but not edited in {self.name} ({self.backend})")
        if training := [name for name, module in self.module.named_modules() if module.training]:
            raise RuntimeError(f"{self.name} is in train mode ({training[0] or 'the model'}); call .eval() on it first")


class _Run:
    """One run in progress: applies the edits, keeps what was read, and proves that everything happened."""

    def __init__(self, tokens: Tokens, edits: Sequence[Edit], grad: bool) -> None:
        self.tokens, self.edits, self.grad = tokens, edits, grad
        self.seen: dict[Site, Tensor] = {}
        self.doubts: list[tuple[Edit, str, Tensor]] = []  # looked at once, at the end: a look waits for the device

    def visit(self, site: Site, value: Tensor) -> Tensor:
        if self.grad and site.kind == "embed" and not value.requires_grad:
            value = value.detach().requires_grad_()
        for edit in self.edits:
            if edit.site == site:
                value = self._apply(edit, value)
        self.seen[site] = value
        return value

    def _apply(self, edit: Edit, value: Tensor) -> Tensor:
        edited = edit.apply(value, self.tokens)
        before, after = value.detach(), edited.detach()
        if edit.moves:
            self.doubts.append((edit, "changed nothing; is it too small for this dtype?", (before == after).all()))
        self.doubts.append((edit, "made NaN out of numbers", after.isnan().any() & ~before.isnan().any()))
        return edited

    def finish(self, sites: Iterable[Site]) -> None:
        if silent := [site for site in sites if site not in self.seen]:
            raise RuntimeError(
                f"{', '.join(map(str, silent))} was never reached in this run; nothing was read or edited"
            )
        for edit, what, doubt in self.doubts:
            if bool(doubt):
                raise ValueError(f"the edit of {edit.site} at {dict(edit.at)} {what}")


@final
class SiteVisit:
    """What a run does at one site: called with the tensor there, it returns what the rest of the model is to see."""

    def __init__(self, run: _Run, site: Site) -> None:
        self._run, self._site = run, site

    def __call__(self, value: Tensor) -> Tensor:
        return self._run.visit(self._site, value)

    @property
    def parts(self) -> list[tuple[Visit, tuple]]:
        """The edits as changes and indices, for a backend that applies them elsewhere."""
        return [(edit.change, edit.index(self._run.tokens)) for edit in self._run.edits if edit.site == self._site]

    def note(self, value: Tensor) -> None:
        """Record what the rest of the model saw, where it was not this visit that made it."""
        self._run.seen[self._site] = value
