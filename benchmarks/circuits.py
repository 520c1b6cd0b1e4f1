"""A hundred circuits evaluated in batches, against one at a time; run as `python -m benchmarks.circuits`.

One at a time is a call of `circuits.evaluate` for each circuit, which runs the clean and the corrupt prompts anew, as
peers' evaluation does, and then the circuit. "Runs kept" is the same without those: both runs are had once, and each
circuit is a pass of its own. "Every token" is a pass that also runs the tokens before the first that differs. CPU time,
one thread; contestants take turns, on as many circuits of ten per cent of the edges as are given, and medians are printed.
The model alone is one forward pass of the clean prompts.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import process_time

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

import interp
from interp import circuits, metrics, tasks
from interp.circuits.masks import Exchange
from interp.circuits.pair import Pair
from interp.metrics import Metric
from interp.model import Model
from interp.traces import Tokens

OUT = Path(__file__).parent / "results" / "circuits.md"
ROUNDS, CIRCUITS = 5, 100

Case = tuple[Model, Tokens, Tokens, Metric]


def embedded(n: int) -> Case:
    """The embedded model on prompts of the indirect object."""
    model = interp.load()
    task = tasks.ioi(model, n=n, seed=0)
    return model, task.clean, task.corrupt, task.logit_diff


def small() -> Case:
    """A model of the size of GPT-2 small, with random weights, on one pair of 15 tokens that differ in the tenth."""
    torch.manual_seed(0)
    model = interp.load(GPT2LMHeadModel(GPT2Config()).eval())
    clean = torch.randint(0, 50257, (1, 15), generator=torch.Generator().manual_seed(1))
    corrupt = clean.clone()
    corrupt[0, 9] = (clean[0, 9] + 1) % 50257
    return model, model.tokens(clean), model.tokens(corrupt), metrics.logit_diff(100, 200)


CASES: dict[str, tuple[Callable[[], Case], int]] = {
    "embedded model, 1 prompt of 15 tokens": (lambda: embedded(1), CIRCUITS),
    "embedded model, 4 prompts": (lambda: embedded(4), CIRCUITS),
    "embedded model, 32 prompts": (lambda: embedded(32), CIRCUITS),
    "GPT-2 small's size, 1 prompt of 15 tokens": (small, CIRCUITS),
}


def contestants(case: Case, kept: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Ways to evaluate some of the circuits, each returning the metric (circuit, prompt)."""
    model, clean, corrupt, metric = case
    graph = circuits.graph(model)
    exchange = Pair.of(model, clean, corrupt, "noising").exchange(metric)
    whole = Exchange(replace(exchange.run, recording=None), exchange.others)

    def batched(some: Tensor) -> Tensor:
        found = circuits.evaluate(model, clean, corrupt, {str(i): mask for i, mask in enumerate(some)}, metric)
        return torch.from_numpy(found["metric"].values)

    alone = lambda run, some: torch.cat([run.values((1.0 * graph.precedes - mask)[None]) for mask in some])
    return {
        "batched": batched,
        "one at a time": lambda some: torch.cat([batched(mask[None]) for mask in some]),
        "one at a time, runs kept": lambda some: alone(exchange, some),
        "one at a time, every token": lambda some: alone(whole, some),
        "the model alone": lambda some: torch.stack([metric(model.run(clean, last_only=True)) for _ in some]),
    }


def measured(case: Case, n: int) -> Iterator[tuple[str, float, float]]:
    """The name of each contestant, its milliseconds a circuit, and how far its values are from the first's."""
    graph = circuits.graph(case[0])
    drawn = circuits.random_circuits(graph, int(graph.precedes.sum()) // 10, n, seed=0, connected=True)
    kept = torch.stack(list(drawn.values()))
    with torch.no_grad():
        ways = contestants(case, kept)
        times: dict[str, list[float]] = {name: [] for name in ways}
        values: dict[str, Tensor] = {}
        for turn in range(ROUNDS + 1):
            for name, call in ways.items():
                some = kept if name == "batched" else kept[: max(1, n // 10)]  # the slow ones on a tenth
                start = process_time()
                values[name] = call(some)
                if turn:  # the first is not counted
                    times[name].append(1e3 * (process_time() - start) / len(some))
    for name, taken in times.items():
        same = values["batched"][: len(values[name])]
        off = float("nan") if "alone" in name else float((values[name] - same).abs().max() / same.abs().max())
        yield name, median(taken), off


def table(name: str) -> list[str]:
    """One case as lines of a table."""
    make, n = CASES[name]
    lines = [
        f"## {name}, {n} circuits",
        "",
        "| | ms a circuit | times the batched | largest difference |",
        "|---|---|---|---|",
    ]
    rows = list(measured(make(), n))
    for side, took, off in rows:
        lines.append(f"| {side} | {took:.2f} | {took / rows[0][1]:.1f} | {off:.0e} |".replace("nan", ""))
    return [*lines, ""]


def run() -> str:
    """Measure, and write the tables."""
    head = [
        "# Circuits evaluated in batches",
        "",
        f"`python -m benchmarks.circuits`: torch {torch.__version__}, one thread, CPU time, medians of {ROUNDS} rounds",
        "in which the contestants take turns. The largest difference is a share of the largest metric.",
        "",
    ]
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text("\n".join([*head, *(line for name in CASES for line in table(name))]))
    return OUT.read_text()


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(run() if len(sys.argv) == 1 else "\n".join(table(list(CASES)[int(sys.argv[1])])))
