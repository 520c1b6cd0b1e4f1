"""The rules of the layout, kept by the tests."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1] / "interp"

# A module may import only from modules on an earlier line; a package stands for all in it that is not named itself.
LAYERS = [
    {"completion", "precision", "prepacked", "quadrature", "version", "wording"},
    {
        "sites",
        "shape",
        "locks",
        "answers",
        "packing",
        "products",
        "directions",
        "donors",
        "resampling",
        "zoo.lexicon",
    },
    {"traces", "zoo.language", "quick", "graph"},
    {"indexing", "tokenizing", "trials", "zoo.corpus"},
    {"edits"},
    {"visits", "columns", "arguments", "padding"},
    {"model", "backends.stream", "backends.attention", "progress"},
    {"metrics", "arrays", "caching", "backends.families", "backends.watching", "backends.told", "recording"},
    {"replay", "backends.calling", "backends.heads", "backends.sizes", "backends.unembedding"},
    {"backends.projections"},
    {"contrast", "backends.structure", "backends.remote", "backends.bridges"},
    {"backends.frozen", "stats", "sweep", "grid", "generation", "tasks.task", "components", "readout"},
    {"backends.huggingface", "backends.transformer_lens", "backends.nnsight", "checking", "agreement"},
    {"backends.modules"},
    {"backends.readers"},
    {"backends.listening"},
    {"backends"},
    {"tasks", "gradients", "randomised"},
    {
        "ablation",
        "attribution",
        "attribution_patching",
        "circuits",
        "effects",
        "interactions",
        "lens",
        "patching",
        "weights",
    },
    {"probing", "steering", "subspaces", "weights"},
    {"plots"},
    {"zoo", "english"},
    {"zoo.card"},
]
RANK = {name: i for i, layer in enumerate(LAYERS) for name in layer} | {"": len(LAYERS), "__main__": len(LAYERS) + 1}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(path: Path):
    known = {name_of(p) for p in ROOT.rglob("*.py")}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ("" for alias in node.names if alias.name == "interp")
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "interp":
            base = (node.module or "").removeprefix("interp").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                yield inner if inner in known else base


def unit_of(name: str) -> str:
    """The longest part of a module's name that has a place of its own."""
    while name not in RANK:
        name = name.rpartition(".")[0]
        assert name, "a new module needs a place in LAYERS"
    return name


def test_imports_point_downwards():
    for path in ROOT.rglob("*.py"):
        user = name_of(path)
        for used in imports_of(path):
            units = unit_of(user), unit_of(used)
            assert RANK[units[1]] < RANK[units[0]] or len(set(units)) == 1, f"{user} may not import {used or 'interp'}"


def test_no_imports_go_in_a_circle():
    graph = {name_of(path): {*imports_of(path)} - {name_of(path)} for path in ROOT.rglob("*.py")}
    TopologicalSorter(graph).prepare()


def test_no_module_is_long():
    for path in ROOT.rglob("*.py"):
        text = path.read_text()
        reason = "long because" in text.partition("\n")[0]
        assert text.count("\n") <= 250 or reason, f"{path.name}: split it, or say `long because` in its first line"


def test_importing_interp_imports_no_heavy_dependency():
    heavy = ("nnsight", "transformer_lens", "captum", "scipy.stats", "sklearn", "transformers.modeling_utils")
    code = f"import interp, sys; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_what_is_imported_at_the_top_is_public_and_nothing_else():
    import interp

    tree = ast.parse((ROOT / "__init__.py").read_text())
    imported = [alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(interp.__all__) == sorted(name for name in imported if name != "_tidy") == dir(interp)


def test_completion_offers_what_a_module_defines_and_not_what_it_is_made_with():
    from interp import circuits, effects, english, patching

    assert dir(patching) == ["both_directions", "patch"]
    assert dir(effects) == ["decompose", "logit_attribution", "self_repair"]
    assert {"eap", "graph", "patch_edges"} <= {*dir(circuits)} and "masks" not in dir(circuits)
    assert {"NOUNS", "ioi"} <= {*dir(english)}
