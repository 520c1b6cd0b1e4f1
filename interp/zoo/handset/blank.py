"""Blank transformers in Hugging Face's GPT-2 form, with a coordinate of the residual stream for each named feature.

Their norms pass on what they are given and nothing else, whichever writers were ablated or exchanged. The epsilon is so
large that any variance is rounded away beside it, so that a norm divides by a constant, by which its weights multiply
again; both are powers of two, which round nothing. Mean centring finds nothing to take away: one more coordinate, the
balance, holds minus the sum of the others in whatever is written.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from interp.backends import load
from interp.model import Model

BOS = "<bos>"
_UNKNOWN = "<unk>"  # the tokenizer's, not one of the model's
_EPSILON = 2.0**80  # any variance is rounded away beside it, in float64 too
Features = Mapping[Any, float]  # by feature
Scores = Sequence[tuple[Features, Features, float]]  # what a query reads, what a key reads, by how much
Writes = Sequence[tuple[Features, Features]]  # what is read at the key, what is written at the query


@dataclass(frozen=True)
class Blank:
    """A GPT-2 all of whose weights are zero until they are set, and the features of its stream.

    Attributes:
        features: What the coordinates of the stream hold; a mapping of features to numbers is a vector.
        words: The vocabulary, beginning with the beginning of each prompt.
    """

    module: Any
    features: tuple[Hashable, ...]
    words: tuple[str, ...]

    @classmethod
    def of(
        cls,
        features: Sequence[Hashable],
        words: Sequence[str],
        n_layers: int,
        n_heads: int,
        d_head: int = 1,
        n_neurons: int = 1,
        n_context: int = 16,
        activation: str = "relu",
    ) -> "Blank":
        """A blank with room for these features, and heads of this width or more."""
        size = n_heads * max(d_head, -(-(len(features) + 1) // n_heads))
        vocabulary = (BOS, *words)
        config = GPT2Config(
            vocab_size=len(vocabulary), n_positions=n_context, n_embd=size, n_layer=n_layers, n_head=n_heads,
            n_inner=n_neurons, activation_function=activation, layer_norm_epsilon=_EPSILON, bos_token_id=0,
            eos_token_id=0, tie_word_embeddings=False,
        )  # fmt: skip
        module = GPT2LMHeadModel(config).eval()
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.fill_(_EPSILON**0.5 if ".ln_" in name and name.endswith("weight") else 0.0)
        return cls(module, tuple(features), vocabulary)

    def reading(self, features: Features) -> Float[Tensor, " d_model"]:
        """The vector whose product with the stream is the sum of these features' values, each times its number."""
        vector = torch.zeros(self.module.config.n_embd)
        for name, amount in features.items():
            vector[self.features.index(name)] += amount
        return vector

    def writing(self, features: Features) -> Float[Tensor, " d_model"]:
        """The vector that adds these numbers to the features' values."""
        vector = self.reading(features)
        vector[len(self.features)] = -vector.sum()
        return vector

    @torch.no_grad()
    def embed(self, word: str, features: Features) -> None:
        """What a word is known by."""
        self.module.transformer.wte.weight[self.words.index(word)] = self.writing(features)

    @torch.no_grad()
    def place(self, position: int, features: Features) -> None:
        """What a position is known by."""
        self.module.transformer.wpe.weight[position] = self.writing(features)

    @torch.no_grad()
    def head(self, layer: int, head: int, scores: Scores, writes: Writes, always: Sequence[Features] = ()) -> None:
        """Set one head.

        Args:
            scores: Added up: what the query reads times what the key reads, times a factor.
            always: What a key scores by, whatever the query.
            writes: At the query, times what is read at the keys attended to.
        """
        attention = self.module.transformer.h[layer].attn
        size, width = self.module.config.n_embd, attention.head_dim
        if max(len(scores) + len(always), len(writes)) > width:
            raise ValueError(
                f"a head of width {width} has no room for {len(scores) + len(always)} scores and {len(writes)} writes; "
                f"make the blank with a larger d_head="
            )
        queries, keys, values = attention.c_attn.weight.split(size, dim=1)
        unscaled = width**0.5  # attention divides by it
        for i, (query, key, factor) in enumerate(scores, start=head * width):
            queries[:, i] = self.reading(query) * factor * unscaled
            keys[:, i] = self.reading(key)
        for i, key in enumerate(always, start=head * width + len(scores)):
            attention.c_attn.bias[i] = unscaled
            keys[:, i] = self.reading(key)
        for i, (read, written) in enumerate(writes, start=head * width):
            values[:, i] = self.reading(read)
            attention.c_proj.weight[i] = self.writing(written)

    @torch.no_grad()
    def neuron(self, layer: int, index: int, reads: Features, bias: float, writes: Features) -> None:
        """Set one neuron: what it reads, what is added to that, and what it writes times its activation."""
        mlp = self.module.transformer.h[layer].mlp
        mlp.c_fc.weight[:, index] = self.reading(reads)
        mlp.c_fc.bias[index] = bias
        mlp.c_proj.weight[index] = self.writing(writes)

    @torch.no_grad()
    def unembed(self, word: str, features: Features) -> None:
        """What a word's logit is the sum of."""
        self.module.lm_head.weight[self.words.index(word)] = self.reading(features)

    def model(self, backend: str | None = None) -> Model:
        """The model, with a tokenizer that takes words apart at spaces and refuses those that it does not know."""
        vocabulary = {word: i for i, word in enumerate([*self.words, _UNKNOWN])}
        words = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNKNOWN))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        special = {"bos_token": BOS, "pad_token": BOS, "unk_token": _UNKNOWN}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **special)
        return load(self.module, tokenizer=tokenizer, backend=backend)
