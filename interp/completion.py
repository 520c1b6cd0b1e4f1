"""What completion and `help` offer of a module: what it defines or hands on, not what it is made with."""

import ast
import inspect
from functools import partial
from types import ModuleType
from typing import Any


def tidy(modules: dict[str, Any]) -> None:
    """Let the modules among these list their public names alone; everything else can be reached as before."""
    for module in modules.values():
        if isinstance(module, ModuleType):
            vars(module)["__dir__"] = partial(names_of, module)


def names_of(module: ModuleType) -> list[str]:
    """The public names of a module: a package hands on what it imports, any other module only what is its own."""
    names = {
        name: value for name, value in vars(module).items() if name[0] != "_" and not isinstance(value, ModuleType)
    }
    if hasattr(module, "__path__"):
        return sorted(names)
    constants = _constants(module)
    return sorted(
        name
        for name, value in names.items()
        if name in constants or getattr(value, "__module__", "") == module.__name__
    )


def _constants(module: ModuleType) -> set[str]:
    """What a module assigns at its top, under names in capitals."""
    try:
        body = ast.parse(inspect.getsource(module)).body
    except OSError:  # installed without its source
        return set()
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in body if isinstance(node, ast.AnnAssign)]
    return {target.id for target in targets if isinstance(target, ast.Name) and target.id.isupper()}
