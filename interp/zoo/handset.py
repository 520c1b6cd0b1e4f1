"""Models whose weights are set by hand, so that their circuits are known before anything is measured.

Every feature is a pair of dimensions, one the negative of the other, so that a norm's mean centring takes nothing away;
one of them, the carrier, is so large at every position that a norm divides everything by nearly the same number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from interp.backends import load
from interp.model import Model

NAMES = ("Mary", "John", "Anna", "Tom")
_WORDS = ("<bos>", *NAMES, "and", ":")
_NAMES = [f"name {name}" for name in NAMES]
_ANSWERS = [f"answer {name}" for name in NAMES]
_FEATURES = (*_NAMES, *_ANSWERS, "is name", "is start", "asks", "done", "carrier")
_SIZE, _CARRIER, _SHARP = 32, 256.0, 60.0
Pairs = Sequence[tuple[str, str, float]]


def backup(repair: float = 0.8, strength: float = 4.0, backend: str | None = None) -> Model:
    """A model that names the name in its prompt, with a head that steps in when the head that does so is ablated.

    Prompts such as "<bos> John and :"; the next token is the name. Two layers of two heads, no MLP:

    * L0H0, the mover: ":" attends to the name and writes `strength` on its answer, and a flag, `done`.
    * L1H0, the backup: ":" attends to the name unless `done` is there, else to the start, and writes `repair` times
      `strength` on the answer: nothing, as long as the mover works.
    * L0H1 and L1H1 attend to the start and write 1 on the answers Mary and John, whatever the others do.

    So, for the logit of the name against one that is neither Mary nor John: ablating the mover by zero loses
    `strength` directly and `(1 - repair) * strength` in all (self-repair is `repair`); ablating the backup loses
    nothing; ablating both loses `strength`. Exchanging the mover's output for its output on another name leaves the
    flag where it is, and the backup out of it.
    """
    config = GPT2Config(
        vocab_size=len(_WORDS), n_positions=16, n_embd=_SIZE, n_layer=2, n_head=2, n_inner=1, bos_token_id=0,
        eos_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    module: Any = GPT2LMHeadModel(config).eval()
    names = list(zip(_NAMES, _ANSWERS))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        _embed(module)
        _norms(module)
        flagged: Pairs = [*((a, b, strength) for a, b in names), ("is name", "done", 1.0)]
        _head(module, 0, 0, [("asks", "is name", 1.0)], flagged)
        _head(module, 0, 1, [("asks", "is start", 1.0)], [("is start", _ANSWERS[0], 1.0)])
        choice: Pairs = [("asks", "is name", 1.0), ("done", "is name", -1.0), ("asks", "is start", 0.5)]
        _head(module, 1, 0, choice, [(a, b, repair * strength) for a, b in names])
        _head(module, 1, 1, [("asks", "is start", 1.0)], [("is start", _ANSWERS[1], 1.0)])
        for token, answer in enumerate(_ANSWERS, start=1):
            module.lm_head.weight[token] = _vector({answer: 1.0})
    return load(module, tokenizer=_tokenizer(), backend=backend)


def _vector(features: Mapping[str, float]) -> Tensor:
    """Some features as a vector that reads them, and writes them: each is shared between its two dimensions."""
    half = torch.tensor([features.get(name, 0.0) for name in _FEATURES])
    half = torch.nn.functional.pad(half, (0, _SIZE // 2 - len(half)))
    return torch.cat([half, -half]) / 2**0.5


def _embed(module: Any) -> None:
    known = [{"is start": 1.0}, *({name: 1.0, "is name": 1.0} for name in _NAMES), {}, {"asks": 1.0}]
    module.transformer.wte.weight.copy_(torch.stack([_vector(features) for features in known]))
    module.transformer.wpe.weight.copy_(_vector({"carrier": _CARRIER}))


def _norms(module: Any) -> None:
    """Norms that give back what the carrier made them divide by."""
    scale = _CARRIER / _SIZE**0.5
    for block in module.transformer.h:
        block.ln_1.weight.fill_(scale)
        block.ln_2.weight.fill_(scale)
    module.transformer.ln_f.weight.fill_(scale)


def _head(module: Any, layer: int, head: int, scores: Pairs, writes: Pairs) -> None:
    """Set one head.

    Args:
        scores: (at the query, at the key, by how much): attention goes there, sharply, from where both are.
        writes: (at the key, at the query, by how much): what is found there is written here.
    """
    attention = module.transformer.h[layer].attn
    width = _SIZE // attention.num_heads
    first = head * width
    queries, keys, values = attention.c_attn.weight.split(_SIZE, dim=1)
    for i, (query, key, factor) in enumerate(scores, start=first):
        queries[:, i] = _vector({query: factor * _SHARP * width**0.5})
        keys[:, i] = _vector({key: 1.0})
    for i, (read, written, factor) in enumerate(writes, start=first):
        values[:, i] = _vector({read: 1.0})
        attention.c_proj.weight[i] = _vector({written: factor})


def _tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(_WORDS)}, unk_token="<bos>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<bos>", pad_token="<bos>")
