"""Check annotated shapes while the tests run, in the modules that annotate any: a check costs time in every call."""

from importlib.util import find_spec
from pathlib import Path

from jaxtyping import install_import_hook


def annotated() -> list[str]:
    """The modules of interp that annotate shapes."""
    spec = find_spec("interp")
    assert spec is not None and spec.origin is not None
    root = Path(spec.origin).parent
    paths = [path for path in root.rglob("*.py") if "from jaxtyping import" in path.read_text()]
    return sorted(".".join(path.relative_to(root.parent).with_suffix("").parts) for path in paths)


def check_in_every_call() -> None:
    """From here on, modules are imported with their checks; an int may stand for a float, as in Python's typing."""
    install_import_hook(annotated(), "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
