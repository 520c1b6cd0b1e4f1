"""Write the generated pages: `python -m docs.make` makes docs/reference/ from docstrings, and docs/model_support.md.

`python -m docs.make --reference` leaves out the support table, which runs every family.
"""

import argparse
import ast
import importlib
import inspect
import re
import sys
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import interp
from interp.backends.families import FAMILIES
from interp.checking import Report
from interp.completion import names_of
from interp.sites import AXES

DOCS = Path(__file__).parent
_BESIDE = (
    "arrays",
    "generation",
    "graph",
    "sweep",
)  # what results and methods are made of, beside the table of contents
_CORE = ("Site", "Edit", "Model", "Tokens", "Trace", "load", "check", "generate")


def reference() -> dict[str, str]:
    """The text of each reference page by its name."""
    public = {name: getattr(interp, name) for name in interp.__all__}
    modules = {name: value for name, value in public.items() if isinstance(value, ModuleType)}
    modules |= {name: importlib.import_module(f"interp.{name}") for name in _BESIDE}
    pages = {f"{name}.md": _page(f"interp.{name}", module) for name, module in sorted(modules.items())}
    core = "\n".join(_entry(name, getattr(interp, name)) for name in _CORE)
    pages["core.md"] = f"# `interp`\n\n{inspect.getdoc(interp)}\n\n{core}"
    rows = [f"| [`{name.removesuffix('.md')}`]({name}) | {_summary(text)} |" for name, text in sorted(pages.items())]
    head = [
        "# Reference\n",
        "Generated from the docstrings by `python -m docs.make --reference`.\n",
        "| module | |",
        "|---|---|",
    ]
    return pages | {"README.md": "\n".join(head + rows) + "\n"}


def _page(title: str, module: ModuleType) -> str:
    offered = {*names_of(module)}
    names = [name for name in vars(module) if name in offered]
    entries = "\n".join(_entry(name, getattr(module, name)) for name in names)
    return f"# `{title}`\n\n{inspect.getdoc(module)}\n\n{entries}"


