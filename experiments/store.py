"""Keep finished runs: payload files first, the manifest last, created exclusively.

A run is there if and only if its manifest is: `EXPERIMENT/KEY.json`, beside the folder of its files,
`EXPERIMENT/KEY.xxxxxxxx/`. A process that is killed leaves a folder without a manifest, which nobody reads and `gc`
removes. Several processes and machines may write at once; of two that finish the same run, the first one's stands.
"""

import errno
import json
import logging
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.storage import upkeep
from experiments.storage.manifests import loaded, manifests, mapping, sealed, sha256, spelled
from experiments.storage.places import Disk, Place
from experiments.storage.records import Run as Run
from experiments.storage.records import combine
from experiments.storage.upkeep import Problem as Problem

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from interp.progress import Progress

log = logging.getLogger(__name__)

FORMAT = 1  # of the manifest
PAGES = "pages"  # the folder for pages beside the runs, which is no experiment
_STAGES, _SWEEPS, _FAILED = ".stages", ".sweeps", ".failed"


def key_of(experiment: str, version: int, settings: Mapping[str, Any], fingerprints: list[str]) -> str:
    """What a run is called by: sixteen hexadecimal digits of all that its numbers depend on."""
    parts = [experiment, version, settings, fingerprints]
    return sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode())[:16]


