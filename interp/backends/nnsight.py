"""Run Hugging Face models through nnsight, here or on a remote server (NDIF).

Here, what attention does inside a function, which nnsight does not see as a module, is seen through transformers'
attention interface, as on the default backend; everything else is nnsight's. A server does not have that function:
there, attention is reached through nnsight's `.source` (remote.py).

The remote path is tested with nnsight's `remote="local"`, which serialises each request, hides what a server would not
have, and runs it here. It has not been tried on a server: queues, authentication, the server's library versions and the
transfer between devices are unverified.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import nnsight
import torch
from torch import Tensor, nn

from interp.backends.attention import Watch, must_watch, watched
from interp.backends.calling import accepted, arguments_of, cache_name, empty_cache, first_position
from interp.backends.families import ATTENTION_KINDS, merge, split
from interp.backends.remote import plan, serve
from interp.backends.sizes import check_blocks, shape_of
from interp.backends.stream import mid_through
from interp.backends.structure import layout_of
from interp.backends.unembedding import unembed
from interp.model import Model
from interp.recording import first_of, with_first
from interp.shape import Cache
from interp.sites import Site
from interp.traces import Tokens
from interp.visits import Visit, Visits


def wrap(model: Any, tokenizer: Any, name: str, bos: bool, remote: bool | str = False) -> Model:
    """An nnsight model, or a Hugging Face model given to nnsight, as a `Model`.

    Args:
        remote: What nnsight's `trace(remote=)` takes: False to run here, True for NDIF, the address of another server,
            or "local" to rehearse a remote run here.
    """
    if isinstance(model, nn.Module):
        model = _remotable(model, tokenizer, name, remote) if remote else nnsight.NNsight(model)
    if remote and not hasattr(model, "to_model_key"):
        raise ValueError(f"remote={remote!r} needs a nnsight.TransformersModel, not a {type(model).__name__}")
    if not remote and any(parameter.is_meta for parameter in model._module.parameters()):
        model.dispatch()
    return NnsightModel(model, tokenizer, name, bos, remote)


def by_name(name: str) -> Any:
    """An nnsight model without weights, for a server that has them."""
    return nnsight.TransformersModel(name, task="text-generation")


def _remotable(module: nn.Module, tokenizer: Any, name: str, remote: bool | str) -> Any:
    if remote != "local":
        raise ValueError(
            f"remote={remote!r} runs a model that the server has, under its hub name, not the weights of {name}; "
            'give the name or a nnsight.TransformersModel, or rehearse with remote="local"'
        )
    return nnsight.TransformersModel(module, tokenizer=tokenizer, task="text-generation")


class NnsightModel(Model):
    """A Hugging Face causal language model in nnsight's hands."""

    backend = "nnsight"

    def __init__(self, envoy: Any, tokenizer: Any, name: str, bos: bool, remote: bool | str) -> None:
        self._envoy, self.tokenizer, self.name, self.bos, self._remote = envoy, tokenizer, name, bos, remote
        self.module = envoy._module
        self.shape = shape_of(self.module)
        self._layout = layout_of(self.module)
        self.missing = dict(self._layout.missing)
        config: Any = self.module.config
        attention = config._attn_implementation
        if remote and attention != "eager":
            why = f"on a server, {attention!r} attention has none; give load a model with attn_implementation='eager'"
            self.missing |= {kind: why for kind in ("scores", "pattern") if kind not in self.missing}
        self.editable = {kind: True for kind in self._layout.kinds if kind not in self.missing}
        blocks: Any = self.module.get_submodule(self._layout.family.blocks)
        check_blocks(blocks, self.shape.n_layers, type(self.module).__name__)
        self._accepts = accepted(self.module, self._layout.family)
        self._first = first_position(self.module, self._accepts)

    def new_cache(self) -> Cache | None:
        # A cache that a server fills stays there.
        return empty_cache(self.module) if cache_name(self._accepts) and not self._remote else None

    def forward(self, tokens: Tokens, visits: Visits, last_only: bool, cache: Cache | None = None) -> Tensor:
        arguments = arguments_of(tokens, self._accepts, last_only, cache, self._first)
        if self._remote:
            return self._forward_remotely(arguments, visits)
        with ExitStack() as stack:
            steps = self._steps(visits, stack)
            act, envoy = self._act, self._envoy
            n_pos = arguments["input_ids"].shape[1]
            tracer = envoy.trace(**arguments) if type(envoy).__name__ == "NNsight" else envoy.trace(arguments)
            with tracer:
                for site, visit, before in steps:
                    act(site, visit, n_pos, before)
                logits = envoy.output.logits.save()
        return logits

    def _forward_remotely(self, arguments: dict[str, Any], visits: Visits) -> Tensor:
        if torch.is_grad_enabled():
            raise ValueError("a gradient does not come back from a server; use remote=False, or run without grad")
        nnsight.register("interp")  # by source: a server does not have this package
        steps = plan(self._layout, visits, len(arguments["input_ids"]), self.shape.d_head)
        envoy, serving = self._envoy, serve
        with envoy.trace(arguments, remote=self._remote):
            seen = nnsight.save(serving(envoy, steps))
        for site in visits:
            visits[site](seen[str(site)][0].to(self.device))  # once more here, for its checks
            visits.seen[site] = seen[str(site)][-1].to(self.device)
        return seen["logits"].to(self.device)

    def hugging_face(self) -> nn.Module | None:
        return None if self._remote else self.module

    @property
    def logit_cap(self) -> float | None:
        return getattr(self.module.config, "final_logit_softcapping", None)

    def unembed(self, resid: Tensor) -> Tensor:
        if any(parameter.is_meta for parameter in self.module.parameters()):
            raise ValueError(f"the weights of {self.name} are on the server only, so nothing can be unembedded here")
        return unembed(self.module, self._layout.family, resid)

    def _steps(self, visits: Mapping[Site, Visit], stack: ExitStack) -> list[tuple[Site, Visit, list[Tensor]]]:
        """What to do at each module in the order of the forward pass, which nnsight needs."""
        inside: dict[nn.Module, dict[str, Visit]] = {}
        steps: list[tuple[Site, Visit, list[Tensor]]] = []
        for site, visit in visits.items():
            if site.kind in ATTENTION_KINDS and site.kind not in self._layout.taps:
                family = self._layout.family
                module = self.module.get_submodule(f"{family.blocks}.{site.layer}.{family.attention}")
                inside.setdefault(module, {})[site.kind] = visit
            elif site.kind == "resid_mid":
                entered: list[Tensor] = []
                steps.append((Site("resid_pre", site.layer), _keeper(entered), entered))
                steps.append((site, visit, entered))
            else:
                steps.append((site, visit, []))
        watches = {module: Watch(seen) for module, seen in inside.items()}
        if must_watch(self.module, watches):
            stack.enter_context(watched(self.module, watches))
        return sorted(steps, key=lambda step: step[0].order)

    def _act(self, site: Site, visit: Visit, n_pos: int, entered: list[Tensor]) -> None:
        layout = self._layout
        mid = site.kind == "resid_mid"
        kind = "attn_out" if mid else site.kind
        tap = layout.taps[kind]
        envoy = self._envoy.get(layout.path(kind, site.layer))
        output: Any = None if tap.side == "input" else envoy.output
        whole: Any = envoy.input if tap.side == "input" else output
        tensor = first_of(whole)
        there = split(tap, tensor, n_pos, self.shape.d_head)
        value = merge(tap, mid_through(visit, entered.pop(), there) if mid else visit(there), tensor)
        value = value.clone() if layout.family.adds_in_place else value
        if tap.side == "input":
            envoy.input = value
        else:
            envoy.output = with_first(output, value)


def _keeper(entered: list[Tensor]) -> Visit:
    """A visit that notes what it sees and changes nothing."""

    def keep(value: Tensor) -> Tensor:
        entered.append(value)
        return value

    return keep
