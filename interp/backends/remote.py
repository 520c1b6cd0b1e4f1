"""What a run on a remote server does there: plain functions over plain data, shipped as source with each request.

The server has neither this package nor its attention function. So edits travel as changes and indices, and what
happens inside attention is reached through nnsight's `.source`, whose labels move from release to release: the call is
the last operation named `attention_interface_N`, found at run time.
"""

# Annotations stay text: the server need not know the types.
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from interp.backends.families import ATTENTION_KINDS, Layout
from interp.sites import Site
from interp.visits import Visits

Step = dict[
    str, Any
]  # kind, layer, path, side, heads, scale, sizes, name, padding, edits: pairs of a change and its index


def plan(layout: Layout, visits: Visits, batch: int, d_head: int) -> list[Step]:
    """The steps of a run, in the order of the forward pass."""
    sizes = {"batch": batch, "d_head": d_head, "padding": visits.tokens.mask == 0}
    steps: list[Step] = []
    for site in visits:
        if site.kind == "resid_mid":
            steps.append(_step(layout, Site("resid_pre", site.layer)) | sizes | {"name": None, "keep": True})
        steps.append(_step(layout, site) | sizes | {"name": str(site), "edits": visits.parts(site)})
    order = {str(site): site.order for site in visits}
    return sorted(steps, key=lambda step: order.get(step["name"], Site("resid_pre", step["layer"] or 0).order))


def _step(layout: Layout, site: Site) -> Step:
    step: Step = {"kind": site.kind, "layer": site.layer, "edits": [], "keep": False}
    kind = "attn_out" if site.kind == "resid_mid" else site.kind
    if kind in ATTENTION_KINDS and kind not in layout.taps:
        return step | {"path": f"{layout.family.blocks}.{site.layer}.{layout.family.attention}", "side": "inside"}
    tap = layout.taps[kind]
    return step | {"path": layout.path(kind, site.layer), "side": tap.side, "heads": tap.heads, "scale": tap.scale}


def serve(root: Any, steps: Sequence[Step]) -> dict[str, Any]:
    """Read and edit at each step of a run in progress, on the machine that has the weights.

    Returns:
        The logits and, by the name of each site, what the rest of the model saw; before it what was there, if edited.
    """
    for step in steps:
        if step["side"] == "inside":
            _ = root.get(step["path"]).source  # before the run reaches it: a forward under way is no longer rewritten
    entered: dict[int, Tensor] = {}
    seen: dict[str, Any] = {}
    for step in steps:
        envoy = root.get(step["path"])
        value = _read(envoy, step)
        if step["keep"]:
            entered[step["layer"]] = value
            continue
        stream = entered[step["layer"]] if step["kind"] == "resid_mid" else None
        before = value if stream is None else stream + value
        after = _changed(before, step["edits"], step["kind"], step["padding"])
        if step["edits"]:
            _write(envoy, step, after if stream is None else value + (after - before))
        seen[step["name"]] = [x.detach().clone().cpu() for x in ([before, after] if step["edits"] else [after])]
    seen["logits"] = root.output.logits.detach().cpu()
    return seen


def _changed(value: Tensor, edits: Sequence[tuple], kind: str, padding: Tensor) -> Tensor:
    """A tensor after its edits; scores that the model masks stay as they are, and so do patterns of padding."""
    import torch

    for change, index in edits:
        edited = value.clone()
        edited[index] = change(value[index]).to(value)
        if kind == "scores":
            edited = edited.where(value > torch.finfo(value.dtype).min / 2, value)
        if kind == "pattern":
            edited = value.where(padding.to(value.device)[:, None, None], edited)
        value = edited
    return value


def _read(envoy: Any, step: Step) -> Tensor:
    """The tensor at a step, with the axes of its site."""
    kind = step["kind"]
    if step["side"] == "inside":
        call = _attention_call(envoy)
        if kind in ("q", "k", "v"):
            return call.inputs[0]["qkv".index(kind) + 1].transpose(1, 2)
        if kind == "z":
            return call.output[0]
        return _softmax(call).input if kind == "scores" else _softmax(call).output
    whole = envoy.input if step["side"] == "input" else envoy.output
    tensor = whole[0] if isinstance(whole, tuple) else whole
    if step["scale"] != 1:
        tensor = tensor * step["scale"]
    if tensor.ndim == 2:  # some families flatten batch and position
        tensor = tensor.unflatten(0, (step["batch"], -1))
    if step["heads"]:
        return tensor.unflatten(-1, (-1, step["d_head"]))
    return tensor


def _write(envoy: Any, step: Step, value: Tensor) -> None:
    kind = step["kind"]
    if step["side"] == "inside":
        call = _attention_call(envoy)
        if kind in ("q", "k", "v"):
            args, options = call.inputs
            at = "qkv".index(kind) + 1
            call.inputs = ((*args[:at], value.transpose(1, 2), *args[at + 1 :]), options)
        elif kind == "z":
            call.output = (value, *call.output[1:])
        elif kind == "scores":
            _softmax(call).input = value
        else:
            _softmax(call).output = value
    elif step["side"] == "input":
        envoy.input = (value / step["scale"]).reshape(envoy.input.shape)
    else:
        whole = envoy.output
        shape = (whole[0] if isinstance(whole, tuple) else whole).shape
        value = (value / step["scale"]).reshape(shape)
        envoy.output = (value, *whole[1:]) if isinstance(whole, tuple) else value


def _attention_call(envoy: Any) -> Any:
    calls = [name for name in envoy.source.names if name.startswith("attention_interface_")]
    if not calls:
        raise ValueError(f"no call of an attention interface was found in {envoy.path}")
    return getattr(envoy.source, calls[-1])


def _softmax(call: Any) -> Any:
    inner = call.source
    found = [name for name in inner.names if "softmax" in name]
    if not found:
        raise ValueError("this attention takes no softmax of its own; its scores and pattern cannot be had remotely")
    return getattr(inner, found[-1])
