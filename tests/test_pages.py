"""Pages: whole, readable offline, made from the store alone, safe against what labels contain."""

import errno
import json
import re
import shlex
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr
from parabola import Config

from experiments import facts, report
from experiments.lab import Sweep, command_line, keep, sweep
from experiments.lab.commands import write_page
from experiments.report import html
from experiments.report.comparing import _share_scales
from experiments.report.page import page, write
from experiments.store import Store
from interp import plots

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("pages") / "runs")


def stored_figures(html):
    return [json.loads(raw) for raw in re.findall(r'<script type="application/json">(.*?)</script>', html, re.S)]


def outside(html):
    """What a browser would fetch; plotly's own script, which names addresses it does not fetch here, aside."""
    own = re.sub(r"<script>.*?</script>", "", html, flags=re.S)
    return re.findall(r"""(?:src|href)=["']?(?!#)[^"' >]+|url\([^)]*\)|@import""", own)


def test_a_page_has_all_of_a_run_and_needs_nothing_else(store, monkeypatch):
    import parabola

    run = keep(Config(x=3.0), store)
    monkeypatch.setattr(parabola, "draw", None)
    monkeypatch.setattr(parabola, "answer", None)  # the store alone is enough
    html = report.run_page(run)
    assert outside(html) == []
    assert html.count("plotly.js v") <= 2 and html.count('class="plot"') == 1
    assert stored_figures(html) == [json.loads(run.show("height").to_json())]
    for said in (
        run.question,
        run.answer,
        run.key,
        "python -m experiments",
        "! warn",
        "a &lt;/script&gt; &amp; &lt;b&gt;",
    ):
        assert said in html, said
    assert "<b>" not in html and "a &lt;b&gt;" in html
    assert all(name in html for name in run.manifest["files"])


def test_what_a_page_says_to_type_is_the_same_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = Store(tmp_path / "my runs")
    cfg = Config(x=float("inf"), log="it's ${x}", powers=(1,))
    run = keep(cfg, own)
    code = unescape(re.search(r"<pre[^>]*>(.*?)</pre>", report.run_page(run), re.S)[1])
    command, rerun, _, *notebook = code.splitlines()
    words = shlex.split(command)
    source = str(Path(__file__).with_name("parabola.py"))
    assert words[:4] == ["python", "-m", "experiments", source] and words[-2:] == ["--store", str(tmp_path / "my runs")]
    assert command_line.main([*words[3:], "--no-page"]) == 0 and [r.key for r in own.runs()] == [run.key]
    assert command_line.main(shlex.split(rerun, comments=True)[3:]) == 0
    said: dict = {}
    exec("\n".join(notebook), said)
    assert said["run"].key == run.key and len(own.runs()) == 1 and [p.name for p in tmp_path.iterdir()] != ["runs"]
    shipped = keep(facts.Config(n=4), Store("runs"))
    code = unescape(re.search(r"<pre[^>]*>(.*?)</pre>", report.run_page(shipped), re.S)[1])
    assert code.startswith("python -m experiments facts n=4\n") and "run = keep(facts.Config(n=4))" in code


def test_pages_of_sweeps_comparisons_and_galleries(store):
    done = sweep(Config(), store, x=[0.0, 2.0, 4.0], sign=["up", "down"])
    page = write_page(done.runs, store.root, sweep=done.name).read_text()
    curves = stored_figures(page)[0]["data"]
    assert [trace["name"] for trace in curves] == ["sign down", "sign up"] and outside(page) == []
    assert all(run.key in page for run in done.runs) and "6 runs" in page
    both = report.comparison_page(done.runs[:2])
    assert len(stored_figures(both)) == 2 and both.count("plotly.js v") <= 2 and "sign" in both
    gallery = report.gallery_page(done.runs[:3], "All", "lead")
    assert len(stored_figures(gallery)) == 3 and gallery.count("<section") == 3
    with pytest.raises(ValueError, match="a comparison needs two runs or more, not 1"):
        report.comparison_page(done.runs[:1])


