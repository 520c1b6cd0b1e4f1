"""Run models through TransformerLens's bridge, with their weights as published."""

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from interp.backends.attention import must_watch, watched
from interp.backends.bridges import check_same, let_go, placeholder, published, unbridged
from interp.backends.calling import empty_cache
from interp.backends.families import FAMILIES
from interp.backends.stream import mid_through
from interp.backends.told import n_alike
from interp.backends.unembedding import finished, unembed
from interp.model import Model
from interp.packing import Packing
from interp.quick import quick
from interp.shape import Cache, Shape
from interp.sites import AXES, Site
from interp.traces import Tokens
from interp.visits import Visit, Visits

_HOOKS = {
    "embed": "embed.hook_out",
    "resid_pre": "blocks.{layer}.hook_in",
    "q": "blocks.{layer}.attn.hook_rot_q",
    "k": "blocks.{layer}.attn.hook_rot_k",
    "v": "blocks.{layer}.attn.hook_v",
    "scores": "blocks.{layer}.attn.hook_attn_scores",
    "pattern": "blocks.{layer}.attn.hook_pattern",
    "z": "blocks.{layer}.attn.hook_z",
    "attn_out": "blocks.{layer}.hook_attn_out",
    "mlp_pre": "blocks.{layer}.mlp.hook_pre",
    "mlp_post": "blocks.{layer}.mlp.hook_post",
    "mlp_out": "blocks.{layer}.hook_mlp_out",
    "resid_post": "blocks.{layer}.hook_out",
    "resid_final": "ln_final.hook_in",
}
_INSTEAD = {"q": "blocks.{layer}.attn.hook_q", "k": "blocks.{layer}.attn.hook_k"}  # where there is no rotary embedding


def wrap(model: Any, tokenizer: Any, name: str, bos: bool) -> Model:
    """A bridge, or a Hugging Face model given to a bridge, as a `Model`.

    A bridge takes a Hugging Face model apart, so it is given a copy.
    """
    if isinstance(model, TransformerBridge):
        return TransformerLensModel(model, tokenizer, name, bos)
    given, model = model, copy.deepcopy(model)
    model.config.architectures = [type(model).__name__]  # the bridge goes by it; a model never saved has none
    bridge = TransformerBridge.boot_transformers(
        name, hf_model=model, tokenizer=placeholder(), device=str(model.device), dtype=model.dtype
    ).eval()
    try:
        found = TransformerLensModel(bridge, tokenizer, name, bos)
    except RuntimeError as error:  # of the bridge's first run
        why = str(error).partition("\n")[0]
        raise ValueError(
            f"TransformerLens's bridge cannot run this {type(given).__name__} ({why}); take backend='huggingface' or "
            f"'nnsight'"
        ) from error
    check_same(found, given)
    return found


