"""Run the notebooks: `python notebooks/run.py` refreshes every .ipynb, `--check` says whether each one runs."""

import argparse
import asyncio
import time
from base64 import b64encode
from pathlib import Path
from tempfile import TemporaryDirectory

import jupytext
import nbformat
import plotly.graph_objects as go
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent
SOURCES = sorted(path for path in FOLDER.glob("*.py") if path.name != Path(__file__).name)
# What is stored has pictures, as GitHub runs no scripts; a check draws none and needs no browser.
STORE = "import plotly.io as io; io.renderers.default = 'png'; io.renderers['png'].scale = 1.5"
CHECK = "import plotly.io as io; io.renderers.default = 'plotly_mimetype'"
# No bars: they go to stderr, and how long work takes depends on what else the machine does.
QUIET = (
    "import os, warnings; os.environ['TQDM_DISABLE'] = '1'; warnings.filterwarnings('ignore', 'IProgress not found')"
)
THREAD = "import torch; torch.set_num_threads(1)"  # on a busy machine several make so small a model six times slower


def read(source: Path) -> NotebookNode:
    """The notebook of a script in jupytext's percent format, not yet run."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for i, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{i}", {}
    return notebook


def execute(source: Path, setup: str = CHECK) -> NotebookNode:
    """The notebook of a script, run in the repository's root after a line of `setup`.

    Raises:
        CellExecutionError: A cell raised an exception.
        RuntimeError: A cell wrote to stderr, where warnings go.
    """
    notebook = read(source)
    lines = [f"--IPKernelApp.exec_lines={line}" for line in (QUIET, THREAD, setup)]
    place = {"metadata": {"path": str(FOLDER.parent)}}
    client = NotebookClient(notebook, timeout=300, record_timing=False, extra_arguments=lines, resources=place)
    manager = client.create_kernel_manager()
    with TemporaryDirectory() as folder:  # of its own: notebooks that start at once must not share their sockets
        manager.transport, manager.ip = "ipc", f"{folder}/kernel"  # over TCP it warns that others could listen
        client.execute()
    for cell in notebook.cells:
        if errors := [out.text for out in cell.get("outputs", []) if out.get("name") == "stderr"]:
            raise RuntimeError(f"{source.name}: this cell warns:\n{cell.source}\n\n{errors[0]}")
    return notebook


def picture_texts(notebook: NotebookNode) -> None:
    """Put pictures in the place of coloured text: GitHub shows HTML without its styles."""
    for cell in notebook.cells:
        for out in cell.get("outputs", []):
            html = out.get("data", {}).get("text/html", "")
            if 'class="interp-text"' in html:
                out.data = {"image/png": asyncio.run(screenshot(html)), "text/plain": "text"}


async def screenshot(html: str, width: int = 900) -> str:
    """What a cell shows as it looks on a light page, in the Chromium that kaleido uses: PNG, in base64."""
    import choreographer  # comes with kaleido; a check needs neither

    page = f'<!doctype html><meta charset="utf-8"><body class="light" style="margin:8px">{html}'
    async with choreographer.Browser(headless=True) as browser:
        tab = await browser.create_tab()
        size = {"width": width, "height": 100, "deviceScaleFactor": 1.5, "mobile": False}
        await tab.send_command("Emulation.setDeviceMetricsOverride", size)
        await tab.send_command("Page.enable")
        loaded = tab.subscribe_once("Page.loadEventFired")
        await tab.send_command("Page.navigate", {"url": f"data:text/html;base64,{b64encode(page.encode()).decode()}"})
        await loaded
        metrics = await tab.send_command("Page.getLayoutMetrics")
        clip = {"x": 0, "y": 0, "width": width, "height": metrics["result"]["cssContentSize"]["height"], "scale": 1}
        shot = await tab.send_command("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        return shot["result"]["data"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="some of them, such as patching; by default all")
    parser.add_argument("--check", action="store_true", help="run every notebook and write nothing")
    given = parser.parse_args()
    check = given.check
    if not check:
        go.Figure().to_image("png")  # without a Chromium, kaleido says here what to install
    for source in [path for path in SOURCES if not given.names or path.stem in given.names]:
        start = time.perf_counter()
        notebook = execute(source, CHECK if check else STORE)
        if not check:
            picture_texts(notebook)
            nbformat.write(notebook, source.with_suffix(".ipynb"))
        print(f"{source.name}: {'runs' if check else 'refreshed'} ({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
