"""Is a model supported? The identities that define the sites, tried on the model itself."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.edits import Edit, copy
from interp.model import Model
from interp.padding import believed
from interp.sites import UNLAYERED, Site
from interp.traces import Tokens


@dataclass(frozen=True)
class Row:
    """One identity, or another thing that a model is asked.

    Attributes:
        error: The largest found, relative to the size of what was compared. Of what is just so or not, 0 or 1.
        tolerance: How large it may be; None of what is just so or not.
    """

    identity: str
    error: float
    tolerance: float | None

    @property
    def holds(self) -> bool:
        return self.error <= (self.tolerance or 0)

    @property
    def found(self) -> str:
        """What was found, in words."""
        if self.tolerance is None:
            return "yes" if self.holds else "no"
        return f"{self.error:.1e}  (at most {self.tolerance:.0e})"


@dataclass(frozen=True)
class Report:
    """What held on a model, as a table."""

    model: str
    rows: tuple[Row, ...]
    missing: dict[str, str]

    @property
    def holds(self) -> bool:
        """Whether every identity did."""
        return all(row.holds for row in self.rows)

    def __str__(self) -> str:
        width = max((len(row.identity) for row in self.rows), default=0)
        lines = [self.model, ""]
        lines += [f"  {'ok  ' if row.holds else 'FAIL'} {row.identity:<{width}}  {row.found}" for row in self.rows]
        lines += [f"  --   {kind}: {why}" for kind, why in self.missing.items()]
        return "\n".join(lines)

    __repr__ = __str__


@torch.no_grad()
def check(model: Model, seed: int = 0) -> Report:
    """Run the identities on random tokens, two prompts of different length; takes seconds.

    Returns:
        A report that prints as a table; `report.holds` says whether all is well.
    """
    if not isinstance(model, Model):
        raise TypeError(f"this checks an interp.Model, not a {type(model).__name__}; give interp.load(...) of it")
    generator = torch.Generator().manual_seed(seed)
    length = min(8, model.shape.n_context or 8)
    ids = torch.randint(1, model.shape.d_vocab, (2, length), generator=generator).to(model.device)
    mask = torch.ones_like(ids)
    mask[1, : 3 * length // 8] = 0
    fine = {torch.float64: 1e-10, torch.float32: 1e-5}.get(model.dtype, 5e-2)
    with believed(model):  # that padding does not matter is one of the identities
        rows = [Row(name, error, fine) for name, error in _identities(model, Tokens(ids, mask))]
        rows += [
            Row(f"{kind}: an edit has an effect", 0.0 if moved else 1.0, None)
            for kind, moved in _effects(model, Tokens(ids, mask), generator)
        ]
    return Report(repr(model), tuple(rows), dict(model.missing))


def _identities(model: Model, tokens: Tokens) -> Iterator[tuple[str, float]]:
    real = tokens.mask.bool()
    trace = model.run(tokens, read=model.sites())
    layers = range(model.shape.n_layers)
    last = Site("resid_post", model.shape.n_layers - 1)
    has = model.editable.keys()
    at = lambda kind, layer: trace[Site(kind, layer)]

    def worst(pairs: list[tuple[Tensor, Tensor]]) -> float:
        return max(_error(a[real], b[real]) for a, b in pairs)

    yield "unembed(last resid_post) = logits", worst([(model.unembed(trace[last]), trace.logits)])
    if {"attn_out", "mlp_out"} <= has and not model.missing.get("resid_mid", "").startswith("a norm"):
        total = [(at("resid_pre", i) + at("attn_out", i) + at("mlp_out", i), at("resid_post", i)) for i in layers]
        yield "resid_pre + attn_out + mlp_out = resid_post", worst(total)
    if "resid_mid" in has:
        yield (
            "resid_pre + attn_out = resid_mid",
            worst([(at("resid_pre", i) + at("attn_out", i), at("resid_mid", i)) for i in layers]),
        )
    if {"pattern", "scores"} <= has:
        # A sink takes the same share of every key's, so that a pattern sums to less than one.
        sinks = any(name.endswith("sinks") for name, _ in model.module.named_parameters())
        whole = lambda pattern: pattern / pattern.sum(-1, keepdim=True) if sinks else pattern
        pairs = [(at("scores", i).softmax(-1), whole(at("pattern", i))) for i in layers]
        yield "softmax(scores) = pattern", worst([(a.transpose(1, 2), b.transpose(1, 2)) for a, b in pairs])
    if {"pattern", "v", "z"} <= has:
        yield "pattern @ v = z", worst([(_attend(at("pattern", i), at("v", i)), at("z", i)) for i in layers])
    pad = int((~real[1]).sum())
    alone = model.run(Tokens(tokens.ids[1:, pad:], tokens.mask[1:, pad:]))
    yield "padding does not matter", _error(alone.logits[0], trace.logits[1, pad:])
    yield (
        "batching does not matter",
        _error(model.run(Tokens(tokens.ids[:1], tokens.mask[:1])).logits[0], trace.logits[0]),
    )
    stream = Site("resid_pre", min(1, model.shape.n_layers - 1))
    other = model.run(Tokens(tokens.ids.flip(0).roll(1, 1), tokens.mask), read=[stream])
    restored = model.run(tokens, edits=[copy(other, stream)])
    yield "restoring the whole stream restores the logits", worst([(restored.logits, other.logits)])
    plain = trace.logits
    for kind in (kind for kind, editable in model.editable.items() if editable):
        site = Site(kind) if kind in UNLAYERED else Site(kind, 0)
        yield (
            f"{kind}: writing back what was read changes nothing",
            worst([(model.run(tokens, edits=[copy(trace, site)]).logits, plain)]),
        )


def _effects(model: Model, tokens: Tokens, generator: torch.Generator) -> Iterator[tuple[str, bool]]:
    plain = model.run(tokens).logits
    for kind in (kind for kind, editable in model.editable.items() if editable):
        site = Site(kind) if kind in UNLAYERED else Site(kind, 0)
        # Of scores a sum cancels in the softmax, so the change is a factor as well.
        noise = lambda x: torch.rand(x.shape, generator=generator).to(x)
        edited = model.run(tokens, edits=[Edit(site, lambda x: x * 0.5 + 0.1 * noise(x))]).logits
        yield kind, bool((edited - plain)[tokens.mask.bool()].abs().max() > 0)


def _attend(pattern: Tensor, v: Tensor) -> Tensor:
    v = v.repeat_interleave(pattern.shape[1] // v.shape[2], dim=2)
    return torch.einsum("bhqk,bkhd->bqhd", pattern, v)


def _error(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-9))
