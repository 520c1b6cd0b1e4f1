"""What every backend offers: run a model, reading and editing named sites."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.arguments import check_differentiable, edits_of, sites_of
from interp.columns import addressed
from interp.edits import Edit
from interp.locks import lock_of
from interp.packing import Packing
from interp.padding import check_padding
from interp.quick import quick
from interp.shape import Cache, Shape
from interp.sites import UNLAYERED, Site
from interp.tokenizing import Place, Prompts, Tokenizer
from interp.traces import Tokens, Trace
from interp.visits import Visit, Visits


class Model(ABC):
    """A language model whose sites can be read and edited.

    A backend sets the attributes and implements `forward` and `unembed`, and `new_cache` if its `forward` takes one.

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
    def forward(self, tokens: Tokens, visits: Visits, last_only: bool, cache: Cache | None = None) -> Tensor:
        """Logits of a run in which each visited site's tensor is replaced by what its visit returns.

        Visits come in the order of the forward pass. With `last_only`, logits of the last position are enough. With a
        cache, only the columns that it does not hold are run, visited and given logits, and their keys join it.
        """

    @abstractmethod
    def unembed(self, resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
        """Final norm and unembedding, as the model itself does it."""

    def new_cache(self) -> Cache | None:
        """An empty cache for `forward`; None if this backend has none. Whether it holds is for `generation` to try."""
        return None

    def unembed_some(self, resid: Float[Tensor, "row d_model"], ids: Int[Tensor, "row n"]) -> Float[Tensor, "row n"]:
        """Some of the logits, other ones in each row; a backend overrides it where the others need not be computed."""
        return self.unembed(resid).gather(-1, ids)

    @property
    def logit_cap(self) -> float | None:
        """The bound of soft-capped logits, which are cap * tanh(logits / cap); None where there is no cap."""
        return None

    def hugging_face(self) -> nn.Module | None:
        """A plain Hugging Face module with these very weights; None if there is none, or if edits are in force."""
        return None

    @property
    def plain(self) -> "Model":
        """The model without edits of its own; itself, unless it is a view of another with edits in force."""
        return self

    @property
    def in_force(self) -> Sequence[Edit]:
        """The edits that come before those of each run; none, unless it is such a view."""
        return ()

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks, if they can be called one by one under `hooked`; none if this backend cannot do so."""
        return ()

    @property
    def packs(self) -> bool:
        """Whether blocks can be called on packed tokens."""
        return False

    def hooked(
        self, visits: Mapping[Site, Visit], n_pos: int, packing: Packing | None = None
    ) -> AbstractContextManager[None]:
        """For a while, visit sites whenever a block is called on n_pos positions; for a backend that has `blocks`."""
        raise TypeError(f"the blocks of {self.backend} cannot be called one by one")

    @final
    @property
    def alone(self) -> AbstractContextManager[Any]:
        """Keeps other threads from running the module: hooks are in it, whoever placed them."""
        return lock_of(self.module)

    @final
    def run(
        self,
        prompts: Prompts,
        read: Site | Iterable[Site] = (),
        edits: Edit | Iterable[Edit] = (),
        grad: bool = False,
        last_only: bool = False,
    ) -> Trace:
        """Run once, applying the edits in the order given and recording the sites to read.

        Args:
            prompts: Texts; token ids, with a mask if they are padded, as a pair or as a tokenizer gives them; `Tokens`.
            read: Site, or sites, whose tensors to keep, as the rest of the model saw them.
            edits: Change, or changes, to make on the way.
            grad: Keep the graph, so that `torch.autograd.grad` reaches every site that was read.
            last_only: Compute logits at the last position alone.

        Raises:
            ValueError: A site that the model does not have or cannot edit; an edit that selects or changes nothing.
            RuntimeError: A model in train mode; a site that was never reached.
        """
        tokens = self.tokens(prompts)
        read, edits = sites_of(read), edits_of(edits)
        self.check(read, edits)
        if grad:
            check_differentiable()
        visits = Visits(tokens, read, edits, grad)
        graph = torch.enable_grad() if grad else nullcontext() if torch.is_inference_mode_enabled() else torch.no_grad()
        with self.alone, graph, quick(self.module):
            logits = self.forward(tokens, visits, last_only)
        visits.finish()
        return Trace(tokens, logits, {site: visits.seen[site] for site in read})

    @final
    @torch.no_grad()
    def advance(self, tokens: Tokens, cache: Cache, edits: Sequence[Edit] = ()) -> Float[Tensor, "batch vocab"]:
        """Logits after the last token, from a run of those columns alone that the cache does not hold.

        Args:
            tokens: All tokens so far, as `tokens` made them and `append` went on.
            cache: Of this model, and of the same prompts; it is added to.
            edits: In force in every call since the cache was empty. Their positions are absolute (`interp.columns`).
                Edits inside attention (`k`, `v`, `scores`, `pattern`) act on columns that a cache holds: use `run`.
        """
        held, n = cache.held, tokens.ids.shape[1]
        roles, generated = ({}, n - held) if held else (tokens.roles, tokens.generated)
        new = Tokens(tokens.ids[:, held:], tokens.mask[:, held:], roles, generated)
        visits = Visits(new, (), addressed(edits, tokens, held))
        with self.alone, quick(self.module):
            logits = self.forward(tokens, visits, True, cache)
        visits.finish()
        cache.held = n
        return logits[:, -1]

    @final
    def tokens(self, prompts: Prompts, roles: Mapping[str, Place] | None = None) -> Tokens:
        """Prompts as token ids on the model's device: left-padded, with a mask.

        Args:
            roles: Names of positions, each with one place for all prompts or one for each: a number, counted in the
                prompt's own tokens, also from the end, or a word that is one token and occurs once.
        """
        tokens = self._tokenizer.with_roles(self._tokenizer(prompts), roles or {}).to(self.device)
        check_padding(self, tokens)
        return tokens

    @final
    def token_id(self, text: str | int) -> int:
        """The id of a string that is exactly one token; of a model without a tokenizer, an id is its own name."""
        return self._tokenizer.one(text)

    @property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(self.tokenizer, self.bos, self.shape.d_vocab, self.shape.n_context)

    @final
    def words(self, ids: Iterable[int] | Tensor) -> list[str]:
        """The text of each token; the number itself, as text, if there is no tokenizer."""
        if isinstance(ids, str) or (isinstance(ids, Tensor) and ids.ndim != 1):
            raise TypeError("words are those of one prompt's token ids, such as model.tokens(text).ids[0]")
        return [str(int(i)) if self.tokenizer is None else self.tokenizer.decode([int(i)]) for i in ids]

    @final
    def sites(self, *kinds: str, layers: int | Iterable[int] | None = None) -> list[Site]:
        """The sites of some kinds in every layer, or in that or those given; of every kind if none is named."""
        given = range(self.shape.n_layers) if layers is None else layers
        every = list(given) if isinstance(given, Iterable) else [given]
        chosen = [Site(k, i) for k in kinds or self.editable for i in ([None] if k in UNLAYERED else every)]
        self._check_served(chosen)
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

    def weights(self) -> Mapping[str, Tensor]:
        """All weights, by the names under which they were published, so far as the backend can tell."""
        return self.module.state_dict()

    @final
    def fingerprint(self) -> str:
        """A hash of all weights, the same on every device and wherever the published names of the weights are known."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.weights().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        shape = self.shape
        return f"{self.name} ({shape.n_layers} layers, {shape.n_heads} heads, d_model {shape.d_model}; {self.backend})"

    @final
    def check(self, read: Sequence[Site] = (), edits: Sequence[Edit] = ()) -> None:
        """Raise what `run` would raise for sites and edits that this model cannot serve, and in train mode."""
        self._check_served(read, edits)
        if training := [name for name, module in self.module.named_modules() if module.training]:
            raise RuntimeError(f"{self.name} is in train mode ({training[0] or 'the model'}); call .eval() on it first")

    def _check_served(self, read: Sequence[Site], edits: Sequence[Edit] = ()) -> None:
        for site in [*sites_of(read), *(edit.site for edit in edits_of(edits))]:
            if site.kind not in self.editable:
                why = self.missing.get(site.kind, "it was not found in this model")
                raise ValueError(f"{self.name} has no {site.kind!r}: {why}; it has {', '.join(self.editable)}")
            if site.layer is not None and site.layer >= self.shape.n_layers:
                raise ValueError(f"{site} is out of range: {self.name} has layers 0 to {self.shape.n_layers - 1}")
        for edit in edits:
            if not self.editable[edit.site.kind]:
                raise ValueError(f"{edit.site} can be read but not edited in {self.name} ({self.backend})")
