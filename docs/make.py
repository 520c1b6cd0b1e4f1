"""Write the generated pages: `python -m docs.make` makes docs/reference/ from docstrings, and docs/model_support.md.

`python -m docs.make --reference` leaves out the support table, which runs every family.
"""

import argparse
import ast
import inspect
import re
import sys
import textwrap
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import interp

DOCS = Path(__file__).parent
_CORE = ("Site", "Edit", "Model", "Tokens", "Trace", "load", "check", "generate")


def reference() -> dict[str, str]:
    """The text of each reference page by its name."""
    modules = {name: value for name, value in vars(interp).items() if _is_public_module(name, value)}
    pages = {f"{name}.md": _page(f"interp.{name}", module) for name, module in sorted(modules.items())}
    core = "\n".join(_entry(name, getattr(interp, name)) for name in _CORE)
    pages["core.md"] = f"# `interp`\n\n{inspect.getdoc(interp)}\n\n{core}"
    rows = [f"| [`{name.removesuffix('.md')}`]({name}) | {_first_line(text)} |" for name, text in sorted(pages.items())]
    head = [
        "# Reference\n",
        "Generated from the docstrings by `python -m docs.make --reference`.\n",
        "| module | |",
        "|---|---|",
    ]
    return pages | {"README.md": "\n".join(head + rows) + "\n"}


def _is_public_module(name: str, value: Any) -> bool:
    """Whether `from interp import name` is meant: what interp/__init__.py imports, not what came along with it."""
    imported = (DOCS.parent / "interp" / "__init__.py").read_text()
    return isinstance(value, ModuleType) and f" as {name}\n" in imported


def _page(title: str, module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if _belongs(module, name, value)]
    entries = "\n".join(_entry(name, getattr(module, name)) for name in names)
    return f"# `{title}`\n\n{inspect.getdoc(module)}\n\n{entries}"


def _belongs(module: ModuleType, name: str, value: Any) -> bool:
    """Whether a public name is a module's own: defined in it, or handed on by a package."""
    own = getattr(value, "__module__", "") or ""
    return (
        not name.startswith("_")
        and callable(value)
        and (own == module.__name__ or own.startswith(module.__name__ + "."))
    )


def _entry(name: str, value: Any) -> str:
    if not inspect.isclass(value) and not inspect.isfunction(value):
        return f"## `{name}`\n\n`{value!r}`\n"
    parts = [f"## `{name}`", f"```python\n{name}{_signature(value)}\n```", _text(value)]
    if inspect.isclass(value):
        parts += [
            f"**`{name}.{key}`** — {_first_line(inspect.getdoc(member) or '')}" for key, member in _members(value)
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _members(value: type) -> list[tuple[str, Any]]:
    own = {key: member for key, member in vars(value).items() if not key.startswith("_")}
    return [
        (key, member) for key, member in own.items() if inspect.getdoc(member) and not isinstance(member, str | int)
    ]


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


def _first_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return lines[0] if lines else ""


def support() -> str:
    """The families, on tiny random models, against every backend: what holds, and what is missing."""
    sys.path.insert(0, str(DOCS.parent / "tests"))
    import tiny

    lines = ["# Models that are supported\n", "Made by `python -m docs.make`: tiny random models, the identities of"]
    lines += ["`interp.check` on each. Other families are looked for by structure, and verified on the model itself.\n"]
    lines += [f"| family | {' | '.join(interp.BACKENDS)} | not there |", "|---|" + "---|" * (len(interp.BACKENDS) + 1)]
    for family in tiny.FAMILIES:
        cells, missing = [], {}
        for backend in interp.BACKENDS:
            model = interp.load(tiny.build(family), backend=backend, tokenizer=tiny.tokenizer())
            report = interp.check(model)
            missing |= {f"{kind} ({backend})": None for kind in report.missing}
            cells.append("yes" if report.holds else "no")
        lines.append(f"| {family} | {' | '.join(cells)} | {', '.join(missing) or '–'} |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


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
