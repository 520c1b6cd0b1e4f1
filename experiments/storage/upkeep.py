"""Upkeep of a store: whether every file is what it was, and what killed processes left."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from experiments.storage.manifests import manifests, sha256
from experiments.storage.places import Place

_OURS = re.compile(r"/[0-9a-f]{16}\.[0-9a-f]{8}$")  # a run's folder: its key, and what tells apart who wrote it
_BEGUN = re.compile(r"\.(json|html|log)\.[0-9a-f]{8}\.tmp$")  # a file that was to get its name when it was whole


@dataclass(frozen=True)
class Problem:
    """A file that is not what its manifest says, and what is wrong with it."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def problems(place: Place, experiments: list[str]) -> Iterator[list[Problem]]:
    """What is wrong with each run, every file of which is read again; an empty list if nothing is."""
    for name, manifest in manifests(place, experiments):
        if manifest is None:
            yield [Problem(name, "the manifest is corrupted")]
        else:
            yield list(_wrong_files(place, manifest))


def orphans(place: Place, homes: list[str], older_than: float) -> Iterator[str]:
    """Folders (which end in a slash) and drafts that belong to no run and were not written for so many seconds.

    Only what has a name that a run's files are given: whatever else lies there is somebody's own. A folder that may
    belong to a corrupted manifest is none of them.
    """
    for home in homes:
        found = list(manifests(place, [home]))
        kept = {manifest["folder"] for _, manifest in found if manifest}
        broken = {name.removesuffix(".json") for name, manifest in found if manifest is None}
        for name in [f"{home}/{folder}" for folder in place.listing(home)[0]]:
            free = _OURS.search(name) and name not in kept and name.rpartition(".")[0] not in broken
            if free and time.time() - place.written(name) > older_than:
                yield f"{name}/"
        yield from drafts(place, home, older_than)


def drafts(place: Place, home: str, older_than: float) -> Iterator[str]:
    """What was begun in a folder, never got its name, and was not written for so many seconds."""
    for name in [f"{home}/{file}" for file in place.listing(home)[1] if _BEGUN.search(file)]:
        if time.time() - place.written(name) > older_than:
            yield name


def _wrong_files(place: Place, manifest: Mapping[str, Any]) -> Iterator[Problem]:
    for name, wanted in manifest["files"].items():
        path = f"{manifest['folder']}/{name}"
        try:
            data = place.get(path)
        except OSError as error:
            yield Problem(path, "missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}")
            continue
        if len(data) != wanted["bytes"]:
            yield Problem(path, f"{len(data)} bytes, not {wanted['bytes']}")
        elif sha256(data) != wanted["sha256"]:
            yield Problem(path, "its content has changed")
