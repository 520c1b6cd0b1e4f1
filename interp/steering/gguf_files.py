"""Control vectors in GGUF, the format of repeng and llama.cpp; needs the package gguf."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from interp.arguments import check_folder
from interp.sites import Site
from interp.steering.vector import Vector, Vectors, many

_ARCHITECTURE = "controlvector"


def export_gguf(vectors: Vectors, path: str | Path, model_type: str, dose: float = 1.0) -> None:
    """Write vectors as a control vector: what is added to the stream behind each block, in float32.

    llama.cpp refuses a file with a vector of layer 0; repeng takes it.

    Args:
        vectors: Of `resid_post`, one for each layer.
        model_type: As Hugging Face's configurations name it, such as "llama".
        dose: In gaps; llama.cpp and repeng multiply what is written by a strength.

    Raises:
        ValueError: A site that the format has no place for; two vectors of one layer.
        FileNotFoundError: A folder that is not there.
        ImportError: The package gguf is not installed.
    """
    listed = many(vectors)
    check_folder(path)
    if wrong := [v.site for v in listed if v.site.kind != "resid_post"]:
        raise ValueError(
            f"a control vector is added behind a block, at resid_post, not at {wrong[0]}; extract it there"
        )
    layers = [v.site.layer for v in listed]
    if len(set(layers)) != len(layers):
        raise ValueError(f"a control vector has one direction a layer; the layers given are {layers}")
    writer = _gguf().GGUFWriter(str(path), _ARCHITECTURE)
    writer.add_string(f"{_ARCHITECTURE}.model_hint", model_type)
    writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(listed))
    for vector in listed:
        values = (dose * vector.writer).detach().float().cpu().numpy()
        writer.add_tensor(f"direction.{vector.site.layer}", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def import_gguf(path: str | Path) -> list[Vector]:
    """The vectors of a control vector, in the order of their layers; of them nothing but the writer is known.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A file that is no control vector.
        ImportError: The package gguf is not installed.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; give a control vector in GGUF")
    try:
        reader = _gguf().GGUFReader(str(path))
    except ValueError as error:
        raise ValueError(f"{Path(path).name} is no GGUF file: {error}") from None
    kind, model_type = (_word(reader, name) for name in ("general.architecture", f"{_ARCHITECTURE}.model_hint"))
    found = {t.name.partition(".")[2]: t.data for t in reader.tensors if t.name.startswith("direction.")}
    if kind != _ARCHITECTURE or not found or not all(layer.isdigit() for layer in found):
        raise ValueError(f"{Path(path).name} is no control vector: it is {kind!r} with {len(found)} directions")
    how: dict[str, Any] = {"writer": "imported from GGUF", "model_type": model_type}
    return [
        Vector.of(Site("resid_post", layer), torch.from_numpy(np.array(found[str(layer)], dtype=np.float32)), how=how)
        for layer in sorted(map(int, found))
    ]


def _word(reader: Any, name: str) -> str:
    field = reader.get_field(name)
    return "" if field is None else bytes(field.parts[-1]).decode()


def _gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise ImportError("control vectors need the package gguf; pip install interp[gguf]") from error
    return gguf
