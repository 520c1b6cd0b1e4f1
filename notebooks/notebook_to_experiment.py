# %% [markdown]
# # From notebook to experiment
#
# A cell is the best place to have an idea, and a bad place to keep a result: next week nobody knows which prompts,
# which weights and which version of the cell gave the number. Here a few cells become a file that asks one question.
# The file can be run by hand, from the command line or from here; what it finds is kept with all that is needed to
# believe it.
#
# The question: *when does the answer reach the last word?* At the end one figure answers it for nine behaviours.

# %%
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import interp
from experiments.lab import find, keep, sweep
from experiments.report import comparison_page, run_page, sweep_page, write
from experiments.store import Store
from interp import patching, plots, stats, tasks

model = interp.load()

# %% [markdown]
# ## The idea, in cells
#
# A model predicts the next word from what is in its residual stream at the last word. The answer is decided by words
# further up, so at some layer it must arrive. To see when, copy the stream of the clean run into the corrupt run, at
# the last word alone, before one block after the other. The share of the logit difference that comes back says how
# much of the answer is there already.

# %%
task = tasks.ioi(model, n=32, seed=0)
given = model, task.clean, task.corrupt, model.sites("resid_pre"), task.logit_diff
arrived = patching.patch(*given, over=["pos"], roles=["END"]).isel(pos=0)
stats.summary(arrived).to_dataframe()[["mean", "low", "high", "p"]].round(3)

# %% [markdown]
# Entering block 0, nothing is there: the last word is the same in both runs. So it stays for two blocks more, and then
# block 2 brings more than half of it at once. Beside each mean stand its interval and the p-value of a null in which
# the signs of the effects are exchanged at random. (A small p does not make an effect large: look at block 1.)
#
# Is that a fact about *models*, or about this behaviour? Try another one: the capital of a country.

# %%
task = tasks.facts(model, n=32, seed=0)
given = model, task.clean, task.corrupt, model.sites("resid_pre"), task.logit_diff
arrived = patching.patch(*given, over=["pos"], roles=["END"]).isel(pos=0)
stats.summary(arrived).to_dataframe()[["mean", "low", "high", "p"]].round(3)

# %% [markdown]
# This one is early: block 0 brings nearly all of it. Now there are nine behaviours, several seeds, perhaps other
# models, and two cells that were copied. This is the moment to write a file.
#
# ## The question, in a file
#
# A question file has a `Config` (what can be set), `inputs` (what the numbers depend on beside it), a pure `run` that
# returns labelled arrays, and three small functions that say and draw what was found. Nothing in it prints or saves.
# Nothing heavy is imported at its top, so that `--help` answers at once.

# %%
folder = Path(tempfile.mkdtemp())  # yours would lie in a folder that you keep
file = folder / "arrival.py"
source = '''
"""How much of the answer is in the stream at the last word? Activation patching there, block by block."""

from dataclasses import dataclass

from experiments.lab import OnModel, option
from experiments.lab.subjects import open_model, open_task

QUESTION = "When does the answer reach the last word?"
VERSION = 1  # raise it when the same options give other numbers


@dataclass(frozen=True)
class Config(OnModel):
    n: int = option(32, "how many pairs of prompts are drawn")
    task: str = option("ioi", "the behaviour, one of interp.tasks.EMBEDDED")
    enough: float = option(0.5, "the share of the logit difference that counts as having arrived")


def inputs(cfg):
    model = open_model(cfg)
    return model, open_task(cfg, model, cfg.task)


def run(cfg):
    from interp import patching, stats

    model, task = inputs(cfg)
    given = model, task.clean, task.corrupt, model.sites("resid_pre"), task.logit_diff
    share = patching.patch(*given, over=["pos"], roles=["END"]).isel(pos=0, drop=True)
    return {"share": share.assign_attrs(enough=cfg.enough), "table": stats.summary(share, seed=cfg.seed)}


def numbers(arrays):
    mean, enough = arrays["table"]["mean"], arrays["share"].attrs["enough"]
    there = [int(layer) for layer in mean["layer"].values if float(mean.sel(layer=layer)) >= enough]
    return {"arrives": there[0] if there else mean.sizes["layer"], "last": float(mean[-1])}


def answer(arrays):
    table, layer = arrays["table"], numbers(arrays)["arrives"]
    if layer == table.sizes["layer"]:
        return f"Only the last block brings it: entering it, {float(table['mean'][-1]):.0%} is there."
    here = table.sel(layer=layer)
    low, mean, high = (float(here[name]) for name in ("low", "mean", "high"))
    return f"Entering block {layer}: {mean:.0%} of it is there (95 % interval {low:.0%} to {high:.0%})."


def draw(arrays):
    from interp import plots

    return {"share": plots.lines({"mean, 95 %": arrays["table"]}, "layer", QUESTION, "share restored")}
'''
_ = file.write_text(source.lstrip())

