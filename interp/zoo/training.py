"""Train the embedded model: `python -m interp.zoo.training OUT`, seeded, under an hour on two CPU cores.

A script, not a library: it prints, and it writes the model, its checkpoints and its log into one folder.
"""

import argparse
import json
import math
import random
from pathlib import Path

import torch
from jaxtyping import Int
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from interp.zoo import corpus, lexicon

CONTEXT = 96
CHECKPOINTS = (250, 500, 750, 1000, 1250, 1500, 2000, 4500)  # steps; the last step is the model itself


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One word, one token; punctuation is a word."""
    words = {word: i for i, word in enumerate(lexicon.VOCABULARY)}
    backend = Tokenizer(models.WordLevel(words, unk_token=lexicon.UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{lexicon.BOS} $A", special_tokens=[(lexicon.BOS, words[lexicon.BOS])]
    )
    special = dict(bos_token=lexicon.BOS, eos_token=lexicon.BOS, unk_token=lexicon.UNKNOWN, pad_token=lexicon.PAD)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, **special, padding_side="left", model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def build_model() -> GPT2LMHeadModel:
    """A GPT-2 of 0.8 million parameters with untied embeddings and no dropout."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=512, n_positions=CONTEXT, n_embd=128, n_layer=4, n_head=4, n_inner=384,
            resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, tie_word_embeddings=False,
            bos_token_id=1, eos_token_id=1, pad_token_id=0,
        )
    )  # fmt: skip


def draw_batch(rng: random.Random, size: int) -> Int[Tensor, "row pos"]:
    """Token ids, (size, CONTEXT): text after `<bos>`, and one row in ten cut out of the middle of a text."""
    ids = {word: i for i, word in enumerate(lexicon.VOCABULARY)}
    rows = []
    for _ in range(size):
        words = [lexicon.BOS, *corpus.draw_text(rng, CONTEXT + 24, "train")]
        start = rng.randrange(1, 24) if rng.random() < 0.1 else 0
        rows.append([ids[word] for word in words[start : start + CONTEXT]])
    return torch.tensor(rows)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """A warm-up of a hundred steps, then a cosine down to a fiftieth of the peak."""
    decay = 0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2
    return peak * min(1, (step + 1) / 100) * decay


def build_optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def train(out: Path, steps: int, size: int, peak: float, seed: int, checkpoints: tuple[int, ...]) -> None:
    """Train from scratch; write `model.safetensors`, the tokenizer, `checkpoints/` and `log.json` under `out`."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    model, log = build_model(), []
    optimizer = build_optimizer(model)
    build_tokenizer().save_pretrained(out)
    for step in tqdm(range(steps), unit="step", mininterval=5):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        ids = draw_batch(rng, size)
        loss = cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 50 == 0:
            log.append({"step": step + 1, "tokens": (step + 1) * ids.numel(), "loss": round(loss.item(), 4)})
            (out / "log.json").write_text(json.dumps(log))
        if step + 1 in checkpoints:
            half = {name: tensor.half() for name, tensor in model.state_dict().items()}
            model.save_pretrained(out / "checkpoints" / f"{step + 1:05d}", state_dict=half)
    model.eval().save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--batch", type=int, default=48, help="rows of 96 tokens a step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoints", default=CHECKPOINTS, type=lambda s: tuple(map(int, s.split(","))))
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args.out, args.steps, args.batch, args.learning_rate, args.seed, args.checkpoints)


if __name__ == "__main__":
    main()
