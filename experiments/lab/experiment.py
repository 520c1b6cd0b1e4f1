"""An experiment: a module that asks one question.

It has `QUESTION`, `VERSION` (to be raised when the same config gives other numbers; one of your own is computed anew whenever its
file changes, or one beside it that it imports), a frozen dataclass `Config`, and

    inputs(cfg) -> tuple      what it depends on beside the config: models, tasks, files; hashed into the key
    run(cfg) -> arrays        pure: labelled arrays, data sets and tensors by name
    numbers(arrays) -> dict   a few numbers, by which runs are compared and searched
    answer(arrays) -> str     the answer in a sentence or two
    draw(arrays) -> dict      plotly figures, and data frames for tables
"""

import ast
import difflib
import hashlib
import importlib
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.lab.options import Arrays, Shown
from experiments.lab.sources import folder_of, imported_by
from experiments.store import PAGES

log = logging.getLogger(__name__)
FOLDER = Path(__file__).parents[1]
_SAYING = ("numbers", "answer", "draw")
_SOURCES = "__sources__"  # of a Config, which is another after a reload, and goes to other processes as it is
_OWN = ""  # the name of its own file among them
_COLUMNS = ("key", "experiment", "checks", "seconds")
_PARTS = ("QUESTION", "VERSION", "Config", "inputs", "run", *_SAYING)


@dataclass(frozen=True)
class Experiment:
    """One question, and the module that asks it."""

    name: str
    module: ModuleType

    @property
    def question(self) -> str:
        """What is asked."""
        return str(self.module.QUESTION)

    @property
    def version(self) -> int:
        """Raised by hand when the same config gives other numbers."""
        return int(self.module.VERSION)

    @property
    def file(self) -> Path:
        """Where it is written."""
        return Path(str(self.module.__file__))

    @property
    def shipped(self) -> bool:
        """Whether it is one of this folder."""
        return self.file.parent == FOLDER

    @property
    def sources(self) -> Mapping[str, bytes]:
        """Its file, and those beside it that it imports, as they were when this process first saw them, or reloaded them."""
        return getattr(self.config, _SOURCES)  # type: ignore[no-any-return]

    @property
    def source(self) -> bytes:
        """Its file as it was then."""
        return self.sources[_OWN]

    @property
    def code(self) -> str:
        """A hash of these files."""
        return _hash(self.sources.values())

    @property
    def computing(self) -> str:
        """A hash of them without what only reads the arrays: `numbers`, `answer` and `draw`."""
        own, *others = self.sources.values()
        kept = [node for node in ast.parse(own).body if getattr(node, "name", "") not in _SAYING]
        return _hash(["\n".join(map(ast.unparse, kept)).encode(), *others])

    @property
    def identity(self) -> list[Any]:
        """What tells its runs from those of other code: its name and version and, of one of your own, its files.

        Nobody raises the version of such a file at each change, and others may have its name.
        """
        return [self.name, self.version, *([] if self.shipped else [self.code])]

    @property
    def config(self) -> type:
        """The dataclass of its options."""
        return self.module.Config  # type: ignore[no-any-return]

    def inputs(self, cfg: Any) -> tuple[Any, ...]:
        """What a run depends on beside its config."""
        return tuple(self.module.inputs(cfg))

    def run(self, cfg: Any) -> Arrays:
        """Labelled arrays, data sets and tensors by name."""
        return self.module.run(cfg)  # type: ignore[no-any-return]

    def numbers(self, arrays: Arrays) -> dict[str, float]:
        """A few numbers, by which runs are compared.

        Raises:
            ValueError: One that is called as an option is, or as another column of a table of runs.
        """
        found = {name: float(value) for name, value in self.module.numbers(arrays).items()}
        if taken := sorted({*found} & {*_COLUMNS, *(field.name for field in fields(self.config))}):
            raise ValueError(
                f"a number cannot be called {taken[0]!r}, as an option or a column of runs is; name it otherwise"
            )
        return found

    def answer(self, arrays: Arrays) -> str:
        """The answer in words."""
        return str(self.module.answer(arrays))

    def draw(self, arrays: Arrays) -> Shown:
        """Figures and tables by name."""
        return self.module.draw(arrays)  # type: ignore[no-any-return]