def test_a_page_of_a_sweep_shows_points_without_a_value_and_says_which_are_missing(tmp_path, monkeypatch):
    import parabola

    own, read = Store(tmp_path), lambda done: write_page(done.runs, own.root, sweep=done.name).read_text()
    monkeypatch.setattr(parabola, "run", lambda cfg: {"x": xr.DataArray([cfg.x or 0.0])})
    monkeypatch.setattr(parabola, "numbers", lambda arrays: {"height": float(arrays["x"][0])})
    monkeypatch.setattr(parabola, "answer", lambda arrays: "It is.")
    monkeypatch.setattr(parabola, "draw", lambda arrays: {})
    page = read(sweep(Config(), own, x=[1.0, None, 2.0, 3.0], sign=["up", None]))
    figure = stored_figures(page)[0]
    assert [trace["x"] for trace in figure["data"]] == [[1.0, 2.0, 3.0, "None"]] * 2 and "8 runs" in page
    assert figure["layout"]["xaxis"]["type"] == "category"
    assert {trace["name"] for trace in figure["data"]} == {"sign up", "sign None"}
    page = read(Sweep((few := sweep(Config(), own, x=[4.0, 5.0, 6.0])).name, few.runs[:2]))
    assert "2 of 3 points" in page and "The others have failed, or have not been run yet" in page


def test_a_page_of_a_sweep_tells_many_curves_apart_and_counts_points_once(tmp_path):
    own = Store(tmp_path)
    done = sweep(Config(), own, x=np.array([1.0, 2.0, 1.0]), powers=[(i,) for i in range(2)], seed=range(14))
    assert len(done.runs) == 56 and own.sweeps()[done.name]["points"] == 56
    few = sweep(Config(sign="up"), own, x=range(14), powers=[[i] for i in range(13)])
    page = write_page(few.runs, own.root, sweep=few.name).read_text()
    figure = stored_figures(page)[0]
    assert "12 of 13 values of powers" in figure["layout"]["title"]["text"] and "182 runs" in page
    pens = {(t["line"]["color"], t["line"]["dash"], t["marker"]["symbol"]) for t in figure["data"]}
    assert len(pens) == len(figure["data"]) == 12


def test_pages_of_several_runs_have_names_that_are_short_and_their_own(tmp_path):
    own = Store(tmp_path)
    keys = [keep(Config(x=float(x)), own).key for x in range(45)]
    for command in ("page", "compare"):
        for some in (keys, keys[:2], [keys[0], keys[2]], keys[1::-1]):
            assert command_line.main([command, *some, f"--store={tmp_path}"]) == 0
    assert len(list((tmp_path / "pages").iterdir())) == 8


def test_every_colour_of_a_figure_has_another_on_dark_paper():
    files = [path for path in (HERE.parent / "interp/plots").glob("*.py") if path.name != "text.py"]
    used = {colour for path in files for colour in re.findall(r'"(#[0-9a-f]{3,6})"', path.read_text())}
    script = (HERE.parent / "experiments/report/page.js").read_text()
    scales = {"#f7f7f7", "#a8a8a8", "#fff"}  # of the grey scale, and of letters on dark cells
    known = set(re.findall(r'"(#[0-9a-f]{3,6})": "#', script))
    assert used - scales <= known and "#fff" in script and len(used) > 12


def test_maps_side_by_side_share_one_scale():
    maps = [{"data": [{"type": "heatmap", "zmin": -reach, "zmax": reach}]} for reach in (1.0, 3.0)]
    _share_scales(maps)
    assert [data["data"][0]["zmax"] for data in maps] == [3.0, 3.0] and maps[0]["data"][0]["zmin"] == -3.0
    for values in ([[[1.0, -0.5]], [[4.0, 2.0]]], [[[4.0, 2.0]], [[1.0, -0.5]]]):  # one signed, the other not
        drawn = [json.loads(plots.heatmap(xr.DataArray(z, dims=("y", "x"))).to_json()) for z in values]
        _share_scales(drawn)
        scales = [{name: data["data"][0][name] for name in ("zmin", "zmax", "zmid", "colorscale")} for data in drawn]
        assert scales[0] == scales[1] and scales[0] | {"zmin": -4.0, "zmax": 4.0, "zmid": 0} == scales[0]
        assert scales[0]["colorscale"][5][1].lower() in ("#f7f7f7", "rgb(247,247,247)"), "the middle has no colour"
    plain = [json.loads(plots.heatmap(xr.DataArray([[z]], dims=("y", "x"))).to_json()) for z in (1.0, 2.0)]
    _share_scales(plain)
    assert [data["data"][0]["zmin"] for data in plain] == [0, 0] and "zmid" not in plain[0]["data"][0]
    several = [
        {
            "data": [{"type": "heatmap", "zmin": 0, "zmax": high, "xaxis": at} for at in ("x", "x2")]
            + [{"type": "heatmap"}]
        }
        for high in (1, 2)
    ]
    several[1]["data"][1]["zmax"] = 50
    _share_scales(several)
    assert [[trace.get("zmax") for trace in data["data"]] for data in several] == [[2, 50, None]] * 2


