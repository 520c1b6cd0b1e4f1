"""The examples of each page in docs/ run, from its first to its last."""

import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", sorted(page.name for page in DOCS.glob("*.md")))
def test_the_examples_of_a_page_run(page):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S)
    known: dict = {}
    for block in blocks:
        exec(compile(block, page, "exec"), known)


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
