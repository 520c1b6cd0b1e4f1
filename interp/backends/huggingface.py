"""Run Hugging Face models as they are, with plain PyTorch hooks and transformers' attention interface."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from interp.backends.attention import Watch, must_watch, watched
from interp.backends.calling import accepted, arguments_of, cache_name, empty_cache, first_position
from interp.backends.families import ATTENTION_KINDS, Layout, Tap, merge, split
from interp.backends.sizes import check_blocks, shape_of
from interp.backends.stream import mid_through
from interp.backends.structure import layout_of
from interp.backends.told import lends_keys, scales_by_place
from interp.backends.unembedding import unembed
from interp.model import Model
from interp.packing import Packing
from interp.recording import first_of, with_first
from interp.shape import Cache
from interp.sites import Site
from interp.traces import Tokens
from interp.visits import Visit, Visits


class HuggingFaceModel(Model):
    """A Hugging Face causal language model, untouched."""

    backend = "huggingface"

    def __init__(self, module: nn.Module, tokenizer: Any, name: str, bos: bool) -> None:
        self.module, self.tokenizer, self.name, self.bos = module, tokenizer, name, bos
        self.shape = shape_of(module)
        self._layout = layout_of(module)
        self.editable = {kind: True for kind in self._layout.kinds}
        self.missing = self._layout.missing
        blocks: Any = module.get_submodule(self._layout.family.blocks)
        check_blocks(blocks, self.shape.n_layers, type(module).__name__)
        self._accepts = accepted(module, self._layout.family)
        self._first = first_position(module, self._accepts)

    def forward(self, tokens: Tokens, visits: Visits, last_only: bool, cache: Cache | None = None) -> Tensor:
        arguments = arguments_of(tokens, self._accepts, last_only, cache, self._first)
        with self.hooked(visits, arguments["input_ids"].shape[1]):
            return self.module(**arguments).logits

    def new_cache(self) -> Cache | None:
        return empty_cache(self.module) if cache_name(self._accepts) else None

    def hugging_face(self) -> nn.Module:
        return self.module

    @property
    def blocks(self) -> Sequence[nn.Module]:
        if lends_keys(self.module):
            return []
        return list(self.module.get_submodule(self._layout.family.blocks))  # type: ignore[call-overload]

    @contextmanager
    def hooked(self, visits: Mapping[Site, Visit], n_pos: int, packing: Packing | None = None) -> Iterator[None]:
        with ExitStack() as stack:
            _Hooks(self.module, self._layout, n_pos, self.shape.d_head, stack, packing).place(visits)
            yield

    @property
    def packs(self) -> bool:
        return self._layout.family.interface and not scales_by_place(self.module)

    @property
    def logit_cap(self) -> float | None:
        return getattr(self.module.config, "final_logit_softcapping", None)

    def unembed(self, resid: Tensor) -> Tensor:
        return unembed(self.module, self._layout.family, resid)

    def unembed_some(self, resid: Tensor, ids: Tensor) -> Tensor:
        return unembed(self.module, self._layout.family, resid, ids)


@dataclass(frozen=True)
class _Hooks:
    """The hooks of one run; the stack removes them."""

    module: nn.Module
    layout: Layout
    n_pos: int
    d_head: int
    stack: ExitStack
    packing: Packing | None = None

    def place(self, visits: Mapping[Site, Visit]) -> None:
        """Hook every site; those of attention through the interface."""
        inside: dict[int, dict[str, Visit]] = {}
        for site, visit in visits.items():
            if site.kind == "resid_mid":
                self._on_mid(site, visit)
            elif site.kind in ATTENTION_KINDS and site.kind not in self.layout.taps:
                inside.setdefault(site.layer or 0, {})[site.kind] = visit
            else:
                self._on(site.kind, site.layer, visit)
        family = self.layout.family
        layers = inside if self.packing is None else range(len(self.module.get_submodule(family.blocks)))  # type: ignore[arg-type]
        path = f"{family.blocks}.{{}}.{family.attention}"
        watches = {self.module.get_submodule(path.format(i)): Watch(inside.get(i, {}), self.packing) for i in layers}
        if must_watch(self.module, watches):
            self.stack.enter_context(watched(self.module, watches))

    def _on(self, kind: str, layer: int | None, visit: Visit) -> None:
        tap = self.layout.taps[kind]

        def change(tensor: Tensor) -> Tensor:
            value = merge(tap, self._visit(visit, tap, tensor), tensor)
            return value.clone() if self.layout.family.adds_in_place else value

        self._hook(self.module.get_submodule(self.layout.path(kind, layer)), tap.side, change)

    def _visit(self, visit: Visit, tap: Tap, tensor: Tensor) -> Tensor:
        packing = self.packing
        if packing is None or packing.prompts is None:
            return visit(split(tap, tensor, self.n_pos, self.d_head))
        return packing.take(visit(packing.grid(split(tap, tensor, len(packing.row), self.d_head))))

    def _on_mid(self, site: Site, visit: Visit) -> None:
        entered: list[Tensor] = []

        def enter(resid: Tensor) -> Tensor:
            entered.append(resid)
            return resid

        self._on("resid_pre", site.layer, enter)
        self._on("attn_out", site.layer, lambda attn_out: mid_through(visit, entered.pop(), attn_out))

    def _hook(self, module: nn.Module, side: str, change: Callable[[Tensor], Tensor]) -> None:
        if side == "output":
            handle = module.register_forward_hook(lambda _, args, output: on_first(change, output))
        else:
            handle = module.register_forward_pre_hook(lambda _, a, k: on_input(change, a, k), with_kwargs=True)
        self.stack.callback(handle.remove)


def on_first(change: Callable[[Tensor], Tensor], output: Any) -> Any:
    """Change a module's output or, of a tuple of outputs, the first."""
    return with_first(output, change(first_of(output)))


def on_input(change: Callable[[Tensor], Tensor], args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Change a module's first argument, however it is passed."""
    if args:
        return (change(args[0]), *args[1:]), kwargs
    name = next(iter(kwargs))
    return args, {**kwargs, name: change(kwargs[name])}


def wrap(module: nn.Module, tokenizer: Any, name: str, bos: bool) -> Model:
    """A Hugging Face model as a `Model`."""
    return HuggingFaceModel(module, tokenizer, name, bos)
