"""Edge attribution of every edge, against TransformerLens; run as `python -m benchmarks.edges`.

Random weights, one pair of prompts of 15 tokens that differ in the tenth, or in all; CPU seconds on one thread, and
seconds by the clock on as many as torch takes. "Prepacked" is a model loaded with `prepack=True`. Peak memory is of a
process of its own for each side; time and the largest difference between the scores are had in one process. The model
alone, a forward pass for one prompt and one with a backward pass for the other, says how much of the time is its own.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import interp
from interp import circuits, metrics

OUT = Path(__file__).parent / "results" / "edges.md"
THREADS = torch.get_num_threads()
N_POS, RIGHT, WRONG = 15, 100, 200
GPT2_SMALL: dict[str, int] = {}
CASES = {  # a size, and the tokens that differ
    "GPT-2 small": (GPT2_SMALL, slice(9, 10)),
    "GPT-2 small, all tokens differ": (GPT2_SMALL, slice(None)),
    "12 layers, 12 heads, d_model 96": ({"n_embd": 96}, slice(9, 10)),
}


def module(case: str) -> GPT2LMHeadModel:
    """The model that both sides are given."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(**CASES[case][0])).eval()


def prompts(case: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A clean and a corrupt prompt."""
    clean = torch.randint(0, 50257, (1, N_POS), generator=torch.Generator().manual_seed(1))
    corrupt, differ = clean.clone(), CASES[case][1]
    corrupt[0, differ] = (clean[0, differ] + 1) % 50257
    return clean, corrupt


def ours(case: str, prepack: bool = False) -> Callable[[], Any]:
    """Edge attribution at every position, by this library."""
    model = interp.load(module(case), prepack=prepack)
    metric = metrics.logit_diff(RIGHT, WRONG)
    return lambda: circuits.eap(model, *prompts(case), metric, over=["pos"])


def theirs(case: str) -> Callable[[], Any]:
    """The same by TransformerLens."""
    from transformer_lens.tools.analysis import EdgeAttributionConfig, attribution_patch

    bridge: Any = interp.load(module(case), backend="transformer_lens").module
    metric = lambda logits: logits[0, -1, RIGHT] - logits[0, -1, WRONG]
    return lambda: attribution_patch(bridge, *prompts(case), metric, EdgeAttributionConfig(granularity="edge"))


def plain(case: str) -> Callable[[], Any]:
    """Nothing but the model, the floor of both: a forward pass without a gradient, and one with a backward pass."""
    model = module(case).requires_grad_(False)

    def run() -> None:
        clean, corrupt = prompts(case)
        with torch.no_grad():
            model(input_ids=clean, use_cache=False, logits_to_keep=1)
        embedded = model.get_input_embeddings()(corrupt).requires_grad_()
        logits = model(inputs_embeds=embedded, use_cache=False, logits_to_keep=1).logits
        torch.autograd.grad(logits[0, -1, RIGHT] - logits[0, -1, WRONG], embedded)

    return run


SIDES = {
    "this library": ours,
    "this library, prepacked": partial(ours, prepack=True),
    "TransformerLens": theirs,
    "the model alone": plain,
}
OURS = ("this library", "this library, prepacked")


def seconds(
    calls: Mapping[str, Callable[[], Any]], timer: Callable[[], float], threads: int, rounds: int = 5
) -> dict[str, float]:
    """The median time of each call: all take turns, so that none meets the machine in another state than the others."""
    torch.set_num_threads(threads)
    times: dict[str, list[float]] = {side: [] for side in calls}
    for _ in range(rounds):
        for side, call in calls.items():
            call()  # not counted: the one before was another's
            start = timer()
            call()
            times[side].append(timer() - start)
    torch.set_num_threads(1)
    return {side: median(some) for side, some in times.items()}


def largest_difference(scores: Any, edges: dict) -> tuple[int, float, float]:
    """How many edges both sides score, the largest difference, and the largest score."""
    at = lambda names: {name: i for i, name in enumerate(names)}
    writers, readers, values = at(scores.writer.values), at(scores.reader.values), scores.values[0]
    worst = largest = 0.0
    for (writer, reader), value in edges.items():
        one = values[reader.position, writers[name_of(writer)], readers[name_of(reader)]]
        worst, largest = max(worst, abs(one - value)), max(largest, abs(value))
    if len(edges) != int((~scores.isnull()).sum()):
        raise RuntimeError(f"{len(edges)} edges there, {int((~scores.isnull()).sum())} here")
    return len(edges), float(worst), float(largest)


def name_of(node: Any) -> str:
    """Our name for one of TransformerLens's nodes."""
    if node.kind in ("embed", "logits"):
        return str(node.kind)
    if node.kind in ("mlp_out", "mlp_in"):
        return f"mlp{node.layer}"
    head = f"L{node.layer}H{node.head}"
    return head if node.kind == "attn_head_out" else f"{head}.{node.kind[0]}"


def peak_memory(side: str) -> float:
    """Peak resident memory (MiB) of a process that makes GPT-2 small and calls one side once."""
    command = [sys.executable, "-m", "benchmarks.edges", side]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(json.loads(out.splitlines()[-1]))


def table(case: str, memory: dict[str, float]) -> list[str]:
    """Times and differences in one case, as lines of a table."""
    calls = {side: make(case) for side, make in SIDES.items()}
    edges = calls["TransformerLens"]().edge_scores
    n, worst, largest = max((largest_difference(calls[side](), edges) for side in OURS), key=lambda found: found[1])
    cpu, clock = seconds(calls, process_time, 1), seconds(calls, perf_counter, THREADS)
    times = {side: (cpu[side], clock[side]) for side in calls}
    faster = {side: [slow / quick for slow, quick in zip(times["TransformerLens"], times[side])] for side in OURS}
    return [
        f"## {case}",
        "",
        f"| | CPU s, one thread | s by the clock, {THREADS} threads | peak memory (MiB) |",
        "|---|---|---|---|",
        *(f"| {side} | {a:.3f} | {b:.3f} | {memory.get(side, float('nan')):.0f} |" for side, (a, b) in times.items()),
        "",
        *(
            f"- {side}: {one:.0f} and {all_:.0f} times faster than TransformerLens"
            for side, (one, all_) in faster.items()
        ),
        "",
        f"{n:,} scores (edges x positions). The largest difference is {worst:.1e}, the largest score {largest:.1e}.",
        "",
    ]


def run() -> str:
    """Measure, and write the tables."""
    memory = {side: peak_memory(side) for side in SIDES}  # first: a process inherits the peak of the one that starts it
    head = [
        f"# All edges, {N_POS} tokens",
        "",
        f"`python -m benchmarks.edges`: torch {torch.__version__}; medians of 5 calls, taken in turns.",
        "",
    ]
    lines = [*head, *(line for case in CASES for line in table(case, memory if case == "GPT-2 small" else {}))]
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text("\n".join(lines).replace("| nan |", "| |"))
    return OUT.read_text()


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        SIDES[sys.argv[1]]("GPT-2 small")()
        print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
    else:
        print(run())
