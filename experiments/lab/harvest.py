"""Activations of a large corpus, in shards: each is kept as it is finished, so that what was killed goes on from there."""

import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

from experiments.lab.fingerprints import identify
from experiments.lab.options import OnModel
from experiments.lab.provenance import provenance
from experiments.lab.subjects import open_model
from experiments.storage import payload
from experiments.storage.records import Run
from experiments.store import Store, key_of

if TYPE_CHECKING:
    from torch import Tensor

    from interp import Site
    from interp.progress import Progress

NAME = "activations"
VERSION = 1
Precision = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Harvest:
    """Activations at some sites of every token of a corpus, padding left out, in the order of its texts.

    Attributes:
        shards: One stored run each; its tensors are the sites, and `ids`, `text` and `pos` of each token.
    """

    shards: Sequence[Run]

    def __len__(self) -> int:
        """How many tokens there are."""
        return sum(self._sizes)

    def tensors(self) -> Iterator[dict[str, "Tensor"]]:
        """The tensors of one shard after the other: sites are (token, *rest), the others (token,)."""
        for shard in self.shards:
            yield shard.arrays

    def rows(self, name: str, tokens: Sequence[int]) -> "Tensor":
        """Some tokens of a site, or of `ids`, `text` or `pos`, in the order given; shards on a disk are not read whole.

        Raises:
            IndexError: A token that there is not.
        """
        import torch

        if not tokens or min(tokens) < 0 or max(tokens) >= len(self):
            raise IndexError(f"tokens run from 0 to {len(self) - 1}; asked for {list(tokens)[:5]}")
        starts = [0, *accumulate(self._sizes)]
        places = [bisect_right(starts, token) - 1 for token in tokens]
        found: dict[int, Tensor] = {}
        for shard in set(places):
            mine = [i for i, place in enumerate(places) if place == shard]
            part = _open(self.shards[shard], name)[[tokens[i] - starts[shard] for i in mine]]
            found |= dict(zip(mine, part))
        return torch.stack([found[i] for i in range(len(tokens))])

    @property
    def _sizes(self) -> list[int]:
        return [int(shard.numbers["tokens"]) for shard in self.shards]


def harvest(
    cfg: OnModel,
    texts: Sequence[str],
    sites: Sequence[str],
    store: Store | None = None,
    shard: int = 256,
    batch: int = 32,
    precision: Precision = "float16",
    on: str = "here",
    jobs: int = -1,
    progress: "Progress" = None,
) -> Harvest:
    """Run a corpus through a model and keep what it leaves at some sites.

    Args:
        cfg: The model; `n`, `seed` and `data` are not used.
        sites: Such as "resid_post.2"; each needs a position axis.
        shard: How many texts a stored shard covers: what is lost when a process is killed.
        batch: How many texts are run at once.
        on, jobs: See `experiments.lab.parallel.parallel`.

    Raises:
        ValueError: No texts; a site that the model does not have, or without positions.
    """
    from experiments.lab.parallel import parallel

    store, model = Store() if store is None else store, open_model(cfg)
    chosen = [_site(name) for name in sites]
    model.check(chosen)
    if flat := [str(site) for site in chosen if "pos" not in site.axes]:
        raise ValueError(f"{flat[0]} has no position axis, so that it has no value for each token; leave it out")
    if not texts or not chosen or shard < 1 or batch < 1:
        raise ValueError(
            f"a harvest needs texts, sites and sizes from 1 on; given {len(texts)} texts, {sites}, {shard}, {batch}"
        )
    prints, models = identify([model])
    settings = {"sites": [str(site) for site in chosen], "precision": precision}
    starts = range(0, len(texts), shard)
    keys = [_key(settings, prints, texts[start : start + shard], start) for start in starts]
    missing = [
        (start, key, texts[start : start + shard]) for start, key in zip(starts, keys) if store.get(NAME, key) is None
    ]
    work = partial(_shard, cfg=cfg, batch=batch, settings=settings, models=models, store=store)
    parallel(work, missing, on, jobs, progress)
    return Harvest([run for key in keys if (run := store.get(NAME, key)) is not None])


def _shard(
    item: tuple[int, str, Sequence[str]],
    cfg: OnModel,
    batch: int,
    settings: dict[str, Any],
    models: Any,
    store: Store,
) -> None:
    """Run one shard's texts and keep what they leave."""
    import torch

    begun, (start, key, mine), model = time.perf_counter(), item, open_model(cfg)
    sites = [_site(name) for name in settings["sites"]]
    parts: dict[str, list[Any]] = {name: [] for name in [*settings["sites"], "ids", "text", "pos"]}
    for first in range(0, len(mine), batch):
        trace = model.run(mine[first : first + batch], read=sites, last_only=True)
        real = trace.tokens.mask.bool()
        number = torch.arange(start + first, start + first + len(real), device=real.device)
        own = {"ids": trace.tokens.ids, "text": number[:, None].expand_as(real), "pos": trace.tokens.positions}
        for name, tensor in own.items():
            parts[name].append(tensor[real].int().cpu())
        for name, site in zip(settings["sites"], sites):
            parts[name].append(trace[site][real].to("cpu", getattr(torch, settings["precision"])))
    tensors = {name: torch.cat(some) for name, some in parts.items()}
    files, kinds = payload.encode(tensors, {}, "")
    record = {
        "question": "What does a model hold at each token of a corpus?", "config": {**settings, "model": cfg.model, "start": start},
        "kinds": kinds, "numbers": {"tokens": len(tensors["ids"])}, "models": models, "version": VERSION,
        "seconds": time.perf_counter() - begun, "finished": time.time(), "made": provenance(),
    }  # fmt: skip
    store.publish(NAME, key, files, record)


def _key(settings: dict[str, Any], prints: list[str], texts: Sequence[str], start: int) -> str:
    return key_of(NAME, VERSION, {**settings, "start": start}, [*prints, *identify([list(texts)])[0]])


def _open(run: Run, name: str) -> "Tensor":
    """One tensor of a shard, mapped from the disk if it lies on one."""
    from safetensors import safe_open

    path = run.place.path(f"{run.manifest['folder']}/{payload.TENSORS}")
    if path is None:
        return run.load(name)  # type: ignore[no-any-return]
    with safe_open(path, "pt") as file:
        return file.get_tensor(name)  # type: ignore[no-any-return]


def _site(name: str) -> "Site":
    from interp import Site

    kind, _, layer = name.partition(".")
    return Site(kind, int(layer)) if layer else Site(kind)