# %% [markdown]
# ## Run it, and keep it
#
# In a notebook, `find` imports the file. `run` computes and keeps nothing; use it while you still change the question.

# %%
arrival = find(str(file))
arrays = arrival.run(arrival.config(n=8))
print(arrival.question, arrival.answer(arrays))
print({name: dict(array.sizes) for name, array in arrays.items()})

# %% [markdown]
# `keep` runs a config and puts into a *store* what came out: arrays, figures, the answer, the checks, the log, the
# versions of the packages and the commit. Here the store is a temporary folder; leave it out for `runs`.

# %%
store = Store(tempfile.mkdtemp())
run = keep(arrival.config(), store)
print(run.name, "|", run.question, run.answer)
for name, about in run.manifest["files"].items():
    print(f"  {name:20} {about['bytes']:6} bytes, sha256 {about['sha256'][:12]}…")

# %%
run.show("share")

# %% [markdown]
# Prediction: asked the same again, it computes nothing, for the key says that nothing has changed. The key is a hash
# of the question's name and version, the options, all weights, the vocabulary, and the prompts token by token. Change
# any of them and it is another run.

# %%
for what, config in (("the same", arrival.config()), ("other prompts", arrival.config(seed=1))):
    start = time.perf_counter()
    other = keep(config, store)
    print(f"{what:13} {other.key}  {time.perf_counter() - start:.2f} s  new: {other.key != run.key}")

# %% [markdown]
# ## From the command line
#
# The file is an experiment like those that ship: with a name, options and help. Below is what you would type in the
# file's folder: for its help, and for a third behaviour, in which the verb must agree with its subject across a noun
# of the other number. A key that does not exist is answered with the nearest that does.


# %%
def shell(*words: str) -> None:
    """Run `python -m experiments …` and print what was typed and what it says."""
    done = subprocess.run([sys.executable, "-m", "experiments", *words], capture_output=True, text=True)
    said = f"$ python -m experiments {' '.join(words)}\n{done.stdout}{done.stderr}"
    print(said.replace(str(folder), ".").replace(store.root, "runs").strip(), "\n")


shell(str(file), "--help")

# %%
shell(str(file), "task=agreement", "--store", store.root)
shell(str(file), "taks=agreement", "--store", store.root)

# %% [markdown]
# Agreement is later than both: less than a tenth of it is there when the last block begins.
#
# ## A sweep
#
# All nine behaviours, with three draws of prompts each. Prediction: some of these points are in the store already and
# are not computed again. So a sweep that was killed goes on, by the same call. To see it, three behaviours first, then
# all.

# %%
for some in (list(tasks.EMBEDDED)[:3], list(tasks.EMBEDDED)):
    before, start = len(store.runs()), time.perf_counter()
    done = sweep(arrival.config(), store, task=some, seed=range(3))
    new, seconds = len(store.runs()) - before, time.perf_counter() - start
    print(f"{len(done.runs)} points, {new} of them new, {seconds:.1f} s")