def shipped() -> dict[str, str]:
    """The question of each experiment in this folder, by name; read without importing any."""
    found = {path.stem: _question(path) for path in sorted(FOLDER.glob("*.py"))}
    return {name: question for name, question in found.items() if question}


def find(name: str) -> Experiment:
    """An experiment by its name, or by the path of a file of your own.

    Raises:
        ValueError: No such experiment; a file that lacks a part of one.
    """
    if name.endswith(".py"):
        return _checked(_from_file(Path(name)))
    known = shipped()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"there is no experiment {name!r}{hint} Choose from {', '.join(known)}, or give a .py file")
    return _checked(importlib.import_module(f"experiments.{name}"))


def experiment_of(cfg: Any) -> Experiment:
    """The experiment whose config this is.

    Raises:
        ValueError: A config of a notebook or of standard input, of which no file tells how a run was made.
    """
    # Not sys.modules: once nnsight is imported, cloudpickle sends classes to other processes without their modules.
    return _checked(importlib.import_module(type(cfg).__module__))


def _checked(module: ModuleType) -> Experiment:
    if lost := [part for part in _PARTS if not hasattr(module, part)]:
        raise ValueError(
            f"{module.__name__} is no experiment: it lacks {', '.join(lost)}; see experiments.lab.experiment"
        )
    if bare := [f.name for f in fields(module.Config) if f.default is MISSING and f.default_factory is MISSING]:
        raise ValueError(
            f"every option has a default, and {bare[0]!r} of {module.__name__}.Config has none; give it one"
        )
    file = Path(str(getattr(module, "__file__", "")))
    if not file.is_file():
        raise ValueError(
            "a question is kept by the file that asks it, and this one is typed in a notebook or on standard input; write it "
            "to a file (in a notebook: %%writefile my_question.py), and import that"
        )
    if file.stem == PAGES:
        raise ValueError(f"{PAGES!r} is the folder of the pages in a store; give the file {PAGES}.py another name")
    if _SOURCES not in vars(module.Config):  # one that extends another's has that one's, too
        own = file.read_bytes()
        setattr(module.Config, _SOURCES, {_OWN: own} | imported_by(file, own))
    _warn_of_changes(file, getattr(module.Config, _SOURCES))
    found = Experiment(file.stem, module)  # what is run as a script calls itself "__main__"
    # A copy of one that is shipped stands beside it, not among its runs.
    copied = not found.shipped and (FOLDER / found.file.name).exists()
    return replace(found, name=f"my_{found.name}") if copied else found


def _warn_of_changes(file: Path, sources: Mapping[str, bytes]) -> None:
    root = folder_of(file)
    for name, source in sources.items():
        path = file if name == _OWN else root / name
        if not path.is_file() or path.read_bytes() != source:
            log.warning("%s has changed since it was imported; what runs is the old code until it is reloaded", path)


def _hash(sources: Iterable[bytes]) -> str:
    return hashlib.sha256(b"\0".join(sources)).hexdigest()[:16]


def _from_file(path: Path) -> ModuleType:
    """The module of a file, under its own name and importable in processes started from this one."""
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}; give a .py file that asks a question")
    if "." in path.stem:
        better = path.name.replace(".", "_", path.stem.count("."))
        raise ValueError(
            f"{path.name!r} cannot be imported by its name; call it {better}, without a dot before the last"
        )
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
    module = importlib.import_module(path.stem)
    if Path(str(module.__file__)).resolve() != path.resolve():
        raise ValueError(f"{path.stem!r} is already the name of {module.__name__}; give the file {path.name} another")
    return module


def _question(path: Path) -> str:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "QUESTION":
            return str(ast.literal_eval(node.value))
    return ""
