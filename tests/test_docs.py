"""The examples of each page in docs/ run, from its first to its last."""

import linecache
import re
import sys
from pathlib import Path

import pytest
import tiny

import interp
from interp.backends.families import FAMILIES
from interp.checking import Report, Row

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", sorted(page.name for page in DOCS.glob("*.md")))
def test_the_examples_of_a_page_run(page):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S)
    known: dict = {}
    for i, block in enumerate(blocks):
        name = f"{page}, block {i}"
        linecache.cache[name] = len(block), None, block.splitlines(True), name  # nnsight reads the source of a trace
        exec(compile(block, name, "exec"), known)


@pytest.mark.parametrize("page", ["literature.md", "tasks.md"])
def test_the_code_for_gpt2_runs_on_a_model_of_that_shape(page, tmp_path, monkeypatch):
    tiny.save_english("gpt2", tmp_path / "gpt2", n_layer=12, n_head=12, n_embd=48)
    monkeypatch.chdir(tmp_path)
    known: dict = {}
    for block in re.findall(r"```py\n(.*?)```", (DOCS / page).read_text(), re.S):
        exec(compile(block.replace("n=32", "n=4"), page, "exec"), known)
    if page == "literature.md":
        assert len(known["names"]) == 26 and not (known["of_heads"](known["names"]) > known["graph"].mask()).any()


def test_the_reference_says_what_the_docstrings_say():
    """If not, run `python -m docs.make --reference`."""
    sys.path.insert(0, str(DOCS.parent))
    from docs.make import reference

    pages = {page.name: page.read_text() for page in (DOCS / "reference").glob("*.md")}
    assert pages == reference()


def test_the_reference_has_constants_and_what_results_are_made_of():
    from docs.make import reference

    pages = reference()
    wanted = {
        "ablation": ["KINDS"], "attribution_patching": ["ATP", "ATP_STAR", "INPUTS"], "steering": ["METHODS", "UNITS"],
        "tasks": ["CONCEPTS", "EMBEDDED"], "arrays": ["Check", "checks_of"], "graph": ["Graph"], "sweep": ["sweep"],
        "generation": ["generate"],
    }  # fmt: skip
    assert [
        f"{page}.{name}"
        for page, names in wanted.items()
        for name in names
        if f"## `{name}`" not in pages[f"{page}.md"]
    ] == []
    assert "- `greater_than`" in pages["tasks.md"] and " at 0x" not in "".join(pages.values())


def test_every_link_between_pages_leads_somewhere():
    for page in [DOCS.parent / "README.md", *DOCS.rglob("*.md")]:
        for target in re.findall(
            r"\]\(([^)#:]+)(?:#[^)]*)?\)", re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.S)
        ):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "phi"])
def test_the_support_table_says_what_a_model_says_of_itself(family):
    """One family by the quick backend; `python -m docs.make` writes the whole page."""
    sys.path.insert(0, str(DOCS.parent))
    from docs.make import support

    made, stored = support([family], ["huggingface"]), (DOCS / "model_support.md").read_text()
    (row,) = (line for line in made.splitlines() if line.startswith(f"| `{family}`"))
    (whole,) = (line for line in stored.splitlines() if line.startswith(f"| `{family}`"))
    assert whole.startswith(row.removesuffix(" |")), "run `python -m docs.make`"
    lost = interp.load(tiny.build(family), tokenizer=tiny.tokenizer()).missing
    assert all(
        f"`{kind}`" in row and f"* `{kind}` in {family} (huggingface): {why}." in made for kind, why in lost.items()
    )
    assert (" all |" in row) == (not lost)


def test_the_support_table_has_every_family_and_backend():
    page = (DOCS / "model_support.md").read_text()
    assert f"| family | edges | {' | '.join(interp.BACKENDS)} |" in page
    assert all(f"\n| `{family}` | " in page for family in FAMILIES)


def test_the_support_table_names_the_identity_that_fails(embedded):
    from docs.make import _lacks

    report = Report("a model", (Row("a = b", 1.0, 0.5), Row("c = d", 0.0, 0.5)), {})
    assert not report.holds and _lacks(embedded, report) == [("**NO**", "what does not hold is: a = b")]