class TransformerLensModel(Model):
    """A TransformerLens bridge."""

    backend = "transformer_lens"

    def __init__(self, bridge: Any, tokenizer: Any, name: str, bos: bool) -> None:
        self.module, self.tokenizer, self.name, self.bos = bridge, tokenizer, name, bos
        config = bridge.cfg
        self.shape = Shape(
            config.n_layers, config.n_heads, getattr(config, "n_key_value_heads", None) or config.n_heads,
            config.d_model, config.d_head, config.d_vocab, config.n_ctx,
            n_alike(bridge.original_model) if hasattr(bridge.original_model, "config") else None,
        )  # fmt: skip
        self._hooks = self._find_hooks()
        kinds = set(self._hooks)
        if self._is_sequential():
            kinds.add("resid_mid")
        self.editable = {kind: self._keeps_edits(kind) for kind in AXES if kind in kinds}
        self.missing = {kind: "no hook of this bridge fires there" for kind in AXES if kind not in kinds}
        if "resid_mid" in self.missing and {"attn_out", "mlp_out"} <= kinds:
            self.missing["resid_mid"] = "attention and MLP do not write one after the other to what lies between them"
        self._own_softmax = self.dtype == torch.float64 and self.editable.get("scores") and self.editable.get("pattern")

    def forward(self, tokens: Tokens, visits: Visits, last_only: bool, cache: Cache | None = None) -> Tensor:
        held, more = (0, {}) if cache is None else (cache.held, {"past_key_values": cache.store})
        with self._watched():
            logits = self._logits(tokens.ids[:, held:], tokens.mask, self._hooks_of(visits), **more)
        if logits.requires_grad:
            let_go(self.module)
        return logits

    def new_cache(self) -> Cache | None:
        module: Any = getattr(self.module, "original_model", None)
        return None if getattr(module, "config", None) is None else empty_cache(module)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.module.blocks)  # type: ignore[arg-type]

    @contextmanager
    def hooked(self, visits: Mapping[Site, Visit], n_pos: int, packing: Packing | None = None) -> Iterator[None]:
        bridge: Any = self.module
        with self._watched(), bridge.hooks(fwd_hooks=self._hooks_of(visits)):
            yield

    def unembed(self, resid: Tensor) -> Tensor:
        bridge: Any = self.module
        norm: Any = getattr(bridge, "ln_final", None)
        config = getattr(bridge.original_model, "config", None)
        family = FAMILIES.get(getattr(config, "model_type", ""))
        if norm is None and family is not None:  # the bridge knows it by another name, if there is one
            return unembed(bridge.original_model, family, resid)
        with self.alone, quick(self.module):
            logits = bridge.unembed(resid if norm is None else norm(resid))
        if config is not None:
            return finished(logits, config)
        cap = self.logit_cap
        return logits if cap is None else cap * (logits / cap).tanh()

    @property
    def logit_cap(self) -> float | None:
        cap = getattr(self.module.cfg, "output_logits_soft_cap", None) or -1.0
        return cap if cap > 0 else None

    def weights(self) -> Mapping[str, Tensor]:
        """As published, where they can be found so inside the bridge, and nothing was rewritten since."""
        return published(self.module) or self.module.state_dict()

    def hugging_face(self) -> nn.Module | None:
        return unbridged(self.module)

    def _logits(self, ids: Tensor, mask: Tensor, hooks: list, **more: Any) -> Tensor:
        bridge: Any = self.module
        return bridge.run_with_hooks(ids, attention_mask=mask, prepend_bos=False, fwd_hooks=hooks, **more)

    def _hooks_of(self, visits: Mapping[Site, Visit]) -> list[tuple[str, Callable]]:
        hooks: list[tuple[str, Callable]] = []
        for site, visit in visits.items():
            if site.kind == "resid_mid":
                hooks += self._mid_hooks(site, visit)
            else:
                hooks.append((self._name(site), lambda value, hook, visit=visit: visit(value)))
        return self._softmax_hooks(hooks) if self._own_softmax else hooks

    def _softmax_hooks(self, visits: list[tuple[str, Callable]]) -> list[tuple[str, Callable]]:
        """The visits, with the softmax between scores and pattern taken in float64.

        A bridge that spells attention out takes it in float32, where a float64 mask overflows to NaN on padding. So
        each pattern is made again from the scores that the visits have left, before they see it.
        """
        held: list[Tensor] = []

        def keep(scores: Tensor, hook: Any) -> None:
            held.append(scores)

        def softmax(pattern: Tensor, hook: Any) -> Tensor:
            return held.pop().clamp(min=torch.finfo(pattern.dtype).min).softmax(-1)

        layers = range(self.shape.n_layers)
        before = [(self._name(Site("pattern", layer)), softmax) for layer in layers]
        return before + visits + [(self._name(Site("scores", layer)), keep) for layer in layers]

    def _watched(self) -> AbstractContextManager[None]:
        """Where the bridge leaves attention to Hugging Face's module: ours, which keeps float64."""
        module: Any = self.module.original_model
        hugging_face = hasattr(getattr(module, "config", None), "_attn_implementation")
        return watched(module, {}) if hugging_face and must_watch(module, {}) else nullcontext()

    def _name(self, site: Site) -> str:
        return self._hooks[site.kind].format(layer=site.layer)

    def _mid_hooks(self, site: Site, visit: Visit) -> list[tuple[str, Callable]]:
        """The bridge's own hook_resid_mid is the second norm's input: editing it leaves the stream as it was."""
        entered: list[Tensor] = []

        def enter(resid: Tensor, hook: Any) -> None:
            entered.append(resid)

        pre, attn = (self._name(Site(kind, site.layer)) for kind in ("resid_pre", "attn_out"))
        return [(pre, enter), (attn, lambda attn_out, hook: mid_through(visit, entered.pop(), attn_out))]

    def _find_hooks(self) -> dict[str, str]:
        """The hook of each kind that fires in a short run; many that a bridge lists never do."""
        fired: Counter[str] = Counter()
        names = {name.format(layer=0) for name in (*_HOOKS.values(), *_INSTEAD.values())}
        listed = [name for name in names if name in self.module.hook_dict]  # type: ignore[operator]

        def note(value: Tensor, hook: Any, name: str) -> None:
            fired[name] += 1

        self._probe([(name, lambda value, hook, name=name: note(value, hook, name)) for name in listed])
        rotary = getattr(self.module.cfg, "positional_embedding_type", None) == "rotary"
        chosen = _HOOKS if rotary else _HOOKS | _INSTEAD
        found = {kind: name for kind, name in chosen.items() if name.format(layer=0) in fired}
        if fired[_HOOKS["resid_final"]] > 1:  # what that norm is given elsewhere is not the last stream
            found["resid_final"] = f"blocks.{self.shape.n_layers - 1}.hook_out"
        if not self._is_softmax(found):
            found.pop("scores", None)
        return found

    def _is_softmax(self, found: Mapping[str, str]) -> bool:
        """Whether the pattern is the softmax of what the bridge calls scores; in some families it is not."""
        if not {"scores", "pattern"} <= set(found):
            return False
        seen: dict[str, Tensor] = {}
        names = {kind: found[kind].format(layer=0) for kind in ("scores", "pattern")}
        self._probe([(name, lambda v, hook, k=kind: seen.__setitem__(k, v)) for kind, name in names.items()])
        return bool((seen["scores"].softmax(-1) - seen["pattern"]).abs().max() < 1e-2)

    def _probe(self, hooks: list) -> Tensor:
        ids = torch.arange(min(3, self.shape.n_context or 3), device=self.device)[None] % self.shape.d_vocab
        with torch.no_grad():
            return self._logits(ids, torch.ones_like(ids), hooks)

    def _keeps_edits(self, kind: str) -> bool:
        """Whether the rest of the model sees what a hook returns; some bridges discard edits inside attention."""
        if kind not in ("scores", "pattern"):
            return True
        hooks = [(self._name(Site(kind, 0)), lambda value, hook: value * 0)]
        with warnings.catch_warnings(action="ignore"):  # the bridge warns that it discards the edit: the answer sought
            return bool((self._probe(hooks) - self._probe([])).abs().max() > 0)

    def _is_sequential(self) -> bool:
        """Whether the MLP reads the stream after attention has written to it."""
        if "attn_out" not in self._hooks or "mlp_out" not in self._hooks:
            return False
        if getattr(self.module.cfg, "parallel_attn_mlp", False):
            return False
        seen: dict[str, Tensor] = {}
        kinds = ("resid_pre", "attn_out", "mlp_out", "resid_post")
        self._probe([(self._name(Site(k, 0)), lambda v, hook, k=k: seen.__setitem__(k, v)) for k in kinds])
        pre, attn, mlp, post = (seen[kind] for kind in kinds)
        return bool((pre + attn + mlp - post).abs().max() <= 1e-3 * post.abs().max())
