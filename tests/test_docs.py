"""The examples of each page in docs/ run, from its first to its last."""

import re
import sys
from pathlib import Path

import pytest
import tiny

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", sorted(page.name for page in DOCS.glob("*.md")))
def test_the_examples_of_a_page_run(page):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S)
    known: dict = {}
    for block in blocks:
        exec(compile(block, page, "exec"), known)


def test_the_code_for_the_literature_runs_on_a_model_of_that_shape(tmp_path, monkeypatch):
    tiny.save_english("gpt2", tmp_path / "gpt2", n_layer=12, n_head=12, n_embd=48)
    monkeypatch.chdir(tmp_path)
    known: dict = {}
    for block in re.findall(r"```py\n(.*?)```", (DOCS / "literature.md").read_text(), re.S):
        exec(compile(block.replace("n=32", "n=4"), "literature.md", "exec"), known)
    assert (
        int(known["graph"].mask().sum() - known["of_heads"](known["names"]).sum()) > 118 * 4
        and len(known["names"]) == 26
    )


def test_the_reference_says_what_the_docstrings_say():
    """If not, run `python -m docs.make --reference`."""
    sys.path.insert(0, str(DOCS.parent))
    from docs.make import reference

    pages = {page.name: page.read_text() for page in (DOCS / "reference").glob("*.md")}
    assert pages == reference()


def test_every_link_between_pages_leads_somewhere():
    for page in [DOCS.parent / "README.md", *DOCS.rglob("*.md")]:
        for target in re.findall(
            r"\]\(([^)#:]+)(?:#[^)]*)?\)", re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.S)
        ):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