class Store:
    """All runs below one root: a folder, or an address of object storage such as "s3://bucket/prefix"."""

    def __init__(self, root: str | Path | Place = "runs") -> None:
        self.place = root if isinstance(root, Place) else _open(str(root))
        self.root = str(root)

    def get(self, experiment: str, key: str) -> Run | None:
        """A finished run, or None.

        Raises:
            ValueError: Its manifest is broken.
        """
        name = f"{experiment}/{key}.json"
        try:
            return Run(self.place, loaded(f"{self.root}/{name}", self.place.get(name)))
        except FileNotFoundError:
            return None

    def publish(self, experiment: str, key: str, files: Mapping[str, bytes], record: Mapping[str, Any]) -> Run:
        """Keep a run's files and then its manifest; return the run that is kept, which may be another process's.

        Raises:
            OSError: The disk is full, or cannot be written; nothing is kept then, and what was there stays.
        """
        folder = f"{experiment}/{key}.{uuid.uuid4().hex[:8]}"
        listed = {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in files.items()}
        manifest = {
            **spelled(record),
            "format": FORMAT,
            "experiment": experiment,
            "key": key,
            "folder": folder,
            "files": listed,
        }
        try:
            for name, data in files.items():
                self.place.put(f"{folder}/{name}", data)
            first = self.place.create(f"{experiment}/{key}.json", sealed(manifest))
        except OSError as error:
            self.place.drop(folder)
            raise _explained(error, f"{experiment}/{key}", self.root, sum(map(len, files.values()))) from error
        if first:
            return Run(self.place, manifest)
        self.place.drop(folder)
        winner = self.get(experiment, key)
        if winner is None:
            raise OSError(f"the manifest of {experiment}/{key} was removed while it was read")
        return winner

    def experiments(self) -> list[str]:
        """The names of the experiments that have runs."""
        return [name for name in self.place.listing()[0] if not name.startswith(".") and name != PAGES]

    def runs(self, experiment: str = "", sweep: str = "") -> list[Run]:
        """All finished runs, of one experiment or of one sweep if these are named, oldest first.

        A manifest that cannot be read is left out, with a warning in the log; `verify` names it.
        """
        wanted = self._members(sweep) if sweep else None
        found = []
        for name, manifest in manifests(self.place, [experiment] if experiment else self.experiments()):
            if manifest is None:
                log.warning("%s cannot be read; `python -m experiments verify` says more", name)
            elif wanted is None or f"{manifest['experiment']}/{manifest['key']}" in wanted:
                found.append(Run(self.place, manifest))
        return sorted(found, key=lambda run: run.manifest.get("finished", 0))

    def find(self, text: str) -> Run:
        """The run whose key begins so; "EXPERIMENT/KEY" is understood as well.

        Raises:
            ValueError: There is none, or more than one.
        """
        experiment, _, prefix = text.rpartition("/")
        names = [
            (home, file.removesuffix(".json"))
            for home in ([experiment] if experiment else self.experiments())
            for file in self.place.listing(home)[1]
            if file.endswith(".json") and file.startswith(prefix)
        ]
        if len(names) == 1 and (run := self.get(*names[0])) is not None:
            return run
        some = ", ".join("/".join(name) for name in names[:5])
        hint = f": {some}; give more digits" if names else "; `python -m experiments list` shows what there is"
        raise ValueError(f"{len(names)} runs in {self.root} begin with {prefix!r}{hint}")

    def frame(self, experiment: str = "", sweep: str = "") -> "pd.DataFrame":
        """One row a run: key, options, numbers, how its checks ended, seconds; see `runs`."""
        import pandas as pd

        return pd.DataFrame([run.row() for run in self.runs(experiment, sweep)])

    def dataset(self, array: str, experiment: str = "", sweep: str = "") -> "xr.DataArray | xr.Dataset":
        """One array of all runs, with an axis for every option in which they differ; see `runs`."""
        return combine(self.runs(experiment, sweep), array)

    def begin_sweep(self, sweep: str, record: Mapping[str, Any]) -> None:
        """Note what a sweep is; one that goes on keeps its first note."""
        self.place.create(f"{_SWEEPS}/{sweep}.json", json.dumps(record).encode())

    def join_sweep(self, sweep: str, run: Run) -> None:
        """Note that a finished run is a point of a sweep."""
        self.place.create(f"{_SWEEPS}/{sweep}/{run.name}", b"")

    def sweeps(self) -> dict[str, dict[str, Any]]:
        """What each sweep is; a note that cannot be read is left out, with a warning in the log."""
        names = [f"{_SWEEPS}/{file}" for file in self.place.listing(_SWEEPS)[1] if file.endswith(".json")]
        found = {name: mapping(data) for name, data in self.place.get_all(names)}
        for name in (name for name, note in found.items() if not note):
            log.warning("%s/%s cannot be read; remove it, and start the sweep again to note it anew", self.root, name)
        return {Path(name).stem: note for name, note in found.items() if note}

    def keep_stage(self, experiment: str, key: str, files: Mapping[str, bytes], record: Mapping[str, Any]) -> None:
        """Keep a part of a run that failed later, so that it need not be computed again."""
        self.publish(f"{_STAGES}/{experiment}", key, files, record)

    def stage(self, experiment: str, key: str) -> Run | None:
        """What `keep_stage` kept."""
        return self.get(f"{_STAGES}/{experiment}", key)

    def drop_stage(self, experiment: str, key: str) -> None:
        """Forget what `keep_stage` kept, the run being whole now."""
        if stage := self.stage(experiment, key):
            self.place.delete(f"{_STAGES}/{experiment}/{key}.json")
            self.place.drop(stage.manifest["folder"])

    def keep_failure(self, experiment: str, key: str, text: str) -> str:
        """Keep the log of a run that failed; return the name of its file."""
        name = f"{_FAILED}/{experiment}/{key}.{uuid.uuid4().hex[:8]}.log"
        self.place.put(name, text.encode())
        return name

    def verify(self, progress: "Progress" = None) -> list[Problem]:
        """Read every file of every run again, compare it with its hash, and name those that differ."""
        from interp.progress import bar

        homes = self.experiments()
        total = sum(name.endswith(".json") for home in homes for name in self.place.listing(home)[1])
        found: list[Problem] = []
        with bar(total, "runs", progress) as advance:
            for wrong in upkeep.problems(self.place, homes):
                found += wrong
                advance(1)
        return found

    def gc(self, older_than: float = 86400.0, dry: bool = False) -> list[str]:
        """Remove what killed processes left and nobody wrote to for so many seconds; return what that was.

        Finished runs are never removed.
        """
        homes = [*self.experiments(), *(f"{_STAGES}/{name}" for name in self.place.listing(_STAGES)[0])]
        found = [*upkeep.orphans(self.place, homes, older_than), *upkeep.drafts(self.place, PAGES, older_than)]
        for name in [] if dry else found:
            (self.place.drop if name.endswith("/") else self.place.delete)(name.rstrip("/"))
        return found

    def _members(self, sweep: str) -> set[str]:
        base = f"{_SWEEPS}/{sweep}"
        known = [name.removesuffix(".json") for name in self.place.listing(_SWEEPS)[1]]
        if sweep not in known:
            raise ValueError(f"there is no sweep {sweep!r} in {self.root}; there is {', '.join(known) or 'none'}")
        return {
            f"{home}/{key}" for home in self.place.listing(base)[0] for key in self.place.listing(f"{base}/{home}")[1]
        }


def _open(root: str) -> Place:
    if "://" in root:
        from experiments.storage.bucket import open_bucket

        return open_bucket(root)
    folder = Path(root).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"a store is a folder or an address such as s3://bucket/prefix; {root} is a file")
    return Disk(folder)


def _explained(error: OSError, name: str, root: str, size: int) -> OSError:
    what = f"{root} cannot be written: {error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        what = f"there is no room for {size / 1e6:.1f} MB in {root}; free some and start again"
    return OSError(error.errno or errno.EIO, f"run {name} was not kept: {what}. Finished runs stay as they are")
