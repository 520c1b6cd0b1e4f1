"""A whole page: one file with its style, its script, and plotly's."""

import os
import uuid
from contextlib import suppress
from functools import lru_cache
from html import escape
from importlib import resources
from pathlib import Path

from experiments.report.html import element


def page(title: str, body: str) -> str:
    """A document that needs no network."""
    head = (
        "<meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<meta name=color-scheme content='light dark'>{element('title', escape(title))}{element('style', _asset('page.css'))}"
    )
    button = element("button", "◐", id="theme", type="button", title="light or dark", **{"aria-label": "light or dark"})
    scripts = element("script", _asset("page.js"))
    if 'class="plot"' in body:
        scripts = element("script", _plotly()) + scripts
    return (
        f"<!doctype html><html lang=en><head>{head}</head><body>{button}{element('main', body)}{scripts}</body></html>"
    )


def write(path: Path, html: str) -> Path:
    """Write a page at once and whole; return its path.

    Raises:
        OSError: The disk is full, or cannot be written; the page that was there stays.
    """
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(html, encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        said = f"the page {path} could not be written: {error.strerror}. What it shows is kept; write it elsewhere by --page FILE"
        raise OSError(error.errno, said) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return path


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())
