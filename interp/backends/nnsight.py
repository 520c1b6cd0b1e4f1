"""Run Hugging Face models through nnsight.

What attention does inside a function, which nnsight does not see as a module, is seen through transformers' attention
interface, as on the default backend; everything else is nnsight's.
"""

import inspect
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import nnsight
from torch import Tensor, nn

from interp.backends.attention import Watch, must_watch, watched
from interp.backends.families import ATTENTION_KINDS, Tap, merge, split, unembed
from interp.backends.stream import mid_through
from interp.backends.structure import layout_of, shape_of
from interp.model import Model
from interp.visits import Visit, Visits
from interp.sites import Site
from interp.traces import Tokens


def wrap(model: Any, tokenizer: Any, name: str, bos: bool) -> Model:
    """An nnsight model, or a Hugging Face model given to nnsight, as a `Model`."""
    return NnsightModel(model if not isinstance(model, nn.Module) else nnsight.NNsight(model), tokenizer, name, bos)


class NnsightModel(Model):
    """A Hugging Face causal language model in nnsight's hands."""

    backend = "nnsight"

    def __init__(self, envoy: Any, tokenizer: Any, name: str, bos: bool) -> None:
        self._envoy, self.tokenizer, self.name, self.bos = envoy, tokenizer, name, bos
        self.module = envoy._module
        self.shape = shape_of(self.module)
        self._layout = layout_of(self.module)
        self.editable = {kind: True for kind in self._layout.kinds}
        self.missing = self._layout.missing
        self._accepts = set(inspect.signature(self.module.forward).parameters)

    def forward(self, tokens: Tokens, visits: Visits, last_only: bool) -> Tensor:
        arguments = {"attention_mask": tokens.mask, "use_cache": False}
        optional = {"position_ids": tokens.positions} | ({"logits_to_keep": 1} if last_only else {})
        arguments |= {name: value for name, value in optional.items() if name in self._accepts}
        with ExitStack() as stack:
            steps = self._steps(visits, stack)
            act, envoy = self._act, self._envoy
            n_pos = tokens.ids.shape[1]
            if type(envoy).__name__ == "NNsight":
                arguments["input_ids"] = tokens.ids
                tracer = envoy.trace(**arguments)
            else:
                tracer = envoy.trace({"input_ids": tokens.ids, **arguments})
            with tracer:
                for site, visit, before in steps:
                    act(site, visit, n_pos, before)
                logits = envoy.output.logits.save()
        return logits

    def unembed(self, resid: Tensor) -> Tensor:
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
        tap = Tap("", "input") if kind == "resid_final" else layout.taps[kind]
        envoy = self._envoy.get(layout.path(kind, site.layer))
        output: Any = None if tap.side == "input" else envoy.output
        whole: Any = envoy.input if tap.side == "input" else output
        tensor = whole[0] if isinstance(whole, tuple) else whole
        if mid:
            value = mid_through(visit, entered.pop(), tensor)
        else:
            value = merge(visit(split(tap, tensor, n_pos, self.shape.d_head)), tensor)
        if tap.side == "input":
            envoy.input = value
        else:
            envoy.output = (value, *output[1:]) if isinstance(output, tuple) else value


def _keeper(entered: list[Tensor]) -> Visit:
    """A visit that notes what it sees and changes nothing."""

    def keep(value: Tensor) -> Tensor:
        entered.append(value)
        return value

    return keep