# %% [markdown]
# In a shell the same sweep is `python -m experiments ./arrival.py -m task=ioi,facts 'seed=range(0,3)'`; with `--on
# joblib` it runs in several processes, with `--on submitit_slurm` or `--on ray` on a cluster. A search for the best
# value of a real-valued option is `--maximize NUMBER --trials 40 'enough=interval(0,1)'`.
#
# All runs are one data frame: a row for each, with options, numbers, how the checks ended, and seconds.

# %%
frame = store.frame(sweep=done.name)
frame.groupby("task")[["arrives", "last"]].agg(["min", "max"]).round(2)

# %% [markdown]
# `arrives` does not change with the prompts that are drawn. (4 means: only with the last block.) That is what the
# seeds were for.
#
# ## A page
#
# A page is one file that can be sent to anybody and opens without a network: question, answer, figures that answer to
# the mouse, checks, how it was made and how to make it again. There is one for a run, one for a sweep, and one that
# puts runs side by side.

# %%
pages = {
    "run.html": run_page(run),
    "sweep.html": sweep_page(done.runs, "nine behaviours, three seeds"),
    "compare.html": comparison_page([run, done.runs[-1]]),
}
for name, page in pages.items():
    print(name, f"{write(folder / name, page).stat().st_size / 1e6:.1f} MB")

# %% [markdown]
# ## Is it still true?
#
# Run it again and compare; in a shell, `python -m experiments rerun KEY` does this. `verify` reads every file again
# and names those that are not what they were. To see it, we damage one.

# %%
again = arrival.run(arrival.config())["share"]
print(f"run again: {float(abs(again - run.load('share')).max()):.0e} apart")
print("before:", store.verify() or "every file is what it was")

victim = Path(store.root) / run.manifest["folder"] / "log.txt"
victim.write_text(victim.read_text().replace("95 %", "99 %"))
for problem in store.verify():
    print("after:", problem)

# %% [markdown]
# ## The result: nine behaviours, one figure
#
# `store.dataset` puts one array of all runs of a sweep together, with an axis for each option in which they differ:
# here task and seed, beside the array's own layer and prompt.

# %%
share = store.dataset("share", sweep=done.name)
print(dict(share.sizes))
mean = share.mean(["seed", "prompt"]).rename("share", layer="entering block")
mean = mean.sel(task=mean.sum("entering block").sortby(mean.sum("entering block"))["task"])
text = (mean.round(2) + 0.0).astype(str)  # so that no cell says -0.0
result = plots.heatmap(mean, "How much of the answer is at the last word", text=text, diverging=False)
result.show()

# %% [markdown]
# One small model, and each of its blocks brings the answer of some behaviour. Of three, the last word has three
# quarters or all after block 0. Two pass the half with block 1, three with block 2. Agreement waits for the last
# block: until then less than a tenth is at the last word, which the notebook on probes finds in another way.
#
# What would change our mind? "Arrived" means that what is at the last word is *enough*; in which form it is there,
# this patch does not say. Of facts nearly all is there after block 0, and yet the logit lens, in the notebook on
# lenses, gives the capital little probability at that place. Nor does it say where the rest is: of ioi about a third
# is still at the object when block 3 begins, says [the model's card](../docs/model_card.md). And it is one model: with
# `model=gpt2`, where the hub can be reached, the same file asks the same question of another.
#
# ## Where to go next
#
# * Put the file into `experiments/`, and `make experiments` runs it with the others and adds it to their page.
# * `python -m experiments --help` lists the questions that ship and the commands: `diff`, `rerun`, `gc`, `export` and
#   more.
# * Activations of a whole corpus, clusters, object storage: [docs/experiments.md](../docs/experiments.md).
# * Ask of every checkpoint: `model=embedded@01000`. When in training does each behaviour arrive where it ends up?