def _entry(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        rows = [f"- `{key}`: {words}" if isinstance(words, str) else f"- `{key}`" for key, words in value.items()]
        return f"## `{name}`\n\n" + "\n".join(rows) + "\n"
    if not inspect.isclass(value) and not inspect.isfunction(value):
        return f"## `{name}`\n\n`{value!r}`\n"
    parts = [f"## `{name}`", f"```python\n{name}{_signature(value)}\n```", _text(value)]
    if inspect.isclass(value):
        parts += [f"**`{name}.{key}`** — {_summary(inspect.getdoc(member) or '')}" for key, member in _members(value)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _members(value: type) -> list[tuple[str, Any]]:
    """What a class has that says what it is; a default says what its type is."""
    own = [(key, member) for key, member in vars(value).items() if not key.startswith("_")]
    return [(key, member) for key, member in own if inspect.getdoc(member) not in (None, inspect.getdoc(type(member)))]


def _signature(value: Any) -> str:
    """Arguments as they are written in the source, whose names of types say more than what they stand for."""
    node: Any = ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]
    if isinstance(node, ast.ClassDef):
        fields = [ast.unparse(line) for line in node.body if isinstance(line, ast.AnnAssign)]
        return f"({', '.join(fields)})" if len(fields) < 3 else "(\n    " + ",\n    ".join(fields) + ",\n)"
    given = ast.unparse(node.args)
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if len(given) + len(result) < 90:
        return f"({given}){result}"
    return "(\n    " + ",\n    ".join(_arguments(node.args)) + f",\n){result}"


def _arguments(args: ast.arguments) -> list[str]:
    """Each argument with its type and default."""
    defaults = [None] * (len(args.args) - len(args.defaults)) + list(args.defaults)
    parts = [_argument(arg, default) for arg, default in zip(args.args, defaults)]
    parts += ["*" + ast.unparse(args.vararg)] if args.vararg else ["*"] if args.kwonlyargs else []
    parts += [_argument(arg, default) for arg, default in zip(args.kwonlyargs, args.kw_defaults)]
    return parts + (["**" + ast.unparse(args.kwarg)] if args.kwarg else [])


def _argument(arg: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(arg) + (f" = {ast.unparse(default)}" if default else "")


def _text(value: Any) -> str:
    """A docstring as Markdown: the entries of its sections become lists."""
    lines, section = [], ""
    for line in (inspect.getdoc(value) or "").splitlines():
        entry = re.match(r"    (\*{0,2}\w[\w, *]*): (.*)", line)
        if re.fullmatch(r"(Args|Returns|Raises|Attributes|Yields):", line):
            section = line[:-1]
            lines.append(f"**{section}**\n")
        elif entry and section != "Returns":
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        else:
            lines.append("  " + line.strip() if lines and lines[-1].startswith(("- ", "  ")) and line else line.strip())
    return "\n".join(lines)


def _summary(text: str) -> str:
    """The first paragraph below a heading, as one line."""
    paragraphs = [part for part in text.split("\n\n") if part.strip() and not part.startswith("#")]
    return " ".join(paragraphs[0].split()) if paragraphs else ""


def support(families: Sequence[str] = (), backends: Sequence[str] = interp.BACKENDS) -> str:
    """The page of families, all unless some are named, on tiny random models: what holds, and what is not there."""
    sys.path.insert(0, str(DOCS.parent / "tests"))
    import tiny

    rows, reasons = [], []
    for family in families or [*FAMILIES, *(name for name in tiny.OTHERS if name not in FAMILIES)]:
        cells = [_edges(tiny.build(family))]
        for backend in backends:
            module = tiny.build(family)
            try:
                model = interp.load(module, backend=backend, tokenizer=tiny.tokenizer())
                report = interp.check(model)
            except Exception as error:  # a library may refuse a family, or fail on it
                cells.append("**NO**")
                reasons.append(("**NO**", _failure(backend, error), family, backend))
                continue
            cells.append(_supported(model, report.holds))
            reasons += [(what, why, family, backend) for what, why in _lacks(model, report)]
        rows.append(f"| `{family}`{'' if family in FAMILIES else ' (by structure)'} | {' | '.join(cells)} |")
    head = [f"| family | edges | {' | '.join(backends)} |", "|---|---|" + "---|" * len(backends)]
    return "\n".join([_SUPPORT, *head, *rows, "", "Why something is not there:", "", *_reasons(reasons), _OTHERS])


_SUPPORT = """# Models that are supported

`interp.load` takes a model of these families by any of three libraries, under the same names, with the same numbers.
The table is generated (`python -m docs.make`): tiny random models, the identities of `interp.check` on each.

* **all**: every kind of [site](../README.md#sites) is there, can be read and edited, and every identity holds.
* **without**: kinds that are not there. Asking for one raises an error that says why; everything else holds.
* **reads only**: kinds that can be read and not edited.
* **NO**: an identity does not hold, and `interp.check` says which; take another backend.
* (by structure): the family has no row of its own; its sites were found by running it.
* edges: whether it is known how attention and MLP read the residual stream, which `circuits` and `weights` need; on any
  backend whose model is made of Hugging Face's modules.
"""
_OTHERS = """
## Your model

```
python -m interp check ./my-model                      # a folder written by save_pretrained, or a hub name
python -m interp check ./my-model --backend nnsight
```

It takes seconds and prints each identity with its largest error. Sizes, grouped queries, sliding windows, soft caps and
tied embeddings are read off the model; only its architecture (`config.model_type`) matters.

Other families are looked for by structure, and what is found is believed only where a run of the model itself shows
it. To give one a row: [adding things](../README.md#adding-things).
"""


def _supported(model: interp.Model, holds: bool) -> str:
    """One cell of the table."""
    if not holds:
        return "**NO**"
    lost = [f"`{kind}`" for kind in AXES if kind not in model.editable]
    fixed = [f"`{kind}`" for kind, editable in model.editable.items() if not editable]
    said = [f"without {', '.join(lost)}"] if lost else []
    said += [f"reads only {', '.join(fixed)}"] if fixed else []
    return "; ".join(said) or "all"


def _edges(module: Any) -> str:
    """Whether a family's edges can be had."""
    try:
        interp.circuits.graph(interp.load(module))
    except ValueError:
        return "no"
    return "yes"


def _failure(backend: str, error: Exception) -> str:
    """What to say of a family that a library refuses, or fails on."""
    first = re.split(r"\. |: \[|\n", str(error))[0]
    return f"{backend} raises {type(error).__name__}: {first}"


def _lacks(model: interp.Model, report: Report) -> list[tuple[str, str]]:
    """What is not there or does not hold, and why."""
    lost = [kind for kind in AXES if kind not in model.editable]
    wrong = [row.identity for row in report.rows if not row.holds]
    known = [(f"`{kind}`", model.missing.get(kind, "it was not found in this model")) for kind in lost]
    return known + [("**NO**", f"what does not hold is: {'; '.join(wrong)}")] * bool(wrong)


def _reasons(found: Iterable[tuple[str, str, str, str]]) -> list[str]:
    """Each reason once, with the kinds that are missing for it, and where."""
    where: dict[tuple[str, str], dict[str, list[str]]] = {}
    for what, why, family, backend in found:
        where.setdefault((why, what), {}).setdefault(backend, []).append(family)
    alike: dict[tuple[str, str], list[str]] = {}
    for (why, what), by in where.items():
        backends: dict[str, list[str]] = {}
        for backend, families in by.items():
            backends.setdefault(", ".join(families), []).append(backend)
        places = "; ".join(f"{families} ({', '.join(some)})" for families, some in backends.items())
        alike.setdefault((why, places), []).append(what)
    return [f"* {', '.join(kinds)} in {places}: {why}." for (why, places), kinds in alike.items()] or ["* nothing."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", action="store_true", help="the reference alone")
    only = parser.parse_args().reference
    folder = DOCS / "reference"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.md"):
        old.unlink()
    for name, text in reference().items():
        (folder / name).write_text(text)
    if not only:
        warnings.filterwarnings("ignore")
        (DOCS / "model_support.md").write_text(support())


if __name__ == "__main__":
    main()
