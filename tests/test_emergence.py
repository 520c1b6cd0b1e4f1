"""When behaviours appear in training: against independent computations, and on trainings that are known."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import xarray as xr
from test_experiments import asked
from tiny import save_english

import interp
from experiments import emergence
from experiments.lab import checkpoints
from interp import tasks, zoo


@pytest.fixture(scope="module")
def found():
    return asked(emergence)


def test_each_checkpoint_is_measured_as_the_model_that_it_is(found, embedded):
    arrays, numbers, _, _ = found
    folder = Path(zoo.__file__).parent / "checkpoints"
    early = interp.load(str(folder / "01000"), tokenizer=embedded.tokenizer)
    for step, model in ((1000, early), (9000, embedded)):
        for name, make in {"induction": tasks.induction, "facts": tasks.facts}.items():
            task = make(embedded, 12, 0)
            here = {"step": step, "behaviour": name}
            logits = model.run(task.clean).logits[:, -1]
            margin = (logits.gather(-1, task.right) - logits.gather(-1, task.wrong))[:, 0]
            np.testing.assert_allclose(arrays["margin"].sel(here), margin, atol=1e-4)
            other = model.run(task.corrupt).logits[:, -1].softmax(-1)
            rise = (logits.softmax(-1) - other).gather(-1, task.right)[:, 0]
            np.testing.assert_allclose(arrays["strength"].sel(here), rise, atol=1e-5)
            right = [int(row.argmax()) in task.right[i].tolist() for i, row in enumerate(logits)]
            assert arrays["right"].sel(here).values.tolist() == right
    assert numbers["induction_right"] == 1


def test_half_way_and_the_rise_are_those_of_the_mean_curve(found):
    arrays, numbers, answer, figures = found
    curve = arrays["strength"].sel(behaviour="induction").mean("prompt")
    steps, level = np.array([0, *curve["step"].values]), np.array([0, *curve.values]) / float(curve[-1])
    assert (np.diff(level) > -0.02).all(), "it rises, so that it can be read the other way round"
    begun, half, ended = np.interp([0.1, 0.5, 0.9], np.maximum.accumulate(level), steps)
    assert numbers["induction_step"] == pytest.approx(half, rel=1e-4)
    assert numbers["induction_ratio"] == pytest.approx((ended - begun) / begun, rel=1e-3)
    onset = arrays["onset"].sel(what="induction")
    assert float(onset["from"]) <= numbers["induction_step"] <= float(onset["to"])
    assert {float(onset["from"]), float(onset["to"])} <= set(steps.tolist()), "nothing is known between checkpoints"
    assert (
        "Induction changes phase" in answer
        and f"induction at {numbers['induction_step']:.0f} (" in answer
        and len(figures) == 5
    )
    looks = arrays["heads"].sel(detector="induction").isel(step=-1).mean("prompt")
    layer, head = np.unravel_index(int(looks.argmax()), looks.shape)
    assert str(arrays["onset"]["head"].sel(what="induction head").values) == f"L{layer}H{head}"


@pytest.mark.parametrize("sharp", [True, False])
def test_a_phase_change_is_told_from_steady_growth(sharp):
    steps = np.array([100.0, 200, 400, 800, 1600])
    level = np.where(steps > 300, 4.0, 0.0) if sharp else 4.0 * steps / 1600
    noise = np.random.default_rng(0).normal(size=(5, 60)) * 0.5
    array = xr.DataArray(level[:, None] + noise, {"step": steps}, ("step", "prompt"))
    onset = emergence._onset(array, 0)
    at = xr.Dataset(onset)
    if sharp:
        assert (onset["from"], onset["to"]) == (200, 400) and onset["step"] == pytest.approx(300, rel=0.02)
        assert onset["ratio"] == pytest.approx(160 / 220, rel=0.1)
    else:
        assert onset["step"] == pytest.approx(800, rel=0.1) and onset["ratio"] == pytest.approx(8, rel=0.3)
    assert emergence._phase(at).startswith("Induction changes phase") is sharp
    flat = emergence._onset(array * 0 + noise, 0)
    assert all(np.isnan(value) for value in flat.values()), "what is not there at the end never appeared"


def test_steps_are_read_off_names_that_rise():
    assert list(checkpoints.training("embedded", ()).values())[-2:] == [4500.0, 9000.0]
    assert list(checkpoints.training("me/gpt@step30", ("me/gpt@step10", "runs/checkpoint-20")))[-1] == "me/gpt@step30"
    assert list(checkpoints.training("me/gpt@step30", ("me/gpt@step10", "runs/checkpoint-20")).values()) == [10, 20, 30]
    assert list(checkpoints.training("me/gpt", ("first", "second")).values()) == [1, 2, 3]
    assert list(checkpoints.training("v2", ("v3", "v1")).values()) == [1, 2, 3], "numbers that fall are no steps"
    with pytest.raises(ValueError, match="no checkpoints of the training of gpt2 are known; name them, oldest first"):
        checkpoints.training("gpt2", ())


def test_a_model_that_learnt_nothing_shows_no_sign(tmp_path):
    names = [save_english("gpt2", tmp_path / f"step{i}") for i in (1, 2)]
    arrays, _, answer, _ = asked(emergence, model=names[1], checkpoints=(names[0],))
    assert arrays["margin"]["step"].values.tolist() == [1, 2] and "No sign, at the end, of" in answer
    assert "Not asked, because no prompts are shipped that fit the model: greater_than" in answer
    with pytest.raises(ValueError, match="checkpoints of one training have one shape, but"):
        emergence.inputs(emergence.Config(n=4, model=names[1], checkpoints=(tiny.save("llama", tmp_path / "other"),)))


@pytest.mark.slow
def test_revisions_of_a_model_on_the_hub(tmp_path):
    """A cache of the hub as it lies on the disk after a download, and a fresh process that reads it."""
    cache = tmp_path / "hub/models--me--tiny"
    for i, name in enumerate(("step10", "step20")):
        save_english("gpt2", cache / "snapshots" / (f"{i}" * 40))
        (cache / "refs").mkdir(exist_ok=True)
        (cache / "refs" / name).write_text(f"{i}" * 40)
    code = (
        "from experiments import emergence as e\n"
        "cfg = e.Config(n=4, model='me/tiny@step20', checkpoints=('me/tiny@step10',))\n"
        "print(e.run(cfg)['margin']['step'].values.tolist())\n"
        "e.inputs(e.Config(n=4, model='me/tiny@step30', checkpoints=('me/tiny@step10',)))"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=200)
    assert done.stdout.strip() == "[10.0, 20.0]"
    assert "'me/tiny' could not be had at revision 'step30'" in done.stderr
