"""Steered generation against Hugging Face's unsteered `generate`; run as `python -m benchmarks.generation`.

GPT-2 small with random weights, 64 new tokens, greedy, one thread, CPU seconds. The sides take turns in one process; medians, and the
median of the ratios of each turn, which a machine at work elsewhere disturbs less. A steering vector of a third of the
stream's norm is added to the stream after block 6, at the prompt's last token and at all that are generated.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import interp
from interp import Site, edits
from interp.generation import continuations

OUT = Path(__file__).parent / "results" / "generation.md"
NEW, TURNS = 64, 5
PROMPTS = {"one prompt of 15 tokens": [15], "eight prompts of 8 to 15 tokens": [*range(8, 16)]}
SIDES = ("transformers, not steered", "this library, steered", "this library, steered, keys not kept")


def batch(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Random prompts, padded on the left."""
    generator, width = torch.Generator().manual_seed(1), max(lengths)
    ids = torch.randint(0, 50257, (len(lengths), width), generator=generator)
    mask = (torch.arange(width) >= width - torch.tensor(lengths)[:, None]).long()
    return ids, mask


def calls(lengths: list[int]) -> dict[str, Callable[[], torch.Tensor]]:
    """What each side runs; all return the ids."""
    torch.manual_seed(0)
    module = GPT2LMHeadModel(GPT2Config()).eval()
    module.generation_config.pad_token_id = 50256
    ids, mask = batch(lengths)
    model, site = interp.load(module), Site("resid_post", 6)
    norm = float(model.run((ids, mask), read=[site])[site].norm(dim=-1).mean())
    vector = torch.randn(768, generator=torch.Generator().manual_seed(2))
    push = [edits.add(site, vector / vector.norm() * norm / 3, pos=slice(-1, None))]
    theirs = partial(
        module.generate, input_ids=ids, attention_mask=mask, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False
    )
    ours = lambda cached: continuations(model, (ids, mask), NEW, push, cached=cached).tokens.ids
    return dict(zip(SIDES, (theirs, partial(ours, True), partial(ours, False))))


def in_turn(sides: dict[str, Callable[[], torch.Tensor]], turns: int) -> dict[str, list[float]]:
    """Seconds of each side in each turn, after one that is not counted; the order goes round."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns + 1):
        names = [*sides][turn % len(sides) :] + [*sides][: turn % len(sides)]
        for name in names:
            start = process_time()
            sides[name]()
            if turn:
                seconds[name].append(process_time() - start)
    return seconds


def table(title: str, lengths: list[int]) -> list[str]:
    """Speeds for one batch, as lines of a table."""
    sides = calls(lengths)
    seconds = in_turn({name: sides[name] for name in SIDES[:2]}, TURNS) | in_turn({SIDES[2]: sides[SIDES[2]]}, 1)
    reference = seconds[SIDES[0]]
    rows = [f"## {title}", "", "| | CPU s | new tokens a second | speed of transformers' |", "|---|---|---|---|"]
    for name, times in seconds.items():
        pairs = zip(reference, times) if len(times) == len(reference) else [(median(reference), median(times))]
        share = median(one / other for one, other in pairs)
        rows.append(f"| {name} | {median(times):.2f} | {NEW * len(lengths) / median(times):.1f} | {share:.2f} |")
    return [*rows, ""]


def run() -> str:
    """Measure, and write the tables."""
    head = [
        f"# {NEW} new tokens at the size of GPT-2 small",
        "",
        f"`python -m benchmarks.generation`: torch {torch.__version__}, one thread, {TURNS} turns of the first two sides.",
        "",
    ]
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text("\n".join([*head, *(line for title, lengths in PROMPTS.items() for line in table(title, lengths))]))
    return OUT.read_text()


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(run())
