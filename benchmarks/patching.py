"""How fast a patching sweep is beside its peers, on the same weights, in one process: `python -m benchmarks.patching`.

Each sweep is run by every tool in turn, several times; the table gives medians. What takes a peer more than a minute is
run once, on a random tenth of the cells, and scaled up; the table marks it with ~. Run it on a quiet machine.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

import interp
from interp import Model, Tokens, edits, metrics, patching
from interp.metrics import Metric
from interp.quick import quick

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Setting:
    """A model, for us and for TransformerLens, with a pair of prompts."""

    name: str
    model: Model
    clean: Tokens
    corrupt: Tokens
    metric: Metric


@dataclass(frozen=True)
class Sweep:
    """One kind of sweep, and the function of TransformerLens that does it."""

    name: str
    kind: str
    over: tuple[str, ...]
    peer: str


SWEEPS = (
    Sweep("residual stream, layer x position", "resid_pre", ("pos",), "get_act_patch_resid_pre"),
    Sweep("heads", "z", ("head",), "get_act_patch_attn_head_out_all_pos"),
    Sweep("heads x position", "z", ("pos", "head"), "get_act_patch_attn_head_out_by_pos"),
)


def settings(device: str) -> list[Setting]:
    """GPT-2 small in size, with random weights, and the embedded model; a pair that differs in a token, and in all."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    large = interp.load(GPT2LMHeadModel(GPT2Config()).eval(), device=device)
    small = interp.load(device=device)
    made = []
    for name, model, n_pos in (("GPT-2 small size, 15 tokens", large, 15), ("embedded model, 20 tokens", small, 20)):
        clean = torch.randint(5, model.shape.d_vocab, (1, n_pos))
        one, other = clean.clone(), torch.randint(5, model.shape.d_vocab, (1, n_pos))
        one[0, n_pos // 2] = other[0, n_pos // 2]
        metric = metrics.logit_diff(5, 6)
        for pair, corrupt in (("one token differs", one), ("all tokens differ", other)):
            made.append(Setting(f"{name}, {pair}", model, model.tokens(clean), model.tokens(corrupt), metric))
    return made


def ours(setting: Setting, sweep: Sweep) -> Tensor:
    """The changes in the metric, as one flat tensor."""
    model = setting.model
    pair = (setting.clean, setting.corrupt, model.sites(sweep.kind), setting.metric)
    change = patching.patch(model, *pair, over=list(sweep.over), normalize=False)
    return torch.from_numpy(change.values).flatten()


def transformer_lens(bridge: Model, setting: Setting, sweep: Sweep, share: float = 1.0) -> Tensor:
    """The same by TransformerLens's own function; with a share below one, of some cells."""
    import pandas as pd
    import transformer_lens.patching as peer

    tl, ids = bridge.module, setting.corrupt.ids
    metric = lambda logits: setting.metric.of(logits[:, -1])[0]
    with torch.no_grad():
        _, cache = tl.run_with_cache(setting.clean.ids, prepend_bos=False)
        low = metric(tl(ids, prepend_bos=False))
        some = {}
        if share < 1:
            shape = bridge.shape
            sizes = {"layer": shape.n_layers, "pos": ids.shape[1], "head": shape.n_heads}
            names = ["layer", *sweep.over]
            cells = list(product(*(range(sizes[name]) for name in names)))
            chosen = torch.randperm(len(cells), generator=torch.Generator().manual_seed(0))[: int(share * len(cells))]
            frame = pd.DataFrame([cells[i] for i in chosen], columns=names)
            some = {"index_df": frame, "index_axis_names": None}
        found = getattr(peer, sweep.peer)(tl, ids, cache, metric, **some)
    return found.flatten().cpu() - low.cpu()


def nnsight_loop(model: Model, setting: Setting) -> None:
    """A residual sweep as nnsight's documentation writes it: one trace for each cell."""
    source = model.run(setting.clean, read=model.sites("resid_pre"))
    for site, pos in product(model.sites("resid_pre"), range(setting.clean.ids.shape[1])):
        model.run(setting.corrupt, edits=[edits.copy(source, site, pos=pos)], last_only=True)


def pyvene_loop(module: torch.nn.Module, setting: Setting) -> None:
    """A residual sweep by pyvene: one interchange intervention for each cell."""
    import pyvene

    for layer in range(setting.model.shape.n_layers):
        config = pyvene.IntervenableConfig([{"layer": layer, "component": "block_input"}], pyvene.VanillaIntervention)
        intervenable = pyvene.IntervenableModel(config, model=module)
        for pos in range(setting.clean.ids.shape[1]):
            with torch.no_grad():
                intervenable({"input_ids": setting.corrupt.ids}, [{"input_ids": setting.clean.ids}],
                             {"sources->base": pos})  # fmt: skip


def floor(setting: Setting, work: int) -> float:
    """Seconds that the matrix products of a sweep's work take by themselves."""
    model = setting.model
    block: torch.nn.Module = model.blocks[0]
    shapes = [p.shape for p in block.parameters() if p.ndim == 2]
    n = 960  # tokens at a time, as many as fill the cores
    matrices = torch.nn.ModuleList(torch.nn.Linear(a, b, bias=False, device=model.device) for b, a in shapes)
    inputs = [torch.randn(n, a, device=model.device) for _, a in shapes]
    with torch.no_grad(), quick(matrices):
        return median(lambda: [matrix(x) for matrix, x in zip(matrices, inputs)], 5) / n * work


def median(function: Callable[[], object], repeats: int, warm: bool = True) -> float:
    """Median time of some runs, after a first one unless the function has just run, in seconds."""
    if warm:
        function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak(who: str, index: int) -> float:
    """Peak memory of one residual sweep in a process of its own, in MiB."""
    command = [sys.executable, "-m", "benchmarks.patching", "--memory-of", who, str(index)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def memory_of(who: str, index: int) -> None:
    """Run one sweep, and print the peak memory of this process in MiB, making the model left out."""
    setting = settings("cpu")[index]
    sweeps = {"ours": partial(ours, setting), "nothing": lambda sweep: None}
    if who == "transformer_lens":
        sweeps[who] = partial(transformer_lens, _bridge(setting.model), setting, share=0.1)
    with suppress(OSError):  # where there is no such file, the peak is that of making the model
        Path("/proc/self/clear_refs").write_text("5")
    sweeps[who](SWEEPS[0])
    lines = Path("/proc/self/status").read_text().splitlines()
    print(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024)


def _bridge(model: Model) -> Model:
    return interp.load(model.module, backend="transformer_lens")


def compare(setting: Setting, bridge: Model, repeats: int) -> list[list[str]]:
    """A row for each sweep: times, ratio, largest difference, and distance from the floor."""
    rows = []
    for sweep in SWEEPS:
        result = ours(setting, sweep)
        quick = median(partial(ours, setting, sweep), repeats)
        start = time.perf_counter()
        transformer_lens(bridge, setting, sweep, 0.1)
        guess = 10 * (time.perf_counter() - start)
        whole = guess < 60
        slow = median(partial(transformer_lens, bridge, setting, sweep), 3, warm=False) if whole else guess
        difference = f"{(result - transformer_lens(bridge, setting, sweep)).abs().max():.0e}" if whole else "-"
        array = patching.patch(
            setting.model, setting.clean, setting.corrupt, setting.model.sites(sweep.kind), setting.metric,
            over=list(sweep.over), normalize=False,
        )  # fmt: skip
        least = floor(setting, array.attrs["work"])
        rows.append([
            setting.name, sweep.name, str(len(result)), _ms(quick), ("" if whole else "~") + _ms(slow),
            f"{slow / quick:.0f}x", difference, f"{quick / least:.1f}x",
        ])  # fmt: skip
        print(" | ".join(rows[-1]), flush=True)
    return rows


def others(setting: Setting, quick: float) -> list[list[str]]:
    """The residual sweep by nnsight and pyvene."""
    light = interp.load(setting.model.module, backend="nnsight")
    loops = {
        "nnsight": lambda: nnsight_loop(light, setting),
        "pyvene": lambda: pyvene_loop(setting.model.module, setting),
    }
    rows = []
    for name, loop in loops.items():
        try:
            slow = median(loop, 1, warm=False)
        except ImportError:
            continue
        rows.append([setting.name, name, _ms(quick), _ms(slow), f"{slow / quick:.0f}x"])
        print(" | ".join(rows[-1]), flush=True)
    return rows


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-of", nargs=2, metavar=("WHO", "INDEX"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    if args.memory_of:
        return memory_of(args.memory_of[0], int(args.memory_of[1]))
    made = settings(args.device)
    rows, more = [], []
    for setting in made:
        rows += compare(setting, _bridge(setting.model), args.repeats)
        more += others(setting, median(partial(ours, setting, SWEEPS[0]), args.repeats))
    machine = (
        torch.cuda.get_device_name()
        if args.device == "cuda"
        else f"{platform.machine()}, {torch.get_num_threads()} threads"
    )
    text = [
        f"# Patching sweeps\n\n{machine}; torch {torch.__version__}. Medians of {args.repeats} runs; ~ is a tenth of the cells, scaled up.\n",
        table(["setting", "sweep", "cells", "this library", "TransformerLens 4.3", "ratio", "largest difference", "times its floor"], rows),
        "\nThe floor is the time of the matrix products of the blocks that had to run, measured alone.\n",
        table(["setting", "residual sweep by", "this library", "peer", "ratio"], more),
    ]  # fmt: skip
    if args.device == "cpu":
        peaks = [peak(who, 1) for who in ("nothing", "transformer_lens", "ours")]
        text.append(
            f"\nPeak memory of the residual sweep at GPT-2 small size, all tokens differing: {peaks[2]:,.0f} MiB, "
            f"TransformerLens {peaks[1]:,.0f} MiB; of these {peaks[0]:,.0f} MiB are libraries and weights.\n"
        )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"patching-{args.device}.md").write_text("\n".join(text))


if __name__ == "__main__":
    main()
