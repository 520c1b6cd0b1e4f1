"""A steering vector as an artefact: tensors in safetensors, all else in JSON beside them, and a hash of both."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp.arguments import check_folder
from interp.arrays import Check
from interp.sites import Site
from interp.steering.vector import Vector, Vectors, many

FORMAT = "interp steering vector 1"
_TENSORS = ("writer", "reader", "mean")
_NUMBERS = ("sigma", "norm", "threshold", "head", "at")


def content_hash(vectors: Vectors, receipts: Mapping[str, Any] | None = None) -> str:
    """A hash of all that is saved, the same in every process: sixteen hexadecimal digits."""
    tensors, words = _tensors(vectors), _words(vectors, receipts)
    digest = hashlib.sha256(json.dumps(words, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def save(vectors: Vectors, path: str | Path, receipts: Mapping[str, Any] | None = None) -> str:
    """Write `path.safetensors` and `path.json`, and return the content hash, which is in the JSON too.

    Args:
        path: Without a suffix.
        receipts: What was measured with the vectors, as plain values, such as the `attrs` of `evaluate`.

    Raises:
        ValueError: A path with a suffix; receipts that JSON cannot hold.
        FileNotFoundError: A folder that is not there.
    """
    path = _stem(path)
    check_folder(path)
    try:
        words = _words(vectors, receipts)
    except TypeError as error:
        raise ValueError(f"receipts are plain values, as attrs are: {error}") from None
    code = content_hash(vectors, receipts)
    save_file(_tensors(vectors), path.with_name(path.name + ".safetensors"))
    path.with_name(path.name + ".json").write_text(json.dumps({**words, "hash": code}, indent=1) + "\n")
    return code


def load(path: str | Path) -> tuple[list[Vector], dict[str, Any]]:
    """Vectors and receipts from files that `save` wrote.

    Raises:
        FileNotFoundError: One of the two files is missing.
        ValueError: Another format; contents that are not those of the hash.
    """
    path = _stem(path)
    files = [path.with_name(path.name + suffix) for suffix in (".json", ".safetensors")]
    if missing := [file.name for file in files if not file.is_file()]:
        raise FileNotFoundError(f"there is no file {missing[0]!r} in {str(path.parent)!r}; both are written by save")
    words = json.loads(files[0].read_text())
    if words.get("format") != FORMAT:
        raise ValueError(f"{files[0].name} is of the format {words.get('format')!r}; {FORMAT!r} can be read")
    tensors = load_file(files[1])
    vectors = [_vector(row, tensors, i) for i, row in enumerate(words["vectors"])]
    if content_hash(vectors, words["receipts"]) != words["hash"]:
        raise ValueError(f"{path.name} is not what was saved: its hash is not {words['hash']}; save it again")
    return vectors, words["receipts"]


def _stem(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix in (".json", ".safetensors", ".gguf"):
        raise ValueError(f"two files are written, so give {path.with_suffix('').name!r}, without the suffix")
    return path


def _tensors(vectors: Vectors) -> dict[str, Tensor]:
    return {
        f"{i}.{name}": getattr(vector, name).detach().cpu().contiguous().clone()
        for i, vector in enumerate(many(vectors))
        for name in _TENSORS
    }


def _words(vectors: Vectors, receipts: Mapping[str, Any] | None) -> dict[str, Any]:
    """All that is not a tensor, as JSON gives it back."""
    rows = [
        {
            "site": {"kind": v.site.kind, "layer": v.site.layer},
            "how": dict(v.how),
            "checks": list(map(asdict, v.checks)),
        }
        | {name: getattr(v, name) for name in _NUMBERS}
        for v in many(vectors)
    ]
    words: dict[str, Any] = json.loads(
        json.dumps({"format": FORMAT, "vectors": rows, "receipts": dict(receipts or {})})
    )
    return words


def _vector(row: Mapping[str, Any], tensors: Mapping[str, Tensor], i: int) -> Vector:
    parts = {name: tensors[f"{i}.{name}"] for name in _TENSORS} | {name: row[name] for name in _NUMBERS}
    checks = [Check(**check) for check in row["checks"]]
    return Vector(site=Site(**row["site"]), how=row["how"], checks=checks, **parts)
