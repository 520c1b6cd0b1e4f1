"""Integrated gradients of the words, against captum and inseq; run as `python -m benchmarks.attribution`.

GPT-2 small's size with random weights, one prompt of 64 tokens, one thread. One target: the logit of the next token. Ten
targets: the log probability of each token of a continuation. Every side integrates from the embedding of one token that
stands everywhere, which is what captum and inseq do; they are called as their documentation shows, with their 50 steps.
inseq takes part if it is installed. It also moves the continuation's own tokens, so that its numbers are compared with
ours of that kind (`own=True`).

Time is CPU seconds, of one target the median of three calls; time and peak memory are those of a process of its own for each side.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import torch
import xarray as xr
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import interp
from interp import Site, attribution, metrics

OUT = Path(__file__).parent / "results" / "attribution.md"
N_POS, N_TARGETS, STEPS, VOCABULARY, FILLER = 64, 10, 50, 50257, 50256
REPEATS = {1: 3, N_TARGETS: 1}  # so many targets: so often


def module() -> GPT2LMHeadModel:
    """The model that all sides are given."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config()).eval()


def tokenizer() -> PreTrainedTokenizerFast:
    """One word for each id."""
    base = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token=f"w{FILLER}"))
    base.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = dict.fromkeys(["eos_token", "unk_token", "pad_token", "bos_token"], f"w{FILLER}")
    return PreTrainedTokenizerFast(tokenizer_object=base, clean_up_tokenization_spaces=False, **special)


def ids() -> tuple[torch.Tensor, torch.Tensor]:
    """The prompt and what follows."""
    both = torch.randint(0, FILLER, (1, N_POS + N_TARGETS), generator=torch.Generator().manual_seed(1))
    return both[:, :N_POS], both[0, N_POS:]


def asked(n: int, steps: int | None = None, own: bool = False) -> Callable[[], xr.DataArray]:
    """A call of this library for so many targets."""
    model = interp.load(module())
    prompt, follow = ids()
    filler = torch.full_like(prompt, FILLER)
    if n == 1:
        metric = metrics.logit(int(follow[0]))
        one = partial(attribution.integrated_gradients, model, prompt, filler, Site("embed"), metric)
        return lambda: one(steps=steps).expand_dims("target")
    baseline: Any = attribution.mean_baseline(model, filler) if own else filler
    return partial(attribution.of_continuation, model, prompt, baseline, follow[:n], steps=steps, own=own)


def ours(n: int, steps: int | None = None, own: bool = False) -> Callable[[], Any]:
    """Attributions (target, pos) by this library."""
    call = asked(n, steps, own)
    return lambda: call().isel(prompt=0).values[:, :N_POS]


def by_captum(n: int) -> Callable[[], Any]:
    """The same by captum: a layer's integrated gradients or, of a continuation, its attribution for language models."""
    from captum.attr import LayerIntegratedGradients, LLMGradientAttribution, TextTokenInput

    model: Any = module()
    prompt, follow = ids()
    if n == 1:
        logits = lambda ids: model(ids).logits[:, -1]
        method = LayerIntegratedGradients(logits, model.transformer.wte)
        filler, target = torch.full_like(prompt, FILLER), int(follow[0])
        return lambda: method.attribute(prompt, baselines=filler, target=target, n_steps=STEPS).sum(-1).detach().numpy()
    words = tokenizer()
    method = LLMGradientAttribution(LayerIntegratedGradients(model, model.transformer.wte), words)
    asked = TextTokenInput(words.decode(prompt[0]), words, baselines=FILLER)
    return lambda: method.attribute(asked, target=follow[:n], n_steps=STEPS).token_attr.numpy()


def by_inseq(n: int) -> Callable[[], Any]:
    """The same by inseq, which has a score for each entry of the embeddings, summed here."""
    import inseq

    words = tokenizer()
    model = inseq.load_model(module(), "integrated_gradients", tokenizer=words)
    prompt, follow = ids()
    asked, answered = words.decode(prompt[0]), words.decode(torch.cat([prompt[0], follow[:n]]))
    of, sign = ("logit", 1) if n == 1 else ("crossentropy", -1)

    def call() -> Any:
        found = model.attribute(asked, answered, n_steps=STEPS, attributed_fn=of, show_progress=False)
        return sign * found.sequence_attributions[0].target_attributions.sum(-1).T[:, :N_POS].numpy()

    return call


SIDES: dict[str, Callable[[int], Callable[[], Any]]] = {
    "this library": ours,
    f"this library, {STEPS} steps": partial(ours, steps=STEPS),
    "captum": by_captum,
} | ({"inseq": by_inseq} if find_spec("inseq") else {})


def nothing(n: int) -> Callable[[], Any]:
    """Only what every side needs: the libraries and the model."""
    interp.load(module())
    return lambda: None


def alone(side: str, n: int) -> dict[str, Any]:
    """Median CPU seconds, peak resident memory (MiB) and the numbers of one side, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.attribution", side, str(n)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(out.splitlines()[-1])


def report(side: str, n: int) -> dict[str, Any]:
    """What `alone` returns; this is the process of its own."""
    call = ({"the model alone": nothing} | SIDES)[side](n)
    times = []
    for _ in range(REPEATS[n]):
        start = process_time()
        found = call()
        times.append(process_time() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": median(times), "memory": memory, "values": None if found is None else np.asarray(found).tolist()}


def table(n: int, sides: dict[str, dict[str, Any]]) -> list[str]:
    """Time, memory and numbers for so many targets, as lines of a table."""
    mine, steps = sides["this library"], int(asked(n)().steps.max())
    references = dict.fromkeys(SIDES, np.array(sides["captum"]["values"]))
    if "inseq" in SIDES and n > 1:
        references["inseq"] = ours(n, steps=STEPS, own=True)()
    rows = []
    for side, reference in references.items():
        found = sides[side]
        off = np.nanmax(np.abs(np.array(found["values"]) - reference)) / np.abs(reference).max()
        ratio = f"{found['seconds'] / mine['seconds']:.1f} x, {found['memory'] / mine['memory']:.1f} x"
        rows.append(f"| {side} | {found['seconds']:.1f} | {found['memory']:.0f} | {ratio} | {off:.1e} |")
    return [
        f"## {n} target{'s' * (n > 1)}",
        "",
        "| | CPU s | peak memory (MiB) | time and memory against ours | largest difference |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"This library took {steps} points. The model and the libraries alone take {sides['the model alone']['memory']:.0f} MiB.",
        "",
    ]


def run(counts: tuple[int, ...] = (1, N_TARGETS)) -> str:
    """Measure, and write the tables."""
    # All of them first: a process inherits the peak of the one that starts it.
    sides = {n: {side: alone(side, n) for side in ["the model alone", *SIDES]} for n in counts}
    head = [
        f"# Integrated gradients at GPT-2 small's size, {N_POS} tokens",
        "",
        f"`python -m benchmarks.attribution`: torch {torch.__version__}, one thread, captum and inseq with {STEPS} steps. The largest",
        "difference is from captum's numbers, as a share of the largest of them; inseq's for several targets, which are",
        f"not of the same quantity, from ours of theirs with {STEPS} steps.",
        "",
    ]
    lines = [*head, *(line for n in counts for line in table(n, sides[n]))]
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text("\n".join(lines))
    return OUT.read_text()


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        print(json.dumps(report(sys.argv[1], int(sys.argv[2]))))
    else:
        print(run())
