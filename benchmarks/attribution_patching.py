"""How fast attribution patching is beside TransformerLens, on the same weights: `python -m benchmarks.attribution_patching`.

TransformerLens has no function for it; its peer here is what its demonstration writes: a cached run of the clean
prompt, a run of the corrupt prompt that caches activations and gradients, and the product of change and gradient.
"""

import argparse
import platform
import warnings
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

import interp
from benchmarks.patching import RESULTS, Setting, median, settings, table
from interp import Model, attribution_patching

HOOKS = {"q": "attn.hook_q", "k": "attn.hook_k", "v": "attn.hook_v", "z": "attn.hook_z"}


def ours(setting: Setting, kinds: Sequence[str]) -> Tensor:
    """Estimated changes (kind, layer, pos, head)."""
    model = setting.model
    sites = [site for kind in kinds for site in model.sites(kind)]
    pair = setting.clean, setting.corrupt, sites, setting.metric
    found = attribution_patching.estimate(model, *pair, over=["pos", "head"], normalize=False)
    return torch.from_numpy(found.values).reshape(len(kinds), model.shape.n_layers, -1, model.shape.n_heads)


def transformer_lens(bridge: Model, setting: Setting, kinds: Sequence[str]) -> Tensor:
    """The same by hooks on TransformerLens's model."""
    tl = bridge.module
    names = [f"blocks.{layer}.{HOOKS[kind]}" for kind in kinds for layer in range(bridge.shape.n_layers)]
    with torch.no_grad():
        _, clean = tl.run_with_cache(setting.clean.ids, prepend_bos=False, names_filter=lambda name: name in names)
    corrupt: dict[str, Tensor] = {}
    slopes: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: object, name: str) -> None:
        corrupt[name] = value.detach()

    def keep_slope(value: Tensor, hook: object, name: str) -> None:
        slopes[name] = value

    forward = [(name, partial(keep, name=name)) for name in names]
    backward = [(name, partial(keep_slope, name=name)) for name in names]
    with tl.hooks(fwd_hooks=forward, bwd_hooks=backward):
        logits = tl(setting.corrupt.ids, prepend_bos=False)
        setting.metric.of(logits[:, -1])[0].backward()
    tl.zero_grad()
    parts = [((clean[name] - corrupt[name]) * slopes[name]).sum(-1)[0] for name in names]
    return torch.stack(parts).unflatten(0, (len(kinds), -1)).detach().cpu()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows = []
    for setting in settings(args.device)[1::2]:
        bridge = interp.load(setting.model.module, backend="transformer_lens")
        for kinds in (["z"], list(HOOKS)):
            difference = (ours(setting, kinds) - transformer_lens(bridge, setting, kinds)).abs().max()
            quick = median(partial(ours, setting, kinds), args.repeats)
            slow = median(partial(transformer_lens, bridge, setting, kinds), args.repeats)
            times = f"{1000 * quick:,.0f} ms", f"{1000 * slow:,.0f} ms", f"{slow / quick:.1f}x"
            rows.append([setting.name, ", ".join(kinds), *times, f"{difference:.0e}"])
            print(" | ".join(rows[-1]), flush=True)
    head = [
        "setting",
        "kinds, layer x position x head",
        "this library",
        "TransformerLens 4.3",
        "ratio",
        "largest difference",
    ]
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads; torch {torch.__version__}"
    text = f"# Attribution patching\n\n{machine}. Medians of {args.repeats} runs.\n\n" + table(head, rows)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"attribution_patching-{args.device}.md").write_text(text)


if __name__ == "__main__":
    main()
