"""Tiny random models of every family, saved where each backend can load them."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from interp import english

WORDS = (
    "<pad> <eos> <unk> when Mary John Anna and went to the store park , gave a drink ball I you love hate it not is . "
    "war lasted from year 17 32 so she he"
).split()
_SIZES = dict(num_hidden_layers=3, num_attention_heads=4, hidden_size=32, intermediate_size=48)
_GROUPED = _SIZES | dict(num_key_value_heads=2, head_dim=8)
FAMILIES: dict[str, dict] = {
    "gpt2": dict(n_layer=3, n_head=4, n_embd=32, n_positions=64),
    "gpt_neox": _SIZES,
    "llama": _GROUPED,
    "mistral": _GROUPED | dict(sliding_window=4),
    "qwen2": _SIZES | dict(num_key_value_heads=2),
    "qwen3": _GROUPED,
    "gemma2": _GROUPED | dict(head_dim=12, query_pre_attn_scalar=12, sliding_window=4, final_logit_softcapping=3.0),
    "opt": dict(num_hidden_layers=3, num_attention_heads=4, hidden_size=32, ffn_dim=48, word_embed_proj_dim=32),
    "phi": _SIZES | dict(partial_rotary_factor=0.5),
    "olmo2": _GROUPED,
}
# Families without a row of their own, which are found by structure; and one that has a row like another's.
_NARROW = dict(num_key_value_heads=2)
OTHERS: dict[str, dict] = {
    "gemma": _GROUPED,
    "phi3": _SIZES | _NARROW,
    "gemma3_text": _GROUPED | dict(sliding_window=4),
    "granite": _SIZES | _NARROW | dict(residual_multiplier=0.3, embedding_multiplier=3.0, logits_scaling=4.0),
    "smollm3": _SIZES | _NARROW,
    "stablelm": _SIZES | dict(num_key_value_heads=4),
    "starcoder2": _SIZES | _NARROW,
    "cohere": _SIZES | _NARROW,
    "mixtral": _SIZES | _NARROW,
    "olmoe": _SIZES,
    "olmo3": _SIZES | _NARROW,
    "qwen3_moe": _GROUPED | dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
    "gpt_oss": _GROUPED | dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=4),
    "deepseek_v3": _SIZES
    | dict(num_key_value_heads=4, first_k_dense_replace=1, n_routed_experts=4, num_experts_per_tok=2)
    | dict(n_group=1, topk_group=1, moe_intermediate_size=16, q_lora_rank=24, kv_lora_rank=16),
    "glm4": _SIZES | _NARROW,
    "nanochat": _SIZES | _NARROW,
    "modernbert-decoder": _SIZES,
    "gpt_bigcode": dict(n_layer=3, n_head=4, n_embd=32),
    "gptj": dict(n_layer=3, n_head=4, n_embd=32, rotary_dim=4),
    "gpt_neo": dict(hidden_size=32, num_layers=3, num_heads=4, window_size=4)
    | dict(attention_types=[[["global", "local"], 1], [["global"], 1]]),
    "codegen": dict(n_layer=3, n_head=4, n_embd=32, rotary_dim=4),
    "bloom": dict(hidden_size=32, n_layer=3, n_head=4),
    "falcon": _SIZES,
    "mpt": dict(d_model=32, n_heads=4, n_layers=3),
    "xglm": dict(d_model=32, num_layers=3, attention_heads=4, ffn_dim=48),
    "bitnet": _GROUPED,
    "minimax": _GROUPED,
    "mamba": dict(hidden_size=32, num_hidden_layers=3),
}


def tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = dict(bos_token="<eos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>")
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def build(family: str, dtype: torch.dtype = torch.float32, seed: int = 0, **changes) -> PreTrainedModel:
    """A random model whose weights are large enough to tell one tensor from another."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": len(WORDS), "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    sizes |= (FAMILIES | OTHERS).get(family, _SIZES) | changes
    drawn_in = torch.promote_types(dtype, torch.float32)  # half precision is of the same numbers, rounded
    module = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).to(drawn_in)
    for parameter in module.parameters():
        with torch.no_grad():
            if parameter.ndim > 1:
                parameter.normal_(std=0.25)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return module.to(dtype).eval()


def save(family: str, path: Path, **changes) -> str:
    build(family, **changes).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return str(path)


def english_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer like those of pretrained models; the words of the English tasks are single tokens of it."""
    words = [*english.NAMES, *english.PLACES, *english.OBJECTS, *english.EVENTS, *english.CAPITALS]
    words += [*english.CAPITALS.values(), *english.NOUNS, *english.NOUNS.values(), "is", "are"]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([f" {word}" for word in words] * 50, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<end>", eos_token="<end>")


def save_english(family: str, path: Path, **changes) -> str:
    """Write a model that reads English, and return its path."""
    made = english_tokenizer()
    build(family, vocab_size=len(made), bos_token_id=0, eos_token_id=0, **changes).save_pretrained(path)
    made.save_pretrained(path)
    return str(path)
