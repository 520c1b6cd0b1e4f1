"""Where each model family keeps its sites, in Hugging Face's modules: one row a family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from einops import rearrange
from torch import Tensor, nn

ATTENTION_KINDS = ("q", "k", "v", "scores", "pattern", "z")  # seen through the attention interface, in any family


@dataclass(frozen=True)
class Tap:
    """The input or the output of a module; of a tuple, the first member.

    Attributes:
        path: The module, from the block (or from the model, for a site without a layer).
        side: "input" or "output".
        heads: Whether the last axis is to be split into heads.
        scale: What the tensor is multiplied by before it is what its site stands for.
    """

    path: str
    side: str = "output"
    heads: bool = False
    scale: float = 1.0


@dataclass(frozen=True)
class Reads:
    """How a block's attention and MLP read the residual stream, and where heads write to it; paths from the block.

    Attributes:
        projections: What makes queries, keys and values: a matrix each, or one for all three.
        mlp: The module whose input is what the MLP reads.
        out: The last matrix of attention, whose input is `z`; empty where a norm stands between it and the stream.
        inner_out: The last matrix of attention where `out` is empty.
        attn_norm, mlp_norm: The norm through which each reads the stream; empty if it reads the stream itself.
        layout: The order of part (q, k, v), head and feature in what one matrix for all three returns.
        scaling: What products of queries and keys are multiplied by; None if the attention module tells, or if it is
            the usual factor.
    """

    projections: tuple[str, ...]
    mlp: str = "mlp"
    out: str = ""
    inner_out: str = ""
    attn_norm: str = "input_layernorm"
    mlp_norm: str = "post_attention_layernorm"
    layout: str = "part head d"
    scaling: float | None = None


Stream = str | Callable[[Any], str]  # "sequential", "parallel" or "post-norm", or which of these by a configuration


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        embed: Path of the token embedding.
        blocks: Path of the list of blocks.
        final_norm: Path of the norm before the unembedding.
        attention: Path of the attention module, from the block.
        taps: Where the other sites of a block are, paths from the block.
        stream: How attention and MLP share the residual stream: one after the other, side by side, or with a norm after
            each sum (then there is neither a `resid_mid` nor a sum to check).
        reads: How the residual stream is read, if it is known.
        interface: Whether attention goes through transformers' attention interface.
        adds_in_place: Whether a block may write into what its parts return.
        between: Path of what stands between the final norm and the unembedding, if anything does.
        lacks: Kinds of site that cannot be had, each with the reason.
        whole: Whether all positions pass through the blocks and the final norm where logits of the last are asked for.
    """

    embed: str
    blocks: str
    final_norm: str
    attention: str
    taps: Mapping[str, Tap]
    stream: Stream = "sequential"
    reads: Reads | None = None
    interface: bool = True
    adds_in_place: bool = False
    between: str = ""
    lacks: Mapping[str, str] = field(default_factory=dict)
    whole: bool = True

    def stream_of(self, config: Any) -> str:
        """How attention and MLP share the residual stream of a model with this configuration."""
        return self.stream if isinstance(self.stream, str) else self.stream(config)


def _mlp(attn_out: str, pre: str, post: str, mlp_out: str | None = None, **more: Tap) -> dict[str, Tap]:
    taps = {"attn_out": Tap(attn_out), "mlp_pre": Tap(pre), "mlp_post": Tap(post, "input")}
    return taps | {"mlp_out": Tap(mlp_out or post)} | more


def _side_by_side_if_told(config: Any) -> str:
    return "parallel" if config.use_parallel_residual else "sequential"


def _norm_after_if_told(config: Any) -> str:
    return "sequential" if config.do_layer_norm_before else "post-norm"


_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")

