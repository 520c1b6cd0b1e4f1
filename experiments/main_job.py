"""The main job: five methods on the embedded model, kept in a store, on one page: `python -m experiments.main_job`."""

import argparse
import time
from pathlib import Path

from experiments import (
    fact_attribution,
    indirect_object,
    logit_lens,
    report,
    sentiment_probe,
    sentiment_steering,
)
from experiments.lab import keep
from experiments.lab.command_options import add_store
from experiments.store import PAGES, Run, Store

TITLE = "What does a small model know, and where?"
_MANY = 4  # prompts of sentiment for each pair of the other tasks: probes and vectors learn from them


def run(n: int = 48, seed: int = 0, root: str = "runs") -> tuple[Path, list[Run]]:
    """Run what has not been run yet, write the page; return where it is, and the five runs."""
    store = Store(root)
    configs = (
        indirect_object.Config(n=n, seed=seed),
        logit_lens.Config(n=n, seed=seed),
        fact_attribution.Config(n=n, seed=seed),
        sentiment_probe.Config(n=_MANY * n, seed=seed),
        sentiment_steering.Config(n=_MANY * n, seed=seed + 1),
    )
    runs = [keep(cfg, store) for cfg in configs]
    lead = f"Patching, logit lens, integrated gradients, probe and steering on the embedded model, {n} held-out prompt pairs a task."
    return report.write(Path(root) / PAGES / "main_job.html", report.gallery_page(runs, TITLE, lead)), runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=48, help="prompt pairs a task (default: 48)")
    parser.add_argument("--seed", type=int, default=0)
    add_store(parser)
    given = parser.parse_args()
    start = time.perf_counter()
    page, runs = run(given.n, given.seed, given.store)
    for one in runs:
        print(f"{one.question} {one.answer}\n")
    print(report.pictures(runs, page.parent / "main_job"))
    print(f"page: {page} ({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
