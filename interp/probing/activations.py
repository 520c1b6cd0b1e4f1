"""Activations for probes: the model is run once over the prompts, in batches, and only what is probed is kept."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from interp.arguments import check_finite
from interp.model import Model, Prompts
from interp.precision import widened
from interp.progress import Progress, bar
from interp.sites import Site

At = int | str
_INDEX = "activations.json"


@dataclass(frozen=True)
class Place:
    """Where a probe reads: a site, a position (an index or a role) and, if heads are told apart, a head."""

    site: Site
    at: At
    head: int | None = None


@dataclass(frozen=True)
class Activations:
    """What some sites held at some positions of every prompt.

    Attributes:
        sites: Of one kind.
        at: The positions: indices, or roles of the prompts.
        n_heads: How many heads are told apart; 0 if the kind has none or all of them are read together.
        n: The number of prompts.
        shards: For each part of the prompts, a tensor (prompt, at, *rest) by the name of the site; or the file of such.
    """

    sites: Sequence[Site]
    at: Sequence[At]
    n_heads: int
    n: int
    shards: Sequence[Mapping[str, Tensor] | Path]

    def __repr__(self) -> str:
        heads = f" of {self.n_heads} heads" if self.n_heads else ""
        return f"Activations({self.n} prompts at {', '.join(map(str, self.sites))}{heads}; positions: {list(self.at)})"

    def __len__(self) -> int:
        return self.n

    @property
    def places(self) -> list[Place]:
        """Every place, layer by layer, then position by position, then head by head."""
        heads: Sequence[int | None] = range(self.n_heads) if self.n_heads else [None]
        return [Place(site, at, head) for site in self.sites for at in self.at for head in heads]

    @property
    def coords(self) -> dict[str, list]:
        """Labels of the axes in which `places` are laid out."""
        named: dict[str, list] = {"layer": [site.layer for site in self.sites], "pos": [str(at) for at in self.at]}
        return named | ({"head": list(range(self.n_heads))} if self.n_heads else {})

    def at_place(self, place: Place) -> Float[Tensor, "prompt d"]:
        """The features of one place; read from the disk, if that is where they are."""
        i = list(self.at).index(place.at)
        parts = []
        for shard in self.shards:
            value = _slice(shard, str(place.site), i)
            parts.append((value if place.head is None else value[:, place.head]).flatten(1))
        return torch.cat(parts)

    def blocks(
        self, at: At, device: torch.device, budget: int = 2**28
    ) -> Iterator[tuple[list[int], Float[Tensor, "site prompt d"]]]:
        """The places at one position, by number and as features in single precision or better, some bytes at a time."""
        numbered = [(i, place) for i, place in enumerate(self.places) if place.at == at]
        step = max(1, budget // max(self.at_place(numbered[0][1]).numel() * 4, 1))
        for first in range(0, len(numbered), step):
            part = numbered[first : first + step]
            stacked = torch.stack([self.at_place(place).to(device) for _, place in part])
            for (_, place), x in zip(part, stacked):
                check_finite(x, f" at {place.site}, {at!r}")
            yield [i for i, _ in part], widened(stacked)


@torch.no_grad()
def collect(
    model: Model,
    prompts: Prompts,
    sites: Sequence[Site],
    at: Sequence[At] = (-1,),
    heads: bool = False,
    folder: str | Path | None = None,
    budget: int = 2**31,
    batch: int = 64,
    progress: Progress = None,
) -> Activations:
    """Run the prompts once and keep some sites at some positions.

    Args:
        sites: Of one kind, such as `model.sites("resid_post")`.
        at: Positions, as indices or as roles of the prompts.
        heads: Tell heads apart, in a kind that has them; else they are read as one vector.
        folder: Where to keep the activations, in safetensors files that are mapped into memory when they are read; an
            empty or new folder. By default they stay in memory.
        budget: Bytes that may be kept in memory, and that a file holds.
        batch: Prompts that are run at a time.

    Raises:
        ValueError: Sites of several kinds, none, or without positions; heads of a kind that has none; more activations
            than `budget` and no folder; a folder that holds something.
    """
    tokens = model.tokens(prompts)
    _check(sites, at, heads)
    model.check(sites)
    target = _new_folder(folder)
    shards: list[Mapping[str, Tensor] | Path] = []
    pending: list[dict[str, Tensor]] = []
    with bar(len(tokens), "prompts", progress) as advance:
        for start in range(0, len(tokens), batch):
            part = tokens.rows(slice(start, start + batch))
            trace = model.run(part, read=sites, last_only=True)
            pending.append({str(site): torch.stack([trace.at(site, p) for p in at], 1) for site in sites})
            one = sum(value.numel() * value.element_size() for value in pending[-1].values())
            _check_size(one / len(part) * len(tokens), budget, target)
            if target is not None and one * (len(pending) + 1) > budget:
                shards.append(_write(pending, target, len(shards)))
                pending = []
            advance(len(part))
    if pending:
        shards.append(_joined(pending) if target is None else _write(pending, target, len(shards)))
    n_heads = trace[sites[0]].shape[2] if heads else 0
    found = Activations(list(sites), list(at), n_heads, len(tokens), shards)
    if target is not None:
        _write_index(found, target, model)
    return found


def activations_of(
    model: Model, prompts: Prompts, sites: Sequence[Site], at: Sequence[At], heads: bool, kept: Activations | None
) -> Activations:
    """Activations that were kept, if they are these; else of a run.

    Raises:
        ValueError: Activations of other sites, positions or heads, or of another number of prompts.
    """
    if kept is None:
        return collect(model, prompts, sites, at, heads)
    asked = [str(site) for site in sites], list(at), heads, len(model.tokens(prompts))
    given = [str(site) for site in kept.sites], list(kept.at), bool(kept.n_heads), len(kept)
    if asked != given:
        raise ValueError(f"activations are of (sites, at, heads, prompts) {given}, but {asked} were asked for")
    return kept


def load(folder: str | Path) -> Activations:
    """Activations that `collect` has kept in a folder.

    Raises:
        FileNotFoundError: A folder without them.
    """
    path = Path(folder) / _INDEX
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r} holds no activations; collect(..., folder=) writes them")
    known = json.loads(path.read_text())
    sites = [Site(kind, layer) for kind, layer in known["sites"]]
    return Activations(sites, known["at"], known["n_heads"], known["n"], [Path(folder) / f for f in known["files"]])


def _check(sites: Sequence[Site], at: Sequence[At], heads: bool) -> None:
    if not sites:
        raise ValueError("no sites were given to probe; give some, such as model.sites('resid_post')")
    if len(kinds := {site.kind for site in sites}) > 1:
        raise ValueError(f"one kind of site is probed at a time, not {', '.join(sorted(kinds))}")
    if not at or len(set(at)) != len(at):
        raise ValueError(f"positions are read once each, and at least one; at={tuple(at)}")
    if heads and "head" not in sites[0].axes:
        raise ValueError(f"{sites[0].kind} has no heads; its axes are {', '.join(sites[0].axes)}")
    if "pos" not in sites[0].axes:
        raise ValueError(f"{sites[0]} has no position axis; its axes are {', '.join(sites[0].axes)}")


def _check_size(size: float, budget: int, target: Path | None) -> None:
    if target is None and size > budget:
        raise ValueError(
            f"the activations take {size / 2**30:.1f} GiB, more than budget={budget / 2**30:.1f} GiB; give folder= to "
            f"keep them on disk, or fewer sites"
        )


def _new_folder(folder: str | Path | None) -> Path | None:
    if folder is None:
        return None
    target = Path(folder)
    if target.exists() and any(target.iterdir()):
        raise ValueError(f"{str(folder)!r} is not empty; give another folder, or load({str(folder)!r}) what it holds")
    target.mkdir(parents=True, exist_ok=True)
    return target


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]).contiguous() for name in parts[0]}


def _write(parts: Sequence[Mapping[str, Tensor]], folder: Path, number: int) -> Path:
    from safetensors.torch import save_file

    path = folder / f"activations-{number:05d}.safetensors"
    save_file({name: value.cpu() for name, value in _joined(parts).items()}, path)
    return path


def _write_index(found: Activations, folder: Path, model: Model) -> None:
    known = {
        "sites": [(site.kind, site.layer) for site in found.sites],
        "at": list(found.at),
        "n_heads": found.n_heads,
        "n": found.n,
        "files": [shard.name for shard in found.shards if isinstance(shard, Path)],
        "model": model.name,
        "weights": model.fingerprint(),
    }
    (folder / _INDEX).write_text(json.dumps(known, indent=1))


def _slice(shard: Mapping[str, Tensor] | Path, name: str, i: int) -> Float[Tensor, "prompt *rest"]:
    if not isinstance(shard, Path):
        return shard[name][:, i]
    from safetensors import safe_open

    with safe_open(shard, "pt") as file:  # maps the file: only what is asked for is read
        return file.get_slice(name)[:, i]