GPT2 = Family(
    "transformer.wte", "transformer.h", "transformer.ln_f", "attn",
    _mlp("attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    reads=Reads(("attn.c_attn",), out="attn.c_proj", attn_norm="ln_1", mlp_norm="ln_2"),
)  # fmt: skip
LLAMA = Family(
    "model.embed_tokens", "model.layers", "model.norm", "self_attn",
    _mlp("self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"),
    reads=Reads(_QKV, out="self_attn.o_proj"),
)  # fmt: skip
GEMMA2 = Family(  # a norm stands between each part's last matrix and the stream
    "model.embed_tokens", "model.layers", "model.norm", "self_attn",
    _mlp("post_attention_layernorm", "mlp.gate_proj", "mlp.down_proj", "post_feedforward_layernorm"),
    reads=Reads(_QKV, inner_out="self_attn.o_proj", mlp_norm="pre_feedforward_layernorm"),
)  # fmt: skip
OLMO2 = replace(GEMMA2, reads=Reads(_QKV, inner_out="self_attn.o_proj", attn_norm="", mlp_norm=""))
GPT_NEOX = Family(
    "gpt_neox.embed_in", "gpt_neox.layers", "gpt_neox.final_layer_norm", "attention",
    _mlp("attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    stream=_side_by_side_if_told,
    reads=Reads(("attention.query_key_value",), out="attention.dense", layout="head part d"),
)  # fmt: skip
PHI = Family(
    "model.embed_tokens", "model.layers", "model.final_layernorm", "self_attn",
    _mlp("self_attn.dense", "mlp.fc1", "mlp.fc2"),
    stream="parallel",
    reads=Reads(_QKV, out="self_attn.dense", mlp_norm="input_layernorm"),
)  # fmt: skip
OPT = Family(  # scales its queries before attention sees them, so `q` is taken at the projection
    "model.decoder.embed_tokens", "model.decoder.layers", "model.decoder.final_layer_norm", "self_attn",
    _mlp("self_attn.out_proj", "fc1", "fc2", q=Tap("self_attn.q_proj", heads=True)),
    stream=_norm_after_if_told,
    reads=Reads(
        _QKV, "fc1", out="self_attn.out_proj", attn_norm="self_attn_layer_norm", mlp_norm="final_layer_norm"
    ),
    between="model.decoder.project_out",
)  # fmt: skip

# Keyed by Hugging Face's `config.model_type`. A family that is not here is looked for by structure (structure.py).
FAMILIES: dict[str, Family] = {
    "gpt2": GPT2, "gpt_neox": GPT_NEOX, "llama": LLAMA, "mistral": LLAMA, "qwen2": LLAMA, "qwen3": LLAMA,
    "gemma": LLAMA, "gemma2": GEMMA2, "olmo": LLAMA, "olmo2": OLMO2, "opt": OPT, "phi": PHI,
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """A family's table for one model: every site's tap, and why the others are missing."""

    family: Family
    taps: Mapping[str, Tap]
    missing: Mapping[str, str]
    stream: str

    @classmethod
    def of(cls, family: Family, config: Any) -> "Layout":
        """The table that holds for a model with this configuration."""
        taps = {"embed": Tap(family.embed), "resid_pre": Tap("", "input"), "resid_post": Tap("")}
        taps |= {"resid_final": Tap(family.final_norm, "input")} | dict(family.taps)
        stream = family.stream_of(config)
        missing = dict(family.lacks)
        if stream == "parallel":
            missing["resid_mid"] = "attention and MLP run side by side, so that nothing lies between them"
        elif stream == "post-norm":
            missing["resid_mid"] = "a norm follows each sum, so that no residual stream lies between the two parts"
        elif "attn_out" not in taps:
            missing["resid_mid"] = "what attention adds to the residual stream was not found"
        if not family.interface:
            why = "this family does not go through transformers' attention interface"
            missing |= {kind: why for kind in ATTENTION_KINDS if kind not in {*taps, *missing}}
        return cls(family, taps, missing, stream)

    @property
    def kinds(self) -> list[str]:
        """The kinds of site that can be had, in the order of the forward pass."""
        from interp.sites import AXES

        known = {*self.taps, *ATTENTION_KINDS, "resid_mid"} - set(self.missing)
        needed = {"mlp_pre", "mlp_post", "mlp_out", "attn_out"} - set(self.taps)
        return [kind for kind in AXES if kind in known - needed]

    def path(self, kind: str, layer: int | None) -> str:
        """The full path of the module at which a site is tapped."""
        tap = self.taps[kind]
        inside = "" if layer is None else f"{self.family.blocks}.{layer}"
        return ".".join(part for part in (inside, tap.path) if part)


def split(tap: Tap, tensor: Tensor, n_pos: int, d_head: int) -> Tensor:
    """A module's tensor as its site has it: (batch, pos, ...), also where a family flattens batch and position."""
    if tap.scale != 1:
        tensor = tensor * tap.scale
    if tensor.ndim == 2:
        tensor = rearrange(tensor, "(batch pos) d -> batch pos d", pos=n_pos)
    return rearrange(tensor, "batch pos (head d) -> batch pos head d", d=d_head) if tap.heads else tensor


def merge(tap: Tap, value: Tensor, like: Tensor) -> Tensor:
    """A site's tensor as its module has it."""
    return (value if tap.scale == 1 else value / tap.scale).reshape(like.shape)


def submodule(module: nn.Module, path: str) -> nn.Module | None:
    """The module at a path; None if there is none, or no path."""
    try:
        return module.get_submodule(path) if path else None
    except AttributeError:
        return None
