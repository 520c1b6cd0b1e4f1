"""The code of a question: its own file, and the files beside it that it imports."""

import ast
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

_LIBRARIES = ("interp", "experiments")  # a version of these is told by hand, or by the commit
_IMPORTED: dict[Path, tuple[ModuleSpec | None, bytes]] = {}


def imported_by(file: Path, source: bytes) -> dict[str, bytes]:
    """The files below a question's folder (or its package's) that it imports, directly or not, by their paths from there.

    Each is as it was when it was imported, not as it was written since.
    """
    file, root = file.resolve(), folder_of(file)
    found: dict[Path, bytes] = {}
    left = [(file, source)]
    while left:
        path, text = left.pop()
        for other in _imports(path, text, {path.parent, root}):
            inside = other.is_relative_to(root) and other.relative_to(root).parts[0] not in _LIBRARIES
            if inside and other != file and other not in found:
                found[other] = _as_imported(other)
                left.append((other, found[other]))
    return {path.relative_to(root).as_posix(): found[path] for path in sorted(found)}


def folder_of(file: Path) -> Path:
    """The folder from which a file's neighbours are imported: its own, or the one that its package is in."""
    folder = file.resolve().parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _as_imported(path: Path) -> bytes:
    """A file as it was when this process first saw its module, or saw it reloaded; as it is, if it is not imported."""
    specs = (getattr(module, "__spec__", None) for module in [*sys.modules.values()])
    spec: Any = next((spec for spec in specs if getattr(spec, "origin", None) == str(path)), None)
    if path not in _IMPORTED or spec is None or _IMPORTED[path][0] is not spec:  # reloading makes a new one
        _IMPORTED[path] = spec, path.read_bytes()
    return _IMPORTED[path][1]


def _imports(path: Path, source: bytes, folders: set[Path]) -> Iterator[Path]:
    """The files that a file may import from some folders, and from its own package."""
    with suppress(SyntaxError):  # which it is told of when it is imported
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names, places = [alias.name for alias in node.names], folders
            elif isinstance(node, ast.ImportFrom):
                within = f"{node.module}." if node.module else ""
                names = [within + alias.name for alias in node.names]
                places = {path.parents[node.level - 1]} if node.level else folders
            else:
                continue
            for name in names:
                parts = name.split(".")
                for place in places:
                    for n in range(1, len(parts) + 1):
                        stem = place.joinpath(*parts[:n])
                        yield from filter(Path.is_file, (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"))