def test_a_page_that_finds_no_room_says_that_the_run_is_kept_and_leaves_nothing(tmp_path, monkeypatch):
    own = Store(tmp_path)
    run = keep(Config(), own)
    page = write_page([run], own.root)
    before, write = page.read_bytes(), Path.write_text

    def fills_up(self, text, **more):
        write(self, text[:1000], **more)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fills_up)
    with pytest.raises(
        OSError, match=r"the page .* could not be written: No space left on device\. What it shows is kept"
    ):
        write_page([run], own.root)
    monkeypatch.undo()
    assert [path.name for path in page.parent.iterdir()] == [page.name] and page.read_bytes() == before
    draft = page.with_name(f"{page.name}.12345678.tmp")  # of a process that was killed
    draft.write_text("half")
    (page.parent / "pictures").mkdir()
    assert own.gc(older_than=3600) == []
    assert own.gc(older_than=-1) == [f"pages/{draft.name}"] and sorted(p.name for p in page.parent.iterdir()) == [
        page.name,
        "pictures",
    ]


def drawn(page):
    """What a browser without a network makes of a page."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium to open the page with")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command = [browser, *flags, "--virtual-time-budget=20000", "--dump-dom", f"file://{page}"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    return dom.partition('class="plot')[2]


def test_a_browser_without_a_network_draws_the_figures(store):
    dom = drawn(write_page([keep(Config(x=3.0), store)], store.root))
    assert "main-svg" in dom and "scatterlayer" in dom


def test_on_a_phone_the_title_is_broken_and_the_legend_is_below_the_plot(tmp_path):
    curve = xr.DataArray([0.0, 1.0], dims="layer", coords={"layer": [0, 1]})
    title = "A title that is as long as a title of a figure may well be, or longer"
    figure = plots.lines({f"one of several curves, number {i}": curve for i in range(4)}, "layer", title, "share")
    found = {}
    for width in (390, 900):
        body = html.figure(json.loads(figure.to_json())) + f"<style>main{{width:{width}px}}</style>"
        dom = drawn(write(tmp_path / f"{width}.html", page("A page", body)))
        lines = len(re.findall("<tspan", re.search(r'class="g-gtitle">(.*?)</g>', dom, re.S)[1]))
        legend = float(re.search(r'class="legend"[^>]*transform="translate\([\d.]+,\s*([\d.]+)\)', dom)[1])
        below = float(re.search(r'class="xtitle" x="[\d.]+" y="([\d.]+)"', dom)[1])
        found[width] = lines > 1, legend > below
    assert found == {390: (True, True), 900: (False, False)}


def test_a_picture_is_as_high_as_its_figure(tmp_path, monkeypatch):
    import parabola
    import plotly.io

    heights = {"low": 200, "high": 720, "usual": None}
    shown = {name: go.Figure(go.Scatter(y=[1, 2]), layout_height=height) for name, height in heights.items()}
    monkeypatch.setattr(parabola, "draw", lambda arrays: shown)
    said = report.pictures([keep(Config(), Store(tmp_path / "runs"))], tmp_path / "pictures")
    if said.startswith("no pictures"):
        pytest.skip(said)
    found = {}
    for file in (tmp_path / "pictures").iterdir():
        found[file.name.split("-")[1]] = int.from_bytes(file.read_bytes()[20:24], "big")  # as PNG says it
    assert found == {"low": 400, "high": 1440, "usual": 2 * plotly.io.defaults.default_height}


def test_pictures_are_written_or_one_line_says_why_not(store, tmp_path, monkeypatch):
    run = keep(Config(x=3.0), store)
    import plotly.io

    def no_browser(*args, **more):
        raise RuntimeError("Kaleido requires Google Chrome to be installed.\nMore text")

    monkeypatch.setattr(plotly.io, "write_images", no_browser)
    said = report.pictures([run], tmp_path, ["png", "svg"])
    assert said == "no pictures: Kaleido requires Google Chrome to be installed."
    with pytest.raises(ValueError, match="unknown format 'gif'; choose from png, svg, pdf"):
        report.pictures([run], tmp_path, ["gif"])
