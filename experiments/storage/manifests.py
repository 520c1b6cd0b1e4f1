"""The text of manifests: sealed with a hash of themselves, and read back."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.storage.places import Place

_NEEDED = {"experiment", "key", "folder", "files"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sealed(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as text, with a hash of the rest in it."""
    return json.dumps({**manifest, "seal": _seal(manifest)}, indent=1).encode()


def spelled(value: Any) -> Any:
    """A value as strict JSON can hold it: tuples are lists, infinities and NaN are words that `restored` reads."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, Mapping):
        return {str(name): spelled(part) for name, part in value.items()}
    return [spelled(part) for part in value] if isinstance(value, list | tuple) else value


def restored(value: Any) -> Any:
    """What `spelled` spelled."""
    if isinstance(value, Mapping):
        infinite = value.keys() == {"float"} and value["float"] in ("inf", "-inf", "nan")
        return float(value["float"]) if infinite else {name: restored(part) for name, part in value.items()}
    return [restored(part) for part in value] if isinstance(value, list) else value


def is_sealed(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest is as it was written."""
    rest = {name: value for name, value in manifest.items() if name != "seal"}
    return bool(manifest.get("seal") == _seal(rest))


def manifests(place: Place, experiments: list[str]) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Every manifest with its file's name; None for one that cannot be read."""
    for experiment in experiments:
        files = place.listing(experiment)[1]
        names = [f"{experiment}/{file}" for file in files if file.endswith(".json")]
        for name, data in place.get_all(names):
            yield name, parsed(data)


def parsed(data: bytes) -> dict[str, Any] | None:
    """A manifest's content, or None if it is not as it was written."""
    manifest = mapping(data)
    return manifest if manifest.keys() >= _NEEDED and is_sealed(manifest) else None


def mapping(data: bytes) -> dict[str, Any]:
    """The JSON object that a file holds; nothing, if it holds none."""
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def loaded(name: str, data: bytes) -> dict[str, Any]:
    """A manifest's content.

    Raises:
        ValueError: It is not as it was written.
    """
    if (manifest := parsed(data)) is None:
        raise ValueError(
            f"{name} is no manifest of a run: {len(data)} bytes that were cut short or changed. Remove this file, and "
            "the run is computed again; `python -m experiments verify` names others"
        )
    return manifest


def _seal(manifest: Mapping[str, Any]) -> str:
    return sha256(json.dumps(manifest, sort_keys=True).encode())
