"""A finished run, as it is read from a store."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.storage import payload
from experiments.storage.manifests import restored, sha256
from experiments.storage.places import Place

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Run:
    """One run: its manifest, and its files on demand."""

    place: Place
    manifest: Mapping[str, Any]

    @property
    def experiment(self) -> str:
        """The experiment that it is a run of."""
        return str(self.manifest["experiment"])

    @property
    def key(self) -> str:
        """The hash of all that its numbers depend on."""
        return str(self.manifest["key"])

    @property
    def name(self) -> str:
        """Experiment and key, by which `Store.find` finds it."""
        return f"{self.experiment}/{self.key}"

    @property
    def config(self) -> dict[str, Any]:
        """The options that its numbers depend on."""
        return dict(restored(self.manifest["config"]))

    @property
    def where(self) -> dict[str, Any]:
        """The options that say where and how it was run."""
        return dict(restored(self.manifest.get("where", {})))

    @property
    def changed(self) -> dict[str, Any]:
        """The options that were not left at their defaults."""
        return dict(restored(self.manifest.get("changed", {})))

    @property
    def question(self) -> str:
        """What was asked."""
        return str(self.manifest.get("question", ""))

    @property
    def answer(self) -> str:
        """The answer in words."""
        return str(self.manifest.get("answer", ""))

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers by which it is compared; NaN where there is none."""
        return {name: _number(value) for name, value in restored(self.manifest.get("numbers", {})).items()}

    @property
    def checks(self) -> list[dict[str, Any]]:
        """The checks of its arrays, as rows."""
        rows = restored(self.manifest.get("checks", []))
        return [row | {name: _number(row[name]) for name in ("value", "threshold")} for row in rows]

    @property
    def seconds(self) -> float:
        """How long it took."""
        return float(self.manifest.get("seconds", float("nan")))

    def read(self, file: str) -> bytes:
        """One of its files.

        Raises:
            ValueError: There is no such file in this run; it is not what it was when the run was kept.
        """
        if file not in self.manifest["files"]:
            raise ValueError(f"{self.name} has no file {file!r}; it has {', '.join(self.manifest['files'])}")
        path, wanted = f"{self.manifest['folder']}/{file}", self.manifest["files"][file]
        try:
            data = self.place.get(path)
        except FileNotFoundError:
            data = None
        if data is None or sha256(data) != wanted["sha256"]:
            what = (
                "is missing"
                if data is None
                else f"has changed since it was kept ({len(data)} bytes, once {wanted['bytes']})"
            )
            raise ValueError(f"{path} {what}; remove {self.name}.json from the store, and the run is computed again")
        return data

    @property
    def lost(self) -> list[str]:
        """Its files that are missing or of another size, found without reading them; `Store.verify` reads them."""
        sizes = {entry.name: entry.bytes for entry in self.place.entries(self.manifest["folder"])}
        paths = {f"{self.manifest['folder']}/{file}": said["bytes"] for file, said in self.manifest["files"].items()}
        return [path for path, size in paths.items() if sizes.get(path) != size]

    def names(self, kind: str) -> list[str]:
        """The names of its arrays, datasets, tensors, figures or tables: `names("figure")`."""
        return [name for part in self._kinds.values() for name, is_kind in part.items() if is_kind == kind]

    def load(self, name: str) -> Any:
        """An array, data set or tensor by its name.

        Raises:
            ValueError: The run has nothing of this name.
        """
        return self._decoded("arrays", name)

    def show(self, name: str) -> Any:
        """A figure (plotly) or a table (pandas) by its name.

        Raises:
            ValueError: The run has nothing of this name.
        """
        return self._decoded("shown", name)

    @property
    def arrays(self) -> dict[str, Any]:
        """All arrays, data sets and tensors: what `run` returned."""
        return {name: self.load(name) for name in self._kinds["arrays"]}

    @property
    def shown(self) -> dict[str, Any]:
        """All figures and tables: what `draw` returned."""
        return {name: self.show(name) for name in self._kinds["shown"]}

    @property
    def log(self) -> str:
        """What it logged, and its warnings."""
        return self.read(payload.LOG).decode()

    @property
    def _kinds(self) -> Mapping[str, Mapping[str, str]]:
        return self.manifest.get("kinds", {"arrays": {}, "shown": {}})  # type: ignore[no-any-return]

    def _decoded(self, part: str, name: str) -> Any:
        kinds = self._kinds[part]
        if name not in kinds:
            raise ValueError(f"{self.name} has no {name!r}; it has {', '.join(kinds) or 'none'}")
        found = payload.decode(kinds[name], self.read(payload.file_of(name, kinds[name])))
        return found[name] if kinds[name] == "tensor" else found

    def row(self) -> dict[str, Any]:
        """What a data frame of runs shows of it."""
        statuses = [check["status"] for check in self.checks]
        ended = next((status for status in ("fail", "warn", "pass") if status in statuses), "")
        started = {"key": self.key, "experiment": self.experiment}
        options = {name: json.dumps(value) if isinstance(value, list) else value for name, value in self.config.items()}
        return {**started, **options, **self.numbers, "checks": ended, "seconds": self.seconds}


def differing(runs: Sequence[Run]) -> list[str]:
    """The options in which runs differ."""
    names = list(dict.fromkeys(name for run in runs for name in run.config))
    return [name for name in names if len({json.dumps(run.config.get(name)) for run in runs}) > 1]


def combine(runs: Sequence[Run], array: str) -> "xr.DataArray | xr.Dataset":
    """One array of several runs, with an axis for each option in which they differ; NaN where a run is missing.

    Raises:
        ValueError: No runs; runs of several experiments.
    """
    import xarray as xr

    if len({run.experiment for run in runs}) != 1:
        raise ValueError(f"arrays of one experiment can be combined, not of {len({run.experiment for run in runs})}")
    labels = {axis: _labels([run.config.get(axis) for run in runs]) for axis in differing(runs)}
    parts = []
    for i, run in enumerate(runs):
        at = {axis: [names[i]] for axis, names in labels.items()}
        part = run.load(array)
        parts.append((part.to_dataset(name=array) if isinstance(part, xr.DataArray) else part).expand_dims(at))
    joined: xr.Dataset = xr.combine_by_coords(parts, combine_attrs="drop_conflicts", join="outer")  # type: ignore[assignment]
    return joined[array] if isinstance(part, xr.DataArray) else joined


def _number(value: Any) -> float:
    return float("nan") if value is None else value


def _labels(values: Sequence[Any]) -> list[Any]:
    """Values of an option as labels of an axis: all of them numbers, or all of them text."""
    if all(isinstance(value, int | float) for value in values):
        return list(values)
    return [value if isinstance(value, str) else json.dumps(value) for value in values]
